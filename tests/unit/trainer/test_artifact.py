"""The graphs of a result: a blend is the mean of its parts, int8 is offered only where it costs little, a wrong one never."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from include.artifacts.model_manifest import ServingOptions
from include.domain import metrics
from include.domain.errors import Corrupt
from include.trainer.data import dataset
from include.trainer.data.dataset import Dataset
from include.trainer.export import artifact, graph_files
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job, read
from include.trainer.process import StopSignal
from include.trainer.run import run
from include.trainer.tracking.tracker import Tracker
from tests.small_dataset import job, write_dataset


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def finished(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    out = tmp_path_factory.mktemp("out")
    jobs = {family: job(data_file, out / family, family) for family in ("dcn", "lightgbm", "blend")}
    for given in jobs.values():
        run(given, StopSignal())
    return jobs


def loaded(given: Job) -> Dataset:
    return dataset.load(given.dataset, given.dataset_digest)


def scores(given: Job, name: str = "model.onnx") -> np.ndarray:
    session = onnxruntime.InferenceSession(str(given.out / name), providers=["CPUExecutionProvider"])
    test = loaded(given).test
    feed = {"ids": test.ids.astype(np.int64), "numbers": np.array(test.numbers)}
    return session.run(["score"], feed)[0].astype(np.float64)


def manifest_of(given: Job) -> dict[str, Any]:
    return json.loads((given.out / "manifest.json").read_text())


def test_blend_is_the_mean_of_its_parts_on_the_whole_test_window(finished):
    parts = (scores(finished["dcn"]) + scores(finished["lightgbm"])) / 2
    assert np.abs(scores(finished["blend"]) - parts).max() < 1e-6


def test_blend_has_the_manifest_of_any_model_and_the_weights_of_both(finished):
    blend, one = manifest_of(finished["blend"]), manifest_of(finished["dcn"])
    assert blend.keys() == one.keys()
    assert blend["signature"] == one["signature"]
    assert {"model.safetensors", "model.txt", "model.onnx"} < set(blend["files"])


def test_int8_is_kept_beside_the_graph_when_it_costs_little(finished):
    manifest = manifest_of(finished["dcn"])
    labels = loaded(finished["dcn"]).test.labels
    lost = metrics.auc(labels, scores(finished["dcn"])) - metrics.auc(
        labels, scores(finished["dcn"], "model.int8.onnx")
    )
    assert manifest["int8"] == {"auc_loss": pytest.approx(lost), "max_auc_loss": 0.001, "offered": True}
    assert lost < 0.001
    assert manifest["graph"] == "model.onnx"


def test_a_spec_that_asks_for_int8_is_served_and_measured_in_int8(data_file, tmp_path):
    given = job(data_file, tmp_path, serve="int8")
    run(given, StopSignal())
    manifest, labels = manifest_of(given), loaded(given).test.labels
    assert manifest["graph"] == "model.int8.onnx"
    assert manifest["metrics"]["test"] == metrics.all_metrics(labels, scores(given, "model.int8.onnx"))


def test_int8_that_loses_too_much_is_not_offered_nor_served(data_file, tmp_path):
    given = job(data_file, tmp_path, serve="int8", max_auc_loss_int8=-1.0)
    run(given, StopSignal())
    manifest = manifest_of(given)
    assert not manifest["int8"]["offered"]
    assert manifest["graph"] == "model.onnx"
    assert "model.int8.onnx" not in manifest["files"]


def test_trees_have_no_products_to_quantize(finished):
    assert manifest_of(finished["lightgbm"])["int8"] is None


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_graph_equals_the_trained_model_on_the_whole_test_window(finished, family):
    assert manifest_of(finished[family])["onnx_difference"] <= 1e-5


def test_a_graph_that_scores_otherwise_is_never_published(finished, tmp_path):
    given = replace(finished["dcn"], out=tmp_path)
    wrong = TrainedModel([], finished["dcn"].out / "model.onnx", scores(finished["dcn"]) + 2e-5, 1.0, 1.0)
    with pytest.raises(Corrupt, match=r"dcn model is off by 2e-05 on the test windows"):
        artifact.publish(given, loaded(given), wrong, Tracker(tmp_path, None))
    assert not (tmp_path / "manifest.json").exists()


def test_a_job_is_recorded_whole(data_file, tmp_path):
    tracking = {"uri": "http://127.0.0.1:9", "experiment": "toy", "run_name": "r", "tags": {"run": "r"}}
    given = job(data_file, tmp_path, start={"uri": str(data_file), "digest": "5" * 64}, tracking=tracking)
    given = replace(given, serving=ServingOptions(0.5))
    (tmp_path / "again.json").write_text(json.dumps(given.to_dict()))
    assert read(tmp_path / "again.json") == given


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_graph_takes_any_number_of_rows_in_opset_17_or_later(finished, family):
    given = finished[family]
    opsets = {opset.domain: opset.version for opset in onnx.load(given.out / "model.onnx").opset_import}
    assert opsets[""] >= 17
    session = onnxruntime.InferenceSession(str(given.out / "model.onnx"), providers=["CPUExecutionProvider"])
    test, whole = loaded(given).test, scores(given)
    for rows in (1, 7):
        feed = {"ids": test.ids[:rows].astype(np.int64), "numbers": np.array(test.numbers[:rows])}
        assert np.abs(session.run(["score"], feed)[0] - whole[:rows]).max() < 1e-6


@pytest.mark.parametrize("family", ["dcn", "blend"])
def test_a_graph_and_its_table_are_handled_apart_and_are_one_file_again(finished, family, tmp_path):
    path = finished[family].out / "model.onnx"
    model, tables = graph_files.read(path)
    (rows,) = tables.values()
    first = 4 * finished[family].model.embedding
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


def test_nothing_but_the_result_stays_and_whoever_may_read_the_graph_may_read_the_weights(finished):
    out = finished["blend"].out
    assert not (out / "draft").exists()
    assert (out / "model.safetensors").stat().st_mode == (out / "model.onnx").stat().st_mode


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_manifest_names_size_and_digest_of_every_file_of_the_result(finished, family):
    out, files = finished[family].out, manifest_of(finished[family])["files"]
    assert {"model.onnx", "encoding.json", "examples.json"} < set(files)
    for name, facts in files.items():
        content = (out / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
