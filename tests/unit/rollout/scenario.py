"""A rollout of the toy model on fakes: its traffic, the actions of people, and what time it is."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.decision import Analysis, StepDecision
from include.reports import rollout_page
from include.spec.model_spec import ModelSpec
from include.stages.rollout import actions, analysis, rollout, state_file
from include.stages.rollout.services import RolloutServices
from include.stages.rollout.state import Phase, RolloutState
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
class RolloutScenario:
    """A rollout by the plan in `spec`, and the clock `now` that its steps and analyses are given."""

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
    def services(self) -> RolloutServices:
        """What the stages are given."""
        return RolloutServices(
            folder=self.folder,
            router=self.router,
            slots=self.slots,
            signals=self.signals,
            registry=self.registry,
            ledger=self.ledger,
            tables=lambda _: self.tables,
        )

    def begin(self, version: str = "2", run: str = "run-1") -> RolloutState:
        """Begin the rollout of a version as the task `begin` does."""
        self.run = run
        if older := rollout.supersede(self.spec, self.services, version, run):
            rollout_page.attach(older, self.ledger, self.registry, self.folder)
        return rollout.begin(self.spec, self.services, version, run, self.now)

    def enter(self, step: int) -> str | None:
        """Enter a step, or return why it is skipped."""
        return rollout.enter_step(self.spec, self.services, self.run, step, self.now)

    def analyse(self, seconds: float = 1) -> Analysis:
        """Analyse the step so many seconds later."""
        self.now += timedelta(seconds=seconds)
        return analysis.analyse(self.spec, self.services, self.run, self.now)

    def warm(self, step: int) -> None:
        """Enter the step and analyse it until its traffic counts."""
        assert self.enter(step) is None
        assert self.analyse(6).decision is StepDecision.WAIT

    def pass_step(self, step: int) -> Analysis:
        """Enter the step, give both slots plenty of good traffic, and analyse it at the end of its hold."""
        self.warm(step)
        self.signals.traffic("stable", 20_000)
        self.signals.traffic("canary", 20_000)
        return self.analyse(120)

    def pass_all(self) -> None:
        """Go through all steps, so that the version can be promoted."""
        for step in range(LAST):
            self.pass_step(step)
        self.enter(LAST)
        self.analyse()

    def promote(self) -> str:
        """Promote the version as the task `promote` does."""
        state = rollout.promote(self.spec, self.services, self.run)
        rollout_page.attach(state, self.ledger, self.registry, self.folder)
        return state.version

    def perform(self, action: RolloutAction, reason: str = "") -> None:
        """Let a person named ada act."""
        actions.perform("toy", action, "ada", reason, services=self.services, now=self.now)

    @property
    def state(self) -> RolloutState:
        """The state on disk."""
        state = state_file.load(self.folder, "toy")
        assert state is not None
        return state

    @property
    def phase(self) -> Phase:
        """The phase on disk."""
        return self.state.phase
