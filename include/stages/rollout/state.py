"""The state of a rollout, and how entering a step and reading the counters change it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from include.domain.rollout.variants import RequestCounts
from include.stages.rollout.request_metrics import RequestMetrics


class Phase(StrEnum):
    """What a rollout is doing, or how it ended, in the words of its file and of the ledger."""

    RUNNING = "running"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class RolloutState:
    """The state of the rollout of a version; `step` counts from 0, the shadow, and is -1 before it.

    `entered_at[i]` is when step i began, None for one that was skipped. `last_counts[slot]` are the counters at the last
    analysis, None before the step's first one; `step_counts[i][slot]` is the traffic of step i since then. `analyses` is
    how many there were in all, and `recorded_requests` how many requests the step had had at its last row in the ledger.
    `step_metrics[i][slot]` are the scores and labels of step i, as read at `metrics_read_at`.
    """

    model: str
    version: str
    champion: str | None
    run: str
    began_at: datetime
    phase: Phase = Phase.RUNNING
    step: int = -1
    entered_at: tuple[datetime | None, ...] = ()
    analyses: int = 0
    last_counts: Mapping[str, RequestCounts] | None = None
    step_counts: tuple[Mapping[str, RequestCounts], ...] = ()
    recorded_requests: int = 0
    step_metrics: tuple[Mapping[str, RequestMetrics], ...] = ()
    metrics_read_at: datetime | None = None
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether the rollout has not ended."""
        return self.phase in (Phase.RUNNING, Phase.PROMOTING)

    @property
    def first_release(self) -> bool:
        """Whether there was no champion when the rollout began."""
        return self.champion is None

    @property
    def step_began_at(self) -> datetime | None:
        """When the present step began; None before the first."""
        return self.entered_at[self.step] if self.step >= 0 else None

    @property
    def traffic(self) -> Mapping[str, RequestCounts]:
        """The present step's traffic by slot."""
        return self.step_counts[self.step] if len(self.step_counts) > self.step >= 0 else {}

    @property
    def requests(self) -> int:
        """The present step's requests to both slots."""
        return sum(counts.requests for counts in self.traffic.values())

    @property
    def canary_requests(self) -> int:
        """The present step's requests to the canary."""
        return self.traffic.get("canary", RequestCounts()).requests

    def entering(self, step: int, now: datetime) -> "RolloutState":
        """Return the state at the start of a step, with the traffic of the steps before it; skipped ones had none."""
        skipped = step - len(self.step_counts)
        return replace(
            self,
            step=step,
            last_counts=None,
            step_counts=(*self.step_counts[:step], *[{}] * skipped, {}),
            entered_at=(*self.entered_at[:step], *[None] * skipped, now),
            recorded_requests=0,
            metrics_read_at=None,
        )

    def with_reading(self, counts: Mapping[str, RequestCounts] | None, *, warm: bool) -> "RolloutState":
        """Return the state after an analysis has read the counters.

        Until the step is `warm`, and at its first reading, they are only the base from which its traffic is counted. None is
        a reading that failed: what happened meanwhile is in the next one.
        """
        state = replace(self, analyses=self.analyses + 1)
        if counts is None:
            return state
        traffic = dict(self.traffic)
        if warm and self.last_counts is not None:
            for slot, now in counts.items():
                new = now.since(self.last_counts.get(slot, RequestCounts()))
                traffic[slot] = traffic.get(slot, RequestCounts()).plus(new)
        return replace(state, last_counts=dict(counts), step_counts=(*self.step_counts[: self.step], traffic))
