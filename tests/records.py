"""Records of the toy model as the stages and the trainer write them; `changes` stand in the place of single fields."""

from dataclasses import replace
from typing import Any

from include.artifacts.dataset_manifest import DatasetColumns, DatasetManifest, SplitCounts, SplitWindows
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import ModelManifest, ScoreMetrics, Signature, SplitMetrics, Tensor
from include.artifacts.store import Reference

WINDOWS = SplitWindows(("2026-01-01",), ("2026-01-02",), ("2026-01-03",))
COLUMNS = DatasetColumns(time="at", label="y", keys=("key",), categorical=("c",), numeric=("x",))
DATASET = DatasetManifest(
    model="toy",
    run="r1",
    as_of="2026-01-05T00:00:00+00:00",
    table="features",
    table_version=0,
    sums_version=None,
    windows=WINDOWS,
    rows=SplitCounts(10, 10, 10),
    positives=SplitCounts(5, 5, 5),
    columns=COLUMNS,
    spec={},
    spec_digest="5" * 64,
    files={},
)
MODEL = ModelManifest(
    model="toy",
    family="dcn",
    run="r1",
    columns=COLUMNS,
    dataset=Reference("dataset.json", "d" * 64),
    windows=WINDOWS,
    seed=17,
    spec_digest="5" * 64,
    job="0" * 64,
    git_commit="abc",
    mlflow_run_id="m1",
    files={},
    onnx_difference=0.0,
    signature=Signature(
        (Tensor("ids", "INT64", (-1, 1)), Tensor("numbers", "FP32", (-1, 1))), (Tensor("score", "FP32", (-1,)),)
    ),
    metrics=SplitMetrics(ScoreMetrics(0.75, 0.45, 0.02), ScoreMetrics(0.7, 0.6, 0.02)),
    curves={"loss": ((1, 0.7), (2, 0.6))},
    seconds=1.5,
    samples_per_second=1000,
)
EVALUATION = EvaluationRecord(
    model="toy",
    description="Is it?",
    run="r1",
    spec_digest="5" * 64,
    dataset=Reference("dataset.json", "d" * 64),
    table_version=0,
    windows=WINDOWS,
    rows=10,
    positives=5,
    models={"challenger": Reference("manifest.json", "a" * 64)},
    champion=None,
    metrics={"challenger": {}},
    files={},
)


def dataset_manifest(**changes: Any) -> DatasetManifest:
    return replace(DATASET, **changes)


def model_manifest(**changes: Any) -> ModelManifest:
    return replace(MODEL, **changes)


def evaluation_record(**changes: Any) -> EvaluationRecord:
    return replace(EVALUATION, **changes)
