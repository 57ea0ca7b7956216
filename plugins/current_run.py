"""The run that a task belongs to: its name, its folder, its windows, and what started it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from airflow.sdk import get_current_context

from include.domain.errors import UserMistake
from include.domain.windows import Window, parse_utc
from include.spec.loading import find
from include.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from include.artifacts.store import Reference
    from include.stages.training.training import TrainingRun
    from include.wiring import Parts

#: Where the pages of plugins/pages.py are.
PAGES = "/perennial"
#: A reference to a stored artifact as XCom carries it: `uri` and `digest`.
XComReference = dict[str, str]
Value = TypeVar("Value")
#: What another task returned: an XComArg while Airflow reads the DAG file, its value when the task runs.
TaskOutput: TypeAlias = Value | Any


@dataclass(frozen=True)
class TrainingRequest:
    """Why a training runs, which request of the watch it answers, and until when its data reaches (ISO 8601)."""

    cause: str
    request: str | None
    as_of: str


def open_model(model: str) -> tuple[ModelSpec, "Parts"]:
    """Return the model's spec and the parts that the environment names. Raises UserMistake without a valid spec."""
    from include import wiring

    parts = wiring.parts()
    return find(model, parts.settings.models), parts


def folder_name(run_id: str) -> str:
    """Return a run's id as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id)


def run_name() -> str:
    """Return the name of this run's folder."""
    return folder_name(str(get_current_context()["run_id"]))


@contextmanager
def synced_run_folder(spec: ModelSpec, parts: "Parts") -> Iterator[Path]:
    """Bring the run's folder from storage, and store what the task has put into it, also when the task fails."""
    folder, storage = parts.run_folder(spec, run_name()), parts.storage()
    storage.pull(folder)
    try:
        yield folder
    finally:
        storage.push(folder)


def warm_start_artifact(spec: ModelSpec, parts: "Parts") -> "Reference | None":
    """Return the champion's artifact, on this disk, where the spec wants a warm start and there is a champion."""
    champion = parts.registry().version_by_alias(spec.name, "champion") if spec.training.warm_start else None
    if champion:
        parts.storage().pull(Path(champion.artifact.uri).parent)
    return champion.artifact if champion else None


def training_request() -> TrainingRequest:
    """Return what the first task of this training run returned."""
    return TrainingRequest(**get_current_context()["ti"].xcom_pull(task_ids="validate"))


def training_run(
    spec: ModelSpec,
    parts: "Parts",
    dataset: XComReference,
    *,
    warm_start: bool = False,
    tags: Mapping[str, str] | None = None,
) -> "TrainingRun":
    """Return what this run's trainings share; with `warm_start` they go on from the champion where the spec says so."""
    from include.artifacts.store import Reference
    from include.stages.training.training import TrainingRun

    return TrainingRun(
        Reference(**dataset),
        parts.run_folder(spec, run_name()),
        start=warm_start_artifact(spec, parts) if warm_start else None,
        tracking_url=parts.settings.mlflow_url,
        tags={"cause": training_request().cause, **(tags or {})},
    )


def windows_of_run(spec: ModelSpec) -> list[Window]:
    """Return the windows of this run: those of the range in its parameters, or else of its own data interval.

    Raises UserMistake for half a range, and for a run that has neither.
    """
    context = get_current_context()
    start, end = (context["params"].get(name) for name in ("start", "end"))
    if bool(start) != bool(end):
        raise UserMistake("give both start and end, or neither")
    if start and end:
        return list(Window(parse_utc(start), parse_utc(end)).split(spec.window))
    since, until = context.get("data_interval_start"), context.get("data_interval_end")
    if since is None or until is None or since >= until:
        raise UserMistake("this run has no window of its own: trigger it with start and end, or backfill the range")
    return list(Window(parse_utc(since.isoformat()), parse_utc(until.isoformat())).split(spec.window))


def event_extra() -> dict[str, Any]:
    """Return the extra of the newest asset event that started this run; empty when none did."""
    events = get_current_context()["triggering_asset_events"]
    newest = [event for name in events for event in events[name]]
    return dict(newest[-1].extra) if newest else {}
