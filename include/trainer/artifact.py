"""The result: weights, ONNX graph, encoding, examples, and a manifest of their digests that is written last."""

import json
import shutil
import subprocess
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from include.domain import metrics
from include.domain.errors import Corrupt
from include.trainer.dataset import Dataset, Split
from include.trainer.files import facts, write_atomically
from include.trainer.fitted import Fitted
from include.trainer.job import Job

MANIFEST = "manifest.json"
TOLERANCE = 1e-5
ROWS = 8192


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


def publish(job: Job, data: Dataset, fitted: Fitted, run_id: str | None) -> dict[str, Any]:
    """Check the graph, measure it, write all files and last the manifest, which is returned.

    Raises Corrupt when a score of the test windows differs from the trained model's by more than 1e-5.
    """
    scores = {name: _run(fitted.onnx, split) for name, split in (("validate", data.validate), ("test", data.test))}
    difference = float(np.abs(scores["test"] - fitted.score(data.test.ids, data.test.numbers)).max())
    if not difference <= TOLERANCE:
        raise Corrupt(f"the ONNX graph of the {job.family} model is off by {difference:.2g} on the test windows")
    job.out.mkdir(parents=True, exist_ok=True)
    (job.out / fitted.weights_file).write_bytes(fitted.weights)
    (job.out / "model.onnx").write_bytes(fitted.onnx)
    for name in ("encoding.json", "examples.json"):
        shutil.copyfile(data.folder / name, job.out / name)
    names = (fitted.weights_file, "model.onnx", "encoding.json", "examples.json")
    record = data.record
    manifest = {
        "format": 1,
        "model": record["model"],
        "family": job.family,
        "run": record["run"],
        "mlflow_run_id": run_id,
        "files": {name: facts(job.out / name) for name in names},
        "signature": signature(len(data.encoding.categorical), len(data.encoding.numeric)),
        "columns": record["columns"],
        "metrics": {
            "validate": metrics.summary(data.validate.labels, scores["validate"]),
            "test": metrics.summary(data.test.labels, scores["test"]),
        },
        "dataset": {"uri": str(job.dataset), "digest": job.dataset_digest},
        "windows": record["windows"],
        "seed": job.seed,
        "spec_digest": job.spec_digest,
        "job": job.identity,
        "git_commit": git_commit(),
        "seconds": round(fitted.seconds, 3),
        "samples_per_second": round(fitted.samples_per_second),
    }
    write_atomically(job.out / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def signature(categorical: int, numeric: int) -> dict[str, Any]:
    """The graph's inputs and outputs in the words of the Open Inference Protocol."""
    return {
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, categorical]},
            {"name": "numbers", "datatype": "FP32", "shape": [-1, numeric]},
        ],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1]}],
    }


def git_commit() -> str | None:
    """The commit of the working folder; None outside a repository."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def _run(graph: bytes, split: Split) -> NDArray[np.float64]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run(["score"], {"ids": split.ids[part].astype(np.int64), "numbers": split.numbers[part]})[0]
        for part in (slice(i, i + ROWS) for i in range(0, len(split), ROWS))
    ]
    return np.concatenate(parts).astype(np.float64)
