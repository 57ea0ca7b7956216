"""Graphs in files, their tables apart."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from include.domain.training.families import FamilyName
from include.trainer.export import graph_files
from include.trainer.job import Job


@pytest.mark.parametrize("family", ["dcn", "blend"])
def test_a_graph_and_its_table_are_handled_apart_and_are_one_file_again(
    finished_jobs: Mapping[FamilyName, Job], family: FamilyName, tmp_path: Path
) -> None:
    path = finished_jobs[family].out / "model.onnx"
    model, tables = graph_files.read(path)
    (rows,) = tables.values()
    first = 4 * finished_jobs[family].model.embedding
    assert len(model.SerializeToString()) == pytest.approx(path.stat().st_size - len(rows) + first, abs=20)
    graph_files.write(tmp_path / "again.onnx", model, tables)
    assert whole(tmp_path / "again.onnx") == whole(path)
    onnx.checker.check_model(tmp_path / "again.onnx", full_check=True)


def whole(path: Path) -> onnx.ModelProto:
    """The graph with its tensors by name, in whatever order they are stored."""
    model = onnx.load(path)
    tensors = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(tensors)
    return model
