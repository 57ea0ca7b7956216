"""The result: weights, ONNX graphs, encoding, examples, and a manifest of their digests that is written last.

The manifest's `graph` names the one to serve.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts, move_into_place
from include.artifacts.model_manifest import (
    GRAPH,
    ModelManifest,
    QuantizationLoss,
    ScoreMetrics,
    Signature,
    SplitMetrics,
    Tensor,
)
from include.artifacts.store import Reference
from include.domain import metrics
from include.domain.errors import Corrupt
from include.trainer.data.dataset import Dataset, Split
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.tracking.tracker import Tracker

MANIFEST, INT8_GRAPH = "manifest.json", "model.int8.onnx"
MAX_SCORE_DIFFERENCE = 1e-5
BATCH_ROWS = 8192


@dataclass(frozen=True)
class Scores:
    """Probabilities `[n]` of each split's rows."""

    validate: NDArray[np.float64]
    test: NDArray[np.float64]


@dataclass(frozen=True)
class QuantizedGraph:
    """The int8 graph, its scores, and what it costs on the test windows."""

    path: Path
    scores: Scores
    loss: QuantizationLoss


def is_complete(job: Job) -> bool:
    """Return whether the job's result is there already and every file of it is what its manifest says."""
    path = job.out / MANIFEST
    if not path.is_file():
        return False
    try:
        manifest = store.load(path, ModelManifest)
        same_job = manifest.dataset.digest == job.dataset_digest and manifest.job == job.identity
        return same_job and all(file_facts(job.out / name) == facts for name, facts in manifest.files.items())
    except (OSError, Corrupt):
        return False


def publish(job: Job, data: Dataset, model: TrainedModel, tracker: Tracker) -> ModelManifest:
    """Check the graph, measure it, put all files in place and last the manifest, which is returned.

    Raises Corrupt when a score of the test windows differs from the trained model's by more than 1e-5.
    """
    scores = _score(model.graph, data)
    difference = float(np.abs(scores.test - model.test_scores).max())
    if not difference <= MAX_SCORE_DIFFERENCE:
        raise Corrupt(f"the ONNX graph of the {job.family} model is off by {difference:.2g} on the test windows")
    quantized = _quantize(job, data, model.graph, scores)
    files = {path.name: path for path in model.weights} | {GRAPH: model.graph}
    for name in ("encoding.json", "examples.json"):
        files[name] = Path(shutil.copy(data.folder / name, model.graph.parent))
    served = GRAPH
    if quantized and quantized.loss.offered:
        files[INT8_GRAPH] = quantized.path
        if job.model.serve == "int8":
            served, scores = INT8_GRAPH, quantized.scores
    for name, path in files.items():
        move_into_place(path, job.out / name)
    manifest = ModelManifest(
        model=data.manifest.model,
        family=job.family,
        run=data.manifest.run,
        columns=data.manifest.columns,
        serving=job.serving,
        dataset=Reference(str(job.dataset), job.dataset_digest),
        windows=data.manifest.windows,
        seed=job.seed,
        spec_digest=job.spec_digest,
        job=job.identity,
        git_commit=git_state()[0] or None,
        mlflow_run_id=tracker.run_id,
        files={name: file_facts(job.out / name) for name in files},
        graph=served,
        int8=quantized.loss if quantized else None,
        onnx_difference=difference,
        signature=signature(len(data.fields.categorical), len(data.fields.numeric)),
        metrics=SplitMetrics(_metrics(data.validate, scores.validate), _metrics(data.test, scores.test)),
        curves={name: tuple(points) for name, points in tracker.curves.items()},
        seconds=round(model.seconds, 3),
        samples_per_second=round(model.samples_per_second),
    )
    store.write(job.out / MANIFEST, manifest)
    return manifest


def signature(categorical: int, numeric: int) -> Signature:
    """Return the inputs and outputs of a graph with so many categorical fields and numbers."""
    ids, numbers = Tensor("ids", "INT64", (-1, categorical)), Tensor("numbers", "FP32", (-1, numeric))
    return Signature((ids, numbers), (Tensor("score", "FP32", (-1,)),))


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


def _quantize(job: Job, data: Dataset, graph: Path, fp32: Scores) -> QuantizedGraph | None:
    """Return the int8 graph, which lies beside the other; None where there is no product to gain by."""
    from include.trainer.export.quantization import quantize  # its libraries are no use before

    path = graph.with_name(INT8_GRAPH)
    if not quantize(graph, path):
        return None
    int8, labels, bound = _score(path, data), data.test.labels, job.training.max_auc_loss_int8
    auc_loss = metrics.auc(labels, fp32.test) - metrics.auc(labels, int8.test)
    return QuantizedGraph(path, int8, QuantizationLoss(auc_loss, bound, offered=bool(auc_loss < bound)))


def _metrics(split: Split, scores: NDArray[np.float64]) -> ScoreMetrics:
    return ScoreMetrics(**metrics.all_metrics(split.labels, scores))


def _score(graph: Path, data: Dataset) -> Scores:
    """Return the graph's scores of the validate and the test windows."""
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

    return Scores(score(data.validate), score(data.test))
