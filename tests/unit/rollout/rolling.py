"""A rollout of the toy model on fakes: what it is told, who looks, and what time it is."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from include.domain.rollout.actions import Word
from include.reports import rollout_page
from include.spec.model_spec import ModelSpec
from include.stages.rollout import actions, analysis, rollout
from include.stages.rollout import state as rollout_state
from include.stages.rollout.analysis import Look
from include.stages.rollout.state import Phase
from tests.fakes import FakeLedger, FakeRegistry, FakeRouter, FakeSignals, FakeSlots
from tests.memory import MemoryTables

PLAN: dict[str, Any] = {
    "shadow": timedelta(minutes=1),
    "steps": [
        {"weight": 10, "hold": timedelta(minutes=10)},
        {"weight": 50, "hold": timedelta(minutes=10)},
        {"weight": 100},
    ],
    "warm_up": timedelta(seconds=5),
    "min_requests": 500,
}
LAST = 3


@dataclass
class World:
    folder: Path
    spec: ModelSpec
    now: datetime = datetime(2026, 3, 1, tzinfo=UTC)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    router: FakeRouter = field(default_factory=FakeRouter)
    slots: FakeSlots = field(default_factory=FakeSlots)
    signals: FakeSignals = field(default_factory=FakeSignals)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    tables: MemoryTables = field(default_factory=MemoryTables)
    run: str = "run-1"

    @property
    def controls(self) -> rollout.Controls:
        return rollout.Controls(self.folder, self.router, self.signals, self.ledger, lambda _: self.tables)

    def begin(self, version: str = "2", run: str = "run-1") -> rollout_state.State:
        self.run = run
        if older := rollout.supersede(self.spec, self.controls, version, self.registry, run):
            rollout_page.attach(older, self.ledger, self.registry, self.folder)
        return rollout.begin(
            self.spec, self.controls, version, registry=self.registry, slots=self.slots, run=run, now=self.now
        )

    def enter(self, step: int) -> str | None:
        return rollout.enter(self.spec, self.controls, self.run, step, self.now)

    def look(self, seconds: float = 1) -> Look:
        self.now += timedelta(seconds=seconds)
        return analysis.look(self.spec, self.controls, self.run, self.now)

    def warm(self, step: int) -> None:
        """Enter the step and look until its traffic counts."""
        assert self.enter(step) is None
        assert self.look(6).decision == "wait"

    def pass_step(self, step: int) -> Look:
        self.warm(step)
        self.signals.traffic("stable", 20_000)
        self.signals.traffic("canary", 20_000)
        return self.look(120)

    def pass_all(self) -> None:
        for step in range(LAST):
            self.pass_step(step)
        self.enter(LAST)
        self.look()

    def promote(self) -> str:
        state = rollout.promote(self.spec, self.controls, self.run, self.registry, self.slots)
        rollout_page.attach(state, self.ledger, self.registry, self.folder)
        return state.version

    def say(self, word: Word, why: str = "") -> None:
        actions.obey("toy", word, "ada", why, controls=self.controls, registry=self.registry, now=self.now)

    @property
    def state(self) -> rollout_state.State:
        state = rollout_state.load(self.folder, "toy")
        assert state is not None
        return state

    @property
    def phase(self) -> Phase:
        return self.state.phase
