"""What a task asks of the run it belongs to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

from include.domain.errors import UserMistake
from include.domain.windows import Window, parse_utc
from include.spec.loading import find
from include.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from include.artifacts.store import Reference
    from include.wiring import Parts

#: Where the pages of plugins/pages.py are.
PAGES = "/perennial"
#: A stored thing as XCom carries it: `uri` and `digest`.
Ref = dict[str, str]


def open_model(model: str) -> tuple[ModelSpec, "Parts"]:
    from include import wiring

    parts = wiring.parts()
    return find(model, parts.settings.models), parts


def folder_name(run_id: str) -> str:
    """A run's id as a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id)


def run_name() -> str:
    """This run's."""
    return folder_name(str(get_current_context()["run_id"]))


@contextmanager
def kept_folder(spec: ModelSpec, parts: "Parts") -> Iterator[Path]:
    """The run's folder, as storage has it; what the task leaves in it is kept there, also when the task fails."""
    folder, storage = parts.run_folder(spec, run_name()), parts.storage()
    storage.pull(folder)
    try:
        yield folder
    finally:
        storage.push(folder)


def start_of(spec: ModelSpec, parts: "Parts") -> "Reference | None":
    """What the challenger goes on from: the champion where the spec wants that and there is one."""
    champion = parts.registry().alias(spec.name, "champion") if spec.training.warm_start else None
    if champion:
        parts.storage().pull(Path(champion.artifact.uri).parent)
    return champion.artifact if champion else None


def checked() -> dict[str, str]:
    """Return what the first task of a training run found: `cause`, `request` and `as_of`."""
    return dict(get_current_context()["ti"].xcom_pull(task_ids="validate"))


def windows_of_run(spec: ModelSpec) -> list[Window]:
    """The windows of this run: the range asked for, or the run's own data interval."""
    context = get_current_context()
    start, end = (context["params"].get(name) for name in ("start", "end"))
    if bool(start) != bool(end):
        raise UserMistake("give both start and end, or neither")
    if start and end:
        span = Window(parse_utc(start), parse_utc(end))
    elif context.get("data_interval_start") and context["data_interval_start"] < context["data_interval_end"]:
        span = Window(
            parse_utc(context["data_interval_start"].isoformat()), parse_utc(context["data_interval_end"].isoformat())
        )
    else:
        raise UserMistake("this run has no window of its own: trigger it with start and end, or backfill the range")
    return list(span.split(spec.window))


def event_extra() -> dict[str, Any]:
    """The extra of the newest asset event that started this run; empty when none did."""
    events = get_current_context()["triggering_asset_events"]
    newest = [event for name in events for event in events[name]]
    return dict(newest[-1].extra) if newest else {}
