"""The steps of a rollout: the shadow, then the growing shares of live traffic that the spec plans."""

from dataclasses import dataclass
from datetime import timedelta

from include.domain.rollout.plan import Rollout
from include.ports.traffic import Routes
from include.stages.rollout.state import RolloutState


@dataclass(frozen=True)
class RolloutStep:
    """One step of a rollout: how its traffic is split, and how long it may last."""

    name: str
    routes: Routes
    hold: timedelta


def steps_of(rollout: Rollout) -> list[RolloutStep]:
    """Return the shadow and then each step of the plan; a step's number is its place in this list."""
    shadow = RolloutStep("shadow", Routes(canary=0, mirror=True), rollout.shadow)
    return [shadow, *(RolloutStep(f"{s.weight} %", Routes(canary=s.weight), s.hold) for s in rollout.steps)]


def last_step(rollout: Rollout) -> int:
    """Return the number of the last step, at the end of which the version is promoted."""
    return len(rollout.steps)


def hold_of(rollout: Rollout, state: RolloutState) -> timedelta:
    """Return how long the present step may last.

    The only step of a first release has the longest time of the plan, because nothing before it was observed.
    """
    steps = steps_of(rollout)
    return max(step.hold for step in steps) if state.first_release else steps[state.step].hold


def skip_reason(rollout: Rollout, state: RolloutState, step: int) -> str | None:
    """Return why this rollout skips the step; None for a step that it takes."""
    if state.first_release and step < last_step(rollout):
        return "first release: there is no champion to compare with or to serve the rest of the traffic"
    if step == 0 and not rollout.shadow:
        return "the spec asks for no shadow"
    return None
