"""Training: a spec and a dataset become a job for the trainer program, and its manifest the result."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.domain.events import TrainingFinished
from include.domain.windows import parse_utc
from include.ports.ledger import Ledger
from include.ports.training import Launcher
from include.spec.model_spec import Family, ModelSpec


def train(
    spec: ModelSpec, dataset: Reference, folder: Path, launcher: Launcher, *,
    family: Family | None = None, name: str | None = None, start: Reference | None = None,
    tracking_url: str | None = None, tags: Mapping[str, str] | None = None,
) -> Reference:  # fmt: skip
    """The manifest of a model of that family (the spec's own when left out), trained into `folder`/<name or family>/.

    `start` is the artifact whose weights it goes on from. A finished manifest for the same dataset and spec is returned
    at once. Raises UserMistake when the folder holds the result of another dataset or spec, Corrupt for a damaged one,
    and what the launcher raises.
    """
    family = family or spec.model.family
    begun = prepare(spec, dataset, folder, family, name=name, start=start, tracking_url=tracking_url, tags=tags)
    if begun:
        launcher.train(begun, spec.training.processes)
    return result(spec, dataset, folder / (name or family))


def prepare(
    spec: ModelSpec, dataset: Reference, folder: Path, family: Family, *, name: str | None = None,
    start: Reference | None = None, tracking_url: str | None = None, tags: Mapping[str, str] | None = None,
) -> Path | None:  # fmt: skip
    """The job file in `folder`/<name or family>/ for a launcher; None when its result is there already."""
    out = folder / (name or family)
    data = store.read(dataset)
    if finished(out, dataset, spec.digest):
        return None
    tracking = _tracking(spec, data["run"], family, tracking_url, tags or {})
    store.write(out / "job.json", job(spec, dataset, family, out, tracking, start))
    return out / "job.json"


def result(spec: ModelSpec, dataset: Reference, out: Path) -> Reference:
    """The finished manifest there. Raises Corrupt when there is none."""
    found = finished(out, dataset, spec.digest)
    if found is None:
        raise Corrupt(f"{out}: the trainer ended well but wrote no manifest.json; see its log")
    return found


def account(spec: ModelSpec, results: Iterable[Reference], as_of: str, run: str, ledger: Ledger) -> None:
    """Note the trainings' hours, times their processes, once a run, for the watch's monthly budget."""
    if all(event.run != run for event in ledger.read(spec.name, TrainingFinished)):
        seconds = sum(store.read(each)["seconds"] for each in results)
        hours = seconds / 3600 * spec.training.processes
        ledger.append(spec.name, TrainingFinished(run=run, as_of=parse_utc(as_of), hours=hours))


def finished(out: Path, dataset: Reference, spec_digest: str) -> Reference | None:
    """The manifest in that folder, checked with every file it names; None when there is none yet."""
    path = out / "manifest.json"
    if not path.exists():
        return None
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest["dataset"]["digest"] != dataset.digest or manifest["spec_digest"] != spec_digest:
        raise UserMistake(
            f"{out}: holds a model of another dataset or spec; start a new run instead of clearing this one"
        )
    store.check_files(path, manifest["files"])
    return store.reference(path)


def job(
    spec: ModelSpec, dataset: Reference, family: str, out: Path, tracking: dict[str, Any] | None,
    start: Reference | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the trainer program reads."""
    return {
        "dataset": {"uri": dataset.uri, "digest": dataset.digest},
        "family": family,
        "model": spec.model.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "serving": spec.serving.model_dump(mode="json"),
        "seed": spec.training.seed,
        "spec_digest": spec.digest,
        "out": str(out),
        "tracking": tracking,
        "start": {"uri": start.uri, "digest": start.digest} if start else None,
    }


def _tracking(
    spec: ModelSpec, run: str, family: str, url: str | None, tags: Mapping[str, str]
) -> dict[str, Any] | None:  # fmt: skip
    if url is None:
        return None
    own = {"run": run, "family": family, "spec_digest": spec.digest, **tags}
    return {"uri": url, "experiment": spec.name, "run_name": f"{run} {family}", "tags": own}
