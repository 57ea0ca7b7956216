"""Where a rollout stands: one small file a model, replaced whole, from which any process can go on after a kill."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.domain.errors import UserMistake
from include.domain.rollout.actions import Word
from include.ports.traffic import ArmCounts
from include.stages.rollout.request_metrics import Values


class Phase(StrEnum):
    RUNNING = "running"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


ACTIVE = (Phase.RUNNING, Phase.PROMOTING)
NONE = ArmCounts(0, 0, 0)


@dataclass(frozen=True)
class State:
    """`step` counts from 0, the shadow; -1 is before it.

    `entered[i]` is when step i was. `seen[slot]` are the gateway's counters at the last look, None before the step's
    first one; `sums[i][slot]` is the traffic of step i since its first look; `noted` is how many requests the step had at
    its last row of evidence. `values[i][slot]` are what step i's requests said, as read at `read_at`.
    """

    model: str
    version: str
    champion: str | None
    run: str
    began: datetime
    phase: Phase = Phase.RUNNING
    step: int = -1
    entered: tuple[datetime | None, ...] = ()
    looks: int = 0
    seen: Mapping[str, ArmCounts] | None = None
    sums: tuple[Mapping[str, ArmCounts], ...] = ()
    noted: int = 0
    values: tuple[Mapping[str, Values], ...] = ()
    read_at: datetime | None = None
    reason: str = ""

    @property
    def active(self) -> bool:
        return self.phase in ACTIVE

    @property
    def step_began(self) -> datetime | None:
        return self.entered[self.step] if self.step >= 0 else None

    @property
    def traffic(self) -> Mapping[str, ArmCounts]:
        """Of the present step."""
        return self.sums[self.step] if len(self.sums) > self.step >= 0 else {}

    @property
    def requests(self) -> int:
        """Of the present step, to both slots."""
        return sum(arm.requests for arm in self.traffic.values())

    @property
    def first_release(self) -> bool:
        return self.champion is None


def load(folder: Path, model: str) -> State | None:
    """None when the model never had a rollout."""
    path = folder / f"{model}.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return State(**{
        **data,
        "began": datetime.fromisoformat(data["began"]),
        "entered": tuple(map(_time, data["entered"])),
        "read_at": _time(data["read_at"]),
        "values": tuple({slot: Values.from_dict(v) for slot, v in arms.items()} for arms in data["values"]),
        "phase": Phase(data["phase"]),
        "seen": None if data["seen"] is None else _arms(data["seen"]),
        "sums": tuple(map(_arms, data["sums"])),
    })  # fmt: skip


def save(folder: Path, state: State) -> None:
    data: dict[str, Any] = asdict(state)
    data["began"] = state.began.isoformat()
    data["entered"] = [at and at.isoformat() for at in state.entered]
    data["read_at"] = state.read_at and state.read_at.isoformat()
    store.write(folder / f"{state.model}.json", data)


@contextmanager
def locked(folder: Path, model: str) -> Iterator[None]:
    """Nobody else on this machine changes the model's rollout meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{model}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(folder: Path, model: str, word: Word, by: str, at: datetime) -> None:
    """Leave a word for the running rollout; its next look obeys. Raises UserMistake when no step of one runs."""
    state = load(folder, model)
    if state is None or state.phase is not Phase.RUNNING:
        raise UserMistake(f"{model}: no step of a rollout is running, so there is nothing to {word}")
    store.write(folder / f"{model}.word.json", {"run": state.run, "word": word, "by": by, "at": at.isoformat()})


def heard(folder: Path, state: State) -> tuple[Word, str] | None:
    """The last word said to this rollout, and who said it."""
    path = folder / f"{state.model}.word.json"
    if not path.exists():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    return (Word(said["word"]), said["by"]) if said["run"] == state.run else None


def enter(state: State, step: int, now: datetime) -> State:
    """At the start of a step, with the traffic of the steps before it."""
    gap = step - len(state.sums)
    sums, entered = (*state.sums[:step], *[{}] * gap), (*state.entered[:step], *[None] * gap)
    return replace(state, step=step, seen=None, sums=(*sums, {}), entered=(*entered, now), noted=0, read_at=None)


def advance(state: State, counts: Mapping[str, ArmCounts] | None, warm: bool) -> State:
    """The state after reading the gateway's counters; until it is `warm`, and at the first look, they are the base.

    None is a reading that failed: what happened meanwhile is in the next one.
    """
    state = replace(state, looks=state.looks + 1)
    if counts is None:
        return state
    sums = dict(state.traffic)
    if warm and state.seen is not None:
        for slot, now in counts.items():
            sums[slot] = _add(sums.get(slot, NONE), _since(state.seen.get(slot, NONE), now))
    return replace(state, seen=dict(counts), sums=(*state.sums[: state.step], sums))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _since(before: ArmCounts, now: ArmCounts) -> ArmCounts:
    """Traffic between two readings of a counter; a smaller one means that the gateway started anew, from 0."""
    if now.requests < before.requests:
        return now
    return ArmCounts(now.requests - before.requests, now.errors - before.errors, now.slow - before.slow)


def _add(a: ArmCounts, b: ArmCounts) -> ArmCounts:
    return ArmCounts(a.requests + b.requests, a.errors + b.errors, a.slow + b.slow)


def _arms(data: Mapping[str, Mapping[str, int]]) -> dict[str, ArmCounts]:
    return {slot: ArmCounts(**counts) for slot, counts in data.items()}
