"""The graphs of a result: a blend is the mean of its parts, int8 is offered only where it costs little, a wrong one never."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from include.artifacts.atomic_write import FileFacts
from include.artifacts.model_manifest import QuantizationLoss, ScoreMetrics
from include.domain import metrics
from include.domain.errors import Corrupt
from include.domain.training.families import FamilyName
from include.trainer.data import dataset
from include.trainer.data.dataset import Dataset
from include.trainer.export import artifact
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.process import StopSignal
from include.trainer.run import run
from include.trainer.tracking.tracker import Tracker
from tests.small_dataset import make_job
from tests.unit.trainer.toys import manifest_of


def loaded(job: Job) -> Dataset:
    return dataset.load(job.dataset, job.dataset_digest)


def scores(job: Job, name: str = "model.onnx") -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(str(job.out / name), providers=["CPUExecutionProvider"])
    test = loaded(job).test
    feed = {"ids": test.ids.astype(np.int64), "numbers": np.array(test.numbers)}
    (probabilities,) = session.run(["score"], feed)
    return np.asarray(probabilities, dtype=np.float64)


def test_blend_is_the_mean_of_its_parts_on_the_whole_test_window(finished_jobs: Mapping[FamilyName, Job]) -> None:
    parts = (scores(finished_jobs["dcn"]) + scores(finished_jobs["lightgbm"])) / 2
    assert np.abs(scores(finished_jobs["blend"]) - parts).max() < 1e-6


def test_blend_has_the_manifest_of_any_model_and_the_weights_of_both(finished_jobs: Mapping[FamilyName, Job]) -> None:
    blend, one = manifest_of(finished_jobs["blend"].out), manifest_of(finished_jobs["dcn"].out)
    keys = [json.loads((finished_jobs[family].out / "manifest.json").read_text()).keys() for family in ("blend", "dcn")]
    assert keys[0] == keys[1]
    assert blend.signature == one.signature
    assert {"model.safetensors", "model.txt", "model.onnx"} < set(blend.files)


def test_int8_is_offered_beside_the_graph_when_it_costs_little(finished_jobs: Mapping[FamilyName, Job]) -> None:
    manifest = manifest_of(finished_jobs["dcn"].out)
    labels = loaded(finished_jobs["dcn"]).test.labels
    fp32, int8 = (metrics.auc(labels, scores(finished_jobs["dcn"], name)) for name in ("model.onnx", "model.int8.onnx"))
    assert manifest.int8 == QuantizationLoss(fp32 - int8, 0.001, offered=True)
    assert fp32 - int8 < 0.001
    assert manifest.graph == "model.onnx"


def test_a_model_of_a_spec_with_int8_is_served_and_measured_in_int8(dataset_file: Path, tmp_path: Path) -> None:
    job = make_job(dataset_file, tmp_path, serve="int8")
    run(job, StopSignal())
    manifest, labels = manifest_of(job.out), loaded(job).test.labels
    assert manifest.graph == "model.int8.onnx"
    assert manifest.metrics.test == ScoreMetrics(**metrics.all_metrics(labels, scores(job, "model.int8.onnx")))


def test_int8_that_loses_too_much_is_not_offered_nor_served(dataset_file: Path, tmp_path: Path) -> None:
    job = make_job(dataset_file, tmp_path, serve="int8", max_auc_loss_int8=-1.0)
    run(job, StopSignal())
    manifest = manifest_of(job.out)
    assert manifest.int8
    assert not manifest.int8.offered
    assert manifest.graph == "model.onnx"
    assert "model.int8.onnx" not in manifest.files


def test_trees_have_no_products_to_quantize(finished_jobs: Mapping[FamilyName, Job]) -> None:
    assert manifest_of(finished_jobs["lightgbm"].out).int8 is None


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_graph_equals_the_trained_model_on_the_whole_test_window(
    finished_jobs: Mapping[FamilyName, Job], family: FamilyName
) -> None:
    assert manifest_of(finished_jobs[family].out).onnx_difference <= 1e-5


def test_a_graph_that_scores_otherwise_is_never_published(
    finished_jobs: Mapping[FamilyName, Job], tmp_path: Path
) -> None:
    job = replace(finished_jobs["dcn"], out=tmp_path)
    wrong = TrainedModel([], finished_jobs["dcn"].out / "model.onnx", scores(finished_jobs["dcn"]) + 2e-5, 1.0, 1.0)
    with pytest.raises(Corrupt, match=r"dcn model is off by 2e-05 on the test windows"):
        artifact.publish(job, loaded(job), wrong, Tracker(tmp_path, None))
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_graph_takes_any_number_of_rows_in_opset_17_or_later(
    finished_jobs: Mapping[FamilyName, Job], family: FamilyName
) -> None:
    job = finished_jobs[family]
    opsets = {opset.domain: opset.version for opset in onnx.load(job.out / "model.onnx").opset_import}
    assert opsets[""] >= 17
    session = onnxruntime.InferenceSession(str(job.out / "model.onnx"), providers=["CPUExecutionProvider"])
    test, whole = loaded(job).test, scores(job)
    for rows in (1, 7):
        feed = {"ids": test.ids[:rows].astype(np.int64), "numbers": np.array(test.numbers[:rows])}
        assert np.abs(session.run(["score"], feed)[0] - whole[:rows]).max() < 1e-6


def test_nothing_but_the_result_stays_and_whoever_may_read_the_graph_may_read_the_weights(
    finished_jobs: Mapping[FamilyName, Job],
) -> None:
    out = finished_jobs["blend"].out
    assert not (out / "draft").exists()
    assert (out / "model.safetensors").stat().st_mode == (out / "model.onnx").stat().st_mode


@pytest.mark.parametrize("family", ["dcn", "lightgbm", "blend"])
def test_manifest_names_size_and_digest_of_every_file_of_the_result(
    finished_jobs: Mapping[FamilyName, Job], family: FamilyName
) -> None:
    out, files = finished_jobs[family].out, manifest_of(finished_jobs[family].out).files
    assert {"model.onnx", "encoding.json", "examples.json"} < set(files)
    for name, facts in files.items():
        content = (out / name).read_bytes()
        assert facts == FileFacts(len(content), hashlib.sha256(content).hexdigest())
