"""Training: a spec and a dataset become a job for the trainer program, and the manifest that it writes is the result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.domain.events import TrainingFinished
from include.domain.training.families import FamilyName
from include.domain.windows import parse_utc
from include.ports.ledger import Ledger
from include.ports.training import Launcher
from include.spec.model_spec import ModelSpec


@dataclass(frozen=True)
class TrainingRun:
    """What the trainings of one run share.

    `folder` is the run's own; each training gets a folder below it. `start` is the artifact whose weights a training goes on
    from. `tracking_url` is the MLflow server's, None where nothing is tracked; `tags` go to the tracking runs.
    """

    dataset: Reference
    folder: Path
    start: Reference | None = None
    tracking_url: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def train(
    spec: ModelSpec, run: TrainingRun, launcher: Launcher, *, family: FamilyName | None = None, name: str | None = None
) -> Reference:
    """Train a model of that family (the spec's own when left out) and return the reference to its manifest.

    The result lies in the run's folder under `name`, or under the family's. A finished manifest of the same dataset and spec
    is returned at once. Raises UserMistake when the folder holds the result of another dataset or spec, Corrupt for a damaged
    one, and what the launcher raises.
    """
    family = family or spec.model.family
    job_file = prepare(spec, run, family, name=name)
    if job_file:
        launcher.train(job_file, spec.training.processes)
    return result(spec, run.dataset, run.folder / (name or family))


def prepare(spec: ModelSpec, run: TrainingRun, family: FamilyName, *, name: str | None = None) -> Path | None:
    """Write the job file for a launcher and return its path; None when the result is there already."""
    out = run.folder / (name or family)
    dataset = store.read(run.dataset, DatasetManifest)
    if finished(out, run.dataset, spec.digest):
        return None
    tracking = _tracking(spec, dataset.run, family, run) if run.tracking_url else None
    store.write(out / "job.json", job(spec, run.dataset, family, out, tracking, run.start))
    return out / "job.json"


def result(spec: ModelSpec, dataset: Reference, out: Path) -> Reference:
    """Return the reference to the finished manifest in the folder `out`. Raises Corrupt when there is none."""
    manifest = finished(out, dataset, spec.digest)
    if manifest is None:
        raise Corrupt(f"{out}: the trainer ended well but wrote no manifest.json; see its log")
    return manifest


def record_hours(spec: ModelSpec, results: Iterable[Reference], as_of: str, run: str, ledger: Ledger) -> None:
    """Record the hours of the run's trainings, times their processes, once a run, for the watch's monthly budget."""
    if all(event.run != run for event in ledger.read(spec.name, TrainingFinished)):
        seconds = sum(store.read(manifest, ModelManifest).seconds for manifest in results)
        hours = seconds / 3600 * spec.training.processes
        ledger.append(spec.name, TrainingFinished(run=run, as_of=parse_utc(as_of), hours=hours))


def finished(out: Path, dataset: Reference, spec_digest: str) -> Reference | None:
    """Return the reference to the manifest in the folder `out`, checked with every file it lists; None when there is none.

    Raises UserMistake when it is of another dataset or spec, Corrupt when a file differs.
    """
    path = out / "manifest.json"
    if not path.exists():
        return None
    manifest = store.load(path, ModelManifest)
    if manifest.dataset.digest != dataset.digest or manifest.spec_digest != spec_digest:
        raise UserMistake(
            f"{out}: holds a model of another dataset or spec; start a new run instead of clearing this one"
        )
    store.check_files(path, manifest.files)
    return store.reference_to(path)


def job(
    spec: ModelSpec,
    dataset: Reference,
    family: FamilyName,
    out: Path,
    tracking: Mapping[str, Any] | None = None,
    start: Reference | None = None,
) -> dict[str, Any]:
    """Return the content of the job file that the trainer program reads."""
    return {
        "dataset": {"uri": dataset.uri, "digest": dataset.digest},
        "family": family,
        **spec.model_dump(mode="json", include={"model", "training", "serving"}),
        "seed": spec.training.seed,
        "spec_digest": spec.digest,
        "out": str(out),
        "tracking": tracking,
        "start": {"uri": start.uri, "digest": start.digest} if start else None,
    }


def _tracking(spec: ModelSpec, run_name: str, family: FamilyName, run: TrainingRun) -> dict[str, Any]:
    """Return where the trainer logs to: the MLflow server, the experiment, and the name and tags of its run there."""
    tags = {"run": run_name, "family": family, "spec_digest": spec.digest, **run.tags}
    return {"uri": run.tracking_url, "experiment": spec.name, "run_name": f"{run_name} {family}", "tags": tags}
