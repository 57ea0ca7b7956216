"""The scorer on a real artifact."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from include.adapters.serving.onnx_scorer import OnnxScorer
from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.server.rows import EncodedRow
from include.server.servable_model import LoadOptions, VersionReference, load_model
from include.trainer.process import StopSignal
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset


@pytest.fixture
def artifact(tmp_path: Path) -> Reference:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")
    run(job, StopSignal())
    path = job.out / "manifest.json"
    return Reference(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def examples(artifact: Reference) -> dict[str, list[Any]]:
    """Return the columns of the rows that lie beside the artifact."""
    rows = json.loads((Path(artifact.uri).parent / "examples.json").read_text())
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_scores_are_probabilities_that_depend_on_the_row(artifact: Reference) -> None:
    scores = OnnxScorer().score(artifact, examples(artifact))
    assert scores.shape == (4,)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores)) == 4


def test_rows_scored_together_score_as_they_do_alone(artifact: Reference) -> None:
    scorer, columns = OnnxScorer(), examples(artifact)
    rows = [{name: [values[n]] for name, values in columns.items()} for n in range(4)]
    alone = [scorer.score(artifact, row)[0] for row in rows]
    assert scorer.score(artifact, columns) == pytest.approx(np.array(alone), abs=1e-6)


def test_strange_rows_are_scored_too(artifact: Reference) -> None:
    columns: dict[str, list[Any]] = {
        "at": ["2013-01-21T05:00:00Z"] * 2,
        "shop": ["never seen", None],
        "part": ["", None],
        "price": [float("nan"), 1e30],
        "age": [None, -1],
    }
    assert np.isfinite(OnnxScorer().score(artifact, columns)).all()


def test_no_rows_give_no_scores(artifact: Reference) -> None:
    assert OnnxScorer().score(artifact, {name: [] for name in examples(artifact)}).shape == (0,)


@pytest.mark.parametrize("name", ["model.onnx", "encoding.json", "manifest.json"])
def test_changed_file_is_never_loaded(artifact: Reference, name: str) -> None:
    path = Path(artifact.uri).parent / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(Corrupt, match=f"{name}: its SHA-256 is not the recorded"):
        OnnxScorer().score(artifact, examples(artifact))


def test_missing_file_is_named(artifact: Reference) -> None:
    (Path(artifact.uri).parent / "model.onnx").unlink()
    with pytest.raises(Corrupt, match=r"model\.onnx: cannot be read: No such file"):
        OnnxScorer().score(artifact, examples(artifact))


def test_unreadable_number_is_named(artifact: Reference) -> None:
    with pytest.raises(ValueError, match="price: 'dear' is not a number"):
        OnnxScorer().score(artifact, {**examples(artifact), "price": ["dear"] * 4})


@pytest.mark.parametrize("graph", ["model.onnx", "model.int8.onnx"])
def test_server_and_scorer_run_the_graph_that_the_manifest_names(tmp_path: Path, graph: str) -> None:
    job = make_job(
        write_dataset(tmp_path / "dataset"), tmp_path / "out", "blend", serve="int8" if "int8" in graph else "fp32"
    )
    run(job, StopSignal())
    path = job.out / "manifest.json"
    artifact = Reference(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    served = load_model(VersionReference("1", artifact.uri, artifact.digest), LoadOptions())
    columns = examples(artifact)
    ids, numbers = served.encoding.encode(columns)
    session = onnxruntime.InferenceSession(str(job.out / graph), providers=["CPUExecutionProvider"])
    expected = session.run(["score"], {"ids": ids, "numbers": numbers})[0]
    rows = [EncodedRow(own.tobytes(), values.tobytes()) for own, values in zip(ids, numbers, strict=True)]
    assert served.score(rows) == pytest.approx(expected, abs=1e-6)
    assert OnnxScorer().score(artifact, columns) == pytest.approx(expected, abs=1e-6)
