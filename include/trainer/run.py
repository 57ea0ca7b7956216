"""One job: nothing if its result is there, else train its family, publish the result and tell MLflow."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.domain.errors import Conflict
from include.trainer.data import dataset
from include.trainer.data.dataset import Dataset
from include.trainer.export import artifact
from include.trainer.export.trained_model import Fitted
from include.trainer.files import write_atomically
from include.trainer.job import Job
from include.trainer.process import Stop, Stopped, arithmetic_threads
from include.trainer.tracking.tracker import Silent, Tracker, send_left

LOCK = Path(__file__).parents[2] / "requirements.lock"


def run(job: Job, stop: Stop) -> None:
    """Raises UserMistake, Corrupt, NonFiniteLoss, or Stopped on SIGTERM."""
    if artifact.finished(job):
        print(f"{job.out / artifact.MANIFEST} is there already", flush=True)  # noqa: T201
        return
    data = dataset.load(job.dataset, job.dataset_digest)
    if job.family == "lightgbm":
        from include.trainer.trees import boosting

        with _alone(job) as draft, _tracked(job, data, Tracker(job.out, job.tracking)) as tracker:
            _publish(job, data, boosting.fit(job, data, tracker, draft), tracker)
        return
    from include.trainer import train
    from include.trainer.distributed import checkpoint, process_group
    from include.trainer.optim import precision

    with process_group.join(job.training) as here:
        settled = precision.settled(job, here)
        if not here.first:
            train.trained(settled, data, here, Silent(), stop)
            return
        with _alone(job) as draft, _tracked(settled, data, Tracker(job.out, job.tracking)) as tracker:
            fitted = train.fit(settled, data, here, tracker, stop, draft)
            if job.family == "blend":
                from include.trainer.export import blend
                from include.trainer.trees import boosting

                fitted = blend.of([fitted, boosting.fit(job, data, tracker, draft)], draft)
            _publish(job, data, fitted, tracker)
        checkpoint.forget(job.checkpoints)


@contextmanager
def _alone(job: Job) -> Iterator[Path]:
    """A folder for files that are not published yet, beside those that are.

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
def _tracked(job: Job, data: Dataset, tracker: Tracker) -> Iterator[Tracker]:
    status = "FAILED"
    try:
        _describe(job, data, tracker)
        yield tracker
        status = "FINISHED"
    except Stopped:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)
        if tracker.run_id:  # MLflow answers: it may take what other runs of the model could not send
            send_left(job.out.parents[1])


def _describe(job: Job, data: Dataset, tracker: Tracker) -> None:
    """All that `make reproduce` needs: code, lock, spec, tables and windows, the settled job, and how many threads it has."""
    record, lock = data.record, hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.is_file() else ""
    commit, changed = artifact.git_state()
    for note in record.get("notes", ()):
        tracker.say(note)
    tracker.params(job.params)
    for split, context in (("train", "training"), ("validate", "validation"), ("test", "testing")):
        windows, rows = record["windows"][split], len(getattr(data, split))
        name = f"{record['model']}.{record['table']}@{record['table_version']} {split}"
        tracker.dataset(name, f"{job.dataset_digest[:28]}{split}", str(job.dataset), context,
                        {"windows": f"{windows[0]} to {windows[-1]}", "count": len(windows), "rows": rows})  # fmt: skip
    tracker.tags({
        "run": record["run"], "family": job.family, "spec_digest": job.spec_digest, "lock_digest": lock,
        "dataset_digest": job.dataset_digest, "dataset_uri": str(job.dataset),
        "mlflow.source.git.commit": commit, "uncommitted": changed, "threads": str(arithmetic_threads(job.training)),
        "windows": " | ".join(f"{name} {w[0]} to {w[-1]}" for name, w in record["windows"].items()),
    })  # fmt: skip
    path = job.out / "record" / "job.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(job.to_dict(), indent=1).encode())
    tracker.files("record", [job.dataset, path])


def _publish(job: Job, data: Dataset, fitted: Fitted, tracker: Tracker) -> None:
    manifest = artifact.publish(job, data, fitted, tracker)
    last = int(max((curve[-1][0] for curve in tracker.curves.values()), default=0))
    for split, values in manifest["metrics"].items():
        tracker.metrics({f"{split}_{name}": value for name, value in values.items()}, last)
        tracker.say(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
    tracker.metrics({"seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}, last)
    tracker.tags({"artifact_uri": str(job.out / artifact.MANIFEST)})
    tracker.files("model", [job.out / name for name in (*(path.name for path in fitted.weights), artifact.MANIFEST)])
    tracker.say(f"wrote {job.out / artifact.MANIFEST}")
