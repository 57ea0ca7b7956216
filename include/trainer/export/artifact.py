"""The result: weights, ONNX graphs, encoding, examples, and a manifest of their digests that is written last.

The manifest's `graph` names the one to serve.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain import metrics
from include.domain.errors import Corrupt
from include.trainer.data.dataset import Dataset, Split
from include.trainer.export.trained_model import Fitted
from include.trainer.files import facts, place, write_atomically
from include.trainer.job import Job
from include.trainer.tracking.tracker import Tracker

MANIFEST, GRAPH, INT8 = "manifest.json", "model.onnx", "model.int8.onnx"
TOLERANCE = 1e-5
ROWS = 8192
Scores = NDArray[np.float64]


def finished(job: Job) -> bool:
    """Whether the job's result is there already and every file of it is what its manifest says."""
    path = job.out / MANIFEST
    if not path.is_file():
        return False
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        same = manifest["dataset"]["digest"] == job.dataset_digest and manifest["job"] == job.identity
        return same and all(facts(job.out / name) == recorded for name, recorded in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def publish(job: Job, data: Dataset, fitted: Fitted, tracker: Tracker) -> dict[str, Any]:
    """Check the graph, measure it, put all files in place and last the manifest, which is returned.

    Raises Corrupt when a score of the test windows differs from the trained model's by more than 1e-5.
    """
    from include.trainer.export.quantization import quantize  # its libraries are no use before

    splits = {"validate": data.validate, "test": data.test}
    scores = _scores(fitted.graph, splits)
    difference = float(np.abs(scores["test"] - fitted.scores).max())
    if not difference <= TOLERANCE:
        raise Corrupt(f"the ONNX graph of the {job.family} model is off by {difference:.2g} on the test windows")
    written, smaller = {path.name: path for path in fitted.weights} | {GRAPH: fitted.graph}, fitted.graph.parent / INT8
    for name in ("encoding.json", "examples.json"):
        written[name] = Path(shutil.copy(data.folder / name, fitted.graph.parent))
    graph, int8 = GRAPH, None
    if quantize(fitted.graph, smaller):
        in_int8 = _scores(smaller, splits)
        int8 = _compared(job, data.test, scores["test"], in_int8["test"])
        if int8["offered"]:
            written[INT8] = smaller
            if job.model.serve == "int8":
                graph, scores = INT8, in_int8
    for name, path in written.items():
        place(path, job.out / name)
    manifest = {
        **_origin(job, data),
        "mlflow_run_id": tracker.run_id,
        "files": {name: facts(job.out / name) for name in written},
        "graph": graph,
        "int8": int8,
        "onnx_difference": difference,
        "signature": signature(len(data.fields.categorical), len(data.fields.numeric)),
        "metrics": {name: metrics.all_metrics(split.labels, scores[name]) for name, split in splits.items()},
        "curves": tracker.curves,
        "seconds": round(fitted.seconds, 3),
        "samples_per_second": round(fitted.samples_per_second),
    }
    write_atomically(job.out / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def _origin(job: Job, data: Dataset) -> dict[str, Any]:
    """What the result was made of."""
    record = data.record
    return {
        "format": 1,
        "model": record["model"],
        "family": job.family,
        "run": record["run"],
        "columns": record["columns"],
        "serving": dict(job.serving),
        "dataset": {"uri": str(job.dataset), "digest": job.dataset_digest},
        "windows": record["windows"],
        "seed": job.seed,
        "spec_digest": job.spec_digest,
        "job": job.identity,
        "git_commit": git_state()[0] or None,
    }


def _compared(job: Job, test: Split, fp32: Scores, int8: Scores) -> dict[str, Any]:
    """What quantization costs on the test windows, and whether that is little enough to offer its graph."""
    auc_loss = metrics.auc(test.labels, fp32) - metrics.auc(test.labels, int8)
    bound = job.training.max_auc_loss_int8
    return {"auc_loss": auc_loss, "max_auc_loss": bound, "offered": bool(auc_loss < bound)}


def signature(categorical: int, numeric: int) -> dict[str, Any]:
    """The graph's inputs and outputs in the words of the Open Inference Protocol."""
    return {
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, categorical]},
            {"name": "numbers", "datatype": "FP32", "shape": [-1, numeric]},
        ],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1]}],
    }


def git_state() -> tuple[str, str]:
    """The commit of this code, and the changed files that it lacks; both empty outside a repository.

    An image holds no repository and no git but a file that says from which commit it was built.
    """
    if (built := Path(__file__).parents[3] / "COMMIT").is_file():
        return built.read_text(encoding="utf-8").strip(), ""

    def said(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return said("rev-parse", "HEAD"), " ".join(said("diff", "--name-only", "HEAD").split())


def _scores(graph: Path, splits: Mapping[str, Split]) -> dict[str, Scores]:
    """What the graph says of each, `[n]`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def of(split: Split) -> Scores:
        parts = [
            session.run(["score"], {"ids": split.ids[part].astype(np.int64), "numbers": split.numbers[part]})[0]
            for part in (slice(i, i + ROWS) for i in range(0, len(split), ROWS))
        ]
        return np.concatenate(parts).astype(np.float64)

    return {name: of(split) for name, split in splits.items()}
