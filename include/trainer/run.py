"""One job: nothing if its result is there, else train its family, publish the result and tell MLflow."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from include.trainer import artifact, dataset
from include.trainer.dataset import Dataset
from include.trainer.fitted import Fitted
from include.trainer.job import Job
from include.trainer.signals import Stop, Stopped
from include.trainer.tracking import Silent, Tracker

LOCK = Path(__file__).parents[2] / "requirements.lock"


def run(job: Job, stop: Stop) -> None:
    """Raises UserMistake, Corrupt, NonFiniteLoss, or Stopped on SIGTERM."""
    if artifact.finished(job):
        print(f"{job.out / artifact.MANIFEST} is there already", flush=True)  # noqa: T201
        return
    data = dataset.load(job.dataset, job.dataset_digest)
    if job.family == "lightgbm":
        from include.trainer import trees

        _tracked(job, data, Tracker(job.out, job.tracking), lambda tracker: trees.fit(job, data, tracker))
        return
    from include.trainer import checkpoint, train, world

    with world.join() as here:
        tracker = Tracker(job.out, job.tracking) if here.first else Silent()
        _tracked(job, data, tracker, lambda tracker: train.fit(job, data, here, tracker, stop))
        if here.first:
            checkpoint.forget(job.checkpoints)


def _tracked(job: Job, data: Dataset, tracker: Tracker, fit: Callable[[Tracker], Fitted | None]) -> None:
    status = "FAILED"
    try:
        _describe(job, data, tracker)
        fitted = fit(tracker)
        if fitted is not None:
            _publish(job, data, fitted, tracker)
        status = "FINISHED"
    except Stopped:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


def _describe(job: Job, data: Dataset, tracker: Tracker) -> None:
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.is_file() else ""
    tracker.params(job.params)
    tracker.dataset(f"{data.record['table']}@{data.record['table_version']}", job.dataset_digest, str(job.dataset))
    tracker.tags({
        "run": data.record["run"], "family": job.family, "spec_digest": job.spec_digest, "lock_digest": lock,
        "dataset_digest": job.dataset_digest, "dataset_uri": str(job.dataset), "mlflow.source.git.commit": artifact.git_commit() or "",
        "windows": " | ".join(f"{name} {w[0]} to {w[-1]}" for name, w in data.record["windows"].items()),
    })  # fmt: skip


def _publish(job: Job, data: Dataset, fitted: Fitted, tracker: Tracker) -> None:
    manifest = artifact.publish(job, data, fitted, tracker.run_id)
    for split, values in manifest["metrics"].items():
        tracker.metrics({f"{split}_{name}": value for name, value in values.items()}, step=0)
        tracker.say(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
    tracker.metrics({"seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}, step=0)
    tracker.tags({"artifact_uri": str(job.out / artifact.MANIFEST)})
    tracker.say(f"wrote {job.out / artifact.MANIFEST}")
