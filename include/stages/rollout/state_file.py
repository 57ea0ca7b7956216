"""The files of rollouts: each model's state, replaced whole, from which any process can go on after a kill.

Beside it lies the last action that a person left for the running rollout. The keys in both files are those of earlier
releases, so that a rollout goes on across an upgrade.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.domain.errors import UserMistake
from include.domain.rollout.actions import PendingAction, RolloutAction
from include.domain.rollout.variants import RequestCounts
from include.stages.rollout.request_metrics import RequestMetrics
from include.stages.rollout.state import Phase, RolloutState

Json = dict[str, Any]


def load(folder: Path, model: str) -> RolloutState | None:
    """Return the state of the model's newest rollout; None when it never had one."""
    path = folder / f"{model}.json"
    return _from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def save(folder: Path, state: RolloutState) -> None:
    """Replace the model's state."""
    store.write(folder / f"{state.model}.json", _to_json(state))


@contextmanager
def locked(folder: Path, model: str) -> Iterator[None]:
    """Keep every other process of this machine from changing the model's rollout meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{model}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def leave_action(folder: Path, model: str, action: RolloutAction, by: str, at: datetime) -> None:
    """Leave an action for the running rollout, whose next analysis carries it out.

    Raises UserMistake when no step of a rollout is running.
    """
    state = load(folder, model)
    if state is None or state.phase is not Phase.RUNNING:
        raise UserMistake(f"{model}: no step of a rollout is running, so there is nothing to {action}")
    content = {"run": state.run, "word": action, "by": by, "at": at.isoformat()}
    store.write(folder / f"{model}.word.json", content)


def latest_action(folder: Path, state: RolloutState) -> PendingAction | None:
    """Return the last action that was left for this rollout; one that was left for an earlier one does not count."""
    path = folder / f"{state.model}.word.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return PendingAction(RolloutAction(content["word"]), content["by"]) if content["run"] == state.run else None


def _to_json(state: RolloutState) -> Json:
    return {
        "model": state.model,
        "version": state.version,
        "champion": state.champion,
        "run": state.run,
        "began": state.began_at.isoformat(),
        "phase": state.phase,
        "step": state.step,
        "entered": [at and at.isoformat() for at in state.entered_at],
        "looks": state.analyses,
        "seen": None if state.last_counts is None else _counts_to_json(state.last_counts),
        "sums": [_counts_to_json(by_slot) for by_slot in state.step_counts],
        "noted": state.recorded_requests,
        "values": [{slot: asdict(metrics) for slot, metrics in by_slot.items()} for by_slot in state.step_metrics],
        "read_at": state.metrics_read_at and state.metrics_read_at.isoformat(),
        "reason": state.reason,
    }


def _from_json(data: Json) -> RolloutState:
    metrics = ({slot: RequestMetrics.from_dict(v) for slot, v in by_slot.items()} for by_slot in data["values"])
    return RolloutState(
        model=data["model"],
        version=data["version"],
        champion=data["champion"],
        run=data["run"],
        began_at=datetime.fromisoformat(data["began"]),
        phase=Phase(data["phase"]),
        step=data["step"],
        entered_at=tuple(_time(text) for text in data["entered"]),
        analyses=data["looks"],
        last_counts=None if data["seen"] is None else _counts_from_json(data["seen"]),
        step_counts=tuple(_counts_from_json(by_slot) for by_slot in data["sums"]),
        recorded_requests=data["noted"],
        step_metrics=tuple(metrics),
        metrics_read_at=_time(data["read_at"]),
        reason=data["reason"],
    )


def _counts_to_json(by_slot: Mapping[str, RequestCounts]) -> Json:
    return {slot: counts._asdict() for slot, counts in by_slot.items()}


def _counts_from_json(by_slot: Mapping[str, Mapping[str, int]]) -> dict[str, RequestCounts]:
    return {slot: RequestCounts(**counts) for slot, counts in by_slot.items()}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
