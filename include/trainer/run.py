"""One job: nothing if its result is there, else train its family, publish the result and tell MLflow."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Conflict
from include.domain.training.families import FAMILIES
from include.trainer.data import dataset
from include.trainer.data.dataset import Dataset
from include.trainer.export import artifact
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.process import StopSignal, TrainingStopped, arithmetic_threads
from include.trainer.tracking.tracker import SilentTracker, Tracker, send_waiting

LOCK_FILE = Path(__file__).parents[2] / "requirements.lock"


def run(job: Job, stop: StopSignal) -> None:
    """Train the job's model and publish it. Raises UserMistake, Corrupt, NonFiniteLoss, or TrainingStopped on SIGTERM."""
    if artifact.is_complete(job):
        print(f"{job.out / artifact.MANIFEST} is there already", flush=True)  # noqa: T201
        return
    data = dataset.load(job.dataset, job.dataset_digest)
    if FAMILIES[job.family].network:
        _run_network(job, data, stop)
    else:
        _run_trees(job, data)


def _run_trees(job: Job, data: Dataset) -> None:
    """Fit a family of trees alone, without the libraries of a network."""
    from include.trainer.trees import boosting

    with _exclusive(job) as folder, _tracked(job, data) as tracker:
        _publish(job, data, boosting.fit(job, data, tracker, folder), tracker)


def _run_network(job: Job, data: Dataset, stop: StopSignal) -> None:
    """Fit a family's network by all processes, and in the main one its trees where it has them, and publish the result."""
    from include.trainer import train
    from include.trainer.distributed import checkpoint, process_group
    from include.trainer.optim.precision import resolve_precision

    with process_group.join(job.training) as group:
        resolved = resolve_precision(job, group)
        if not group.is_main:
            train.train(resolved, data, group, SilentTracker(), stop)
            return
        with _exclusive(job) as folder, _tracked(resolved, data) as tracker:
            model = train.fit(resolved, data, group, tracker, stop, folder)
            if FAMILIES[job.family].trees:
                from include.trainer.export.blend import blend
                from include.trainer.trees import boosting

                model = blend([model, boosting.fit(job, data, tracker, folder)], folder)
            _publish(job, data, model, tracker)
        checkpoint.remove(job.checkpoints)


@contextmanager
def _exclusive(job: Job) -> Iterator[Path]:
    """Yield a folder for files that are not published yet, beside those that are.

    Raises Conflict while another trainer works on the same result, as one may whose launcher died.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    with (job.out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{job.out}: another trainer is at work on this job; wait for it or stop it") from None
        draft = job.out / "draft"
        draft.mkdir(exist_ok=True)
        try:
            yield draft
        finally:
            shutil.rmtree(draft)


@contextmanager
def _tracked(job: Job, data: Dataset) -> Iterator[Tracker]:
    """Yield the job's MLflow run, which ends as finished, killed or failed with the context."""
    tracker, status = Tracker(job.out, job.tracking), "FAILED"
    try:
        _log_job(job, data, tracker)
        yield tracker
        status = "FINISHED"
    except TrainingStopped:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)
        if tracker.run_id:  # MLflow answers: it may take what other runs of the model could not send
            send_waiting(job.out.parents[1])


def _log_job(job: Job, data: Dataset, tracker: Tracker) -> None:
    """Log all that `make reproduce` needs: code, lock, spec, tables and windows, the job, and how many threads it has."""
    manifest, lock = data.manifest, hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest() if LOCK_FILE.is_file() else ""
    commit, changed_files = artifact.git_state()
    for note in manifest.notes:
        tracker.log(note)
    tracker.log_params(job.params)
    _log_inputs(job, data, tracker)
    tracker.set_tags(
        {
            "run": manifest.run,
            "family": job.family,
            "spec_digest": job.spec_digest,
            "lock_digest": lock,
            "dataset_digest": job.dataset_digest,
            "dataset_uri": str(job.dataset),
            "mlflow.source.git.commit": commit,
            "uncommitted": changed_files,
            "threads": str(arithmetic_threads(job.training)),
            "windows": " | ".join(f"{name} {w[0]} to {w[-1]}" for name, w in manifest.windows.items()),
        }
    )
    path = job.out / "record" / "job.json"
    write_atomically(path, json.dumps(job.to_dict(), indent=1))
    tracker.log_artifacts("record", [job.dataset, path])


def _log_inputs(job: Job, data: Dataset, tracker: Tracker) -> None:
    """Log the windows and rows of each split as an input of the run."""
    manifest = data.manifest
    table = f"{manifest.model}.{manifest.table}@{manifest.table_version}"
    contexts = {
        "train": ("training", data.train),
        "validate": ("validation", data.validate),
        "test": ("testing", data.test),
    }
    for split, windows in manifest.windows.items():
        context, rows = contexts[split]
        profile = {"windows": f"{windows[0]} to {windows[-1]}", "count": len(windows), "rows": len(rows)}
        digest = f"{job.dataset_digest[:28]}{split}"
        tracker.log_input(f"{table} {split}", digest, str(job.dataset), context, profile)


def _publish(job: Job, data: Dataset, model: TrainedModel, tracker: Tracker) -> None:
    """Publish the artifact and log its metrics and files."""
    manifest = artifact.publish(job, data, model, tracker)
    last_step = max((curve[-1][0] for curve in tracker.curves.values()), default=0)
    for split, values in asdict(manifest.metrics).items():
        tracker.log_metrics({f"{split}_{name}": value for name, value in values.items()}, last_step)
        tracker.log(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
    tracker.log_metrics({"seconds": model.seconds, "samples_per_second": model.samples_per_second}, last_step)
    path = job.out / artifact.MANIFEST
    tracker.set_tags({"artifact_uri": str(path)})
    tracker.log_artifacts("model", [*(job.out / weights.name for weights in model.weights), path])
    tracker.log(f"wrote {path}")
