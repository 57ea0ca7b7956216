"""The result: weights, ONNX graphs, encoding, examples, and a manifest of their digests that is written last.

The manifest's `graph` names the one to serve.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.artifacts.files import file_facts, move_into_place, write_atomically
from include.domain import metrics
from include.domain.errors import Corrupt
from include.trainer.data.dataset import Dataset, Split
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.tracking.tracker import Tracker

MANIFEST, GRAPH, INT8_GRAPH = "manifest.json", "model.onnx", "model.int8.onnx"
MAX_SCORE_DIFFERENCE = 1e-5
BATCH_ROWS = 8192
#: Probabilities `[n]` of each split's rows.
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Quantized:
    """The int8 graph, its scores, and what it costs on the test windows."""

    graph: Path
    scores: Scores
    auc_loss: float
    max_auc_loss: float

    @property
    def offered(self) -> bool:
        """Whether it loses little enough to be a part of the result."""
        return bool(self.auc_loss < self.max_auc_loss)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's entry `int8`."""
        return {"auc_loss": self.auc_loss, "max_auc_loss": self.max_auc_loss, "offered": self.offered}


def is_complete(job: Job) -> bool:
    """Return whether the job's result is there already and every file of it is what its manifest says."""
    path = job.out / MANIFEST
    if not path.is_file():
        return False
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        same = manifest["dataset"]["digest"] == job.dataset_digest and manifest["job"] == job.identity
        return same and all(asdict(file_facts(job.out / name)) == entry for name, entry in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def publish(job: Job, data: Dataset, model: TrainedModel, tracker: Tracker) -> dict[str, Any]:
    """Check the graph, measure it, put all files in place and last the manifest, which is returned.

    Raises Corrupt when a score of the test windows differs from the trained model's by more than 1e-5.
    """
    splits = {"validate": data.validate, "test": data.test}
    scores = _score(model.graph, splits)
    difference = float(np.abs(scores["test"] - model.test_scores).max())
    if not difference <= MAX_SCORE_DIFFERENCE:
        raise Corrupt(f"the ONNX graph of the {job.family} model is off by {difference:.2g} on the test windows")
    folder, graph = model.graph.parent, GRAPH
    drafts = {path.name: path for path in model.weights} | {GRAPH: model.graph}
    for name in ("encoding.json", "examples.json"):
        drafts[name] = Path(shutil.copy(data.folder / name, folder))
    quantized = _quantize(job, model.graph, splits, scores)
    if quantized and quantized.offered:
        drafts[INT8_GRAPH] = quantized.graph
        if job.model.serve == "int8":
            graph, scores = INT8_GRAPH, quantized.scores
    for name, path in drafts.items():
        move_into_place(path, job.out / name)
    manifest = {
        **_origin(job, data),
        "mlflow_run_id": tracker.run_id,
        "files": {name: asdict(file_facts(job.out / name)) for name in drafts},
        "graph": graph,
        "int8": quantized and quantized.to_dict(),
        "onnx_difference": difference,
        "signature": signature(len(data.fields.categorical), len(data.fields.numeric)),
        "metrics": {name: metrics.all_metrics(split.labels, scores[name]) for name, split in splits.items()},
        "curves": tracker.curves,
        "seconds": round(model.seconds, 3),
        "samples_per_second": round(model.samples_per_second),
    }
    write_atomically(job.out / MANIFEST, json.dumps(manifest, indent=1))
    return manifest


def signature(categorical: int, numeric: int) -> dict[str, Any]:
    """Return the graph's inputs and outputs in the words of the Open Inference Protocol."""
    return {
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, categorical]},
            {"name": "numbers", "datatype": "FP32", "shape": [-1, numeric]},
        ],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1]}],
    }


def git_state() -> tuple[str, str]:
    """Return the commit of this code, and the changed files that it lacks; both empty outside a repository.

    An image holds no repository and no git but a file that says from which commit it was built.
    """
    if (commit_file := Path(__file__).parents[3] / "COMMIT").is_file():
        return commit_file.read_text(encoding="utf-8").strip(), ""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD"), " ".join(git("diff", "--name-only", "HEAD").split())


def _origin(job: Job, data: Dataset) -> dict[str, Any]:
    """Return what the result was made of, as the manifest says it."""
    dataset = data.manifest
    return {
        "format": 1,
        "model": dataset["model"],
        "family": job.family,
        "run": dataset["run"],
        "columns": dataset["columns"],
        "serving": dict(job.serving),
        "dataset": {"uri": str(job.dataset), "digest": job.dataset_digest},
        "windows": dataset["windows"],
        "seed": job.seed,
        "spec_digest": job.spec_digest,
        "job": job.identity,
        "git_commit": git_state()[0] or None,
    }


def _quantize(job: Job, graph: Path, splits: Mapping[str, Split], fp32: Scores) -> Quantized | None:
    """Return the int8 graph, which lies beside the other; None where there is no product to gain by."""
    from include.trainer.export.quantization import quantize  # its libraries are no use before

    path = graph.parent / INT8_GRAPH
    if not quantize(graph, path):
        return None
    int8, labels = _score(path, splits), splits["test"].labels
    auc_loss = metrics.auc(labels, fp32["test"]) - metrics.auc(labels, int8["test"])
    return Quantized(path, int8, auc_loss, job.training.max_auc_loss_int8)


def _score(graph: Path, splits: Mapping[str, Split]) -> Scores:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def score(split: Split) -> NDArray[np.float64]:
        parts = [
            session.run(["score"], {"ids": split.ids[part].astype(np.int64), "numbers": split.numbers[part]})[0]
            for part in (slice(i, i + BATCH_ROWS) for i in range(0, len(split), BATCH_ROWS))
        ]
        return np.concatenate(parts).astype(np.float64)

    return {name: score(split) for name, split in splits.items()}
