"""What follows from a verdict on a step of a rollout: wait, go on to the next step, or send the traffic back."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from include.domain.rollout.actions import PendingAction, RolloutAction
from include.domain.rollout.plan import Rollout
from include.domain.verdict import Outcome, Verdict


class StepDecision(StrEnum):
    """What happens to a step, in the words of the ledger."""

    WAIT = "wait"
    GO_ON = "go on"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Analysis:
    """The result of one analysis of a step: what happens to it, the verdict behind that, and a sentence with the reason."""

    decision: StepDecision
    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class StepProgress:
    """How far a rollout's step has come.

    The step may last for `hold`; since it began, `elapsed` has passed and the canary has had `canary_requests`.
    `rollout_elapsed` is the time since the rollout began. `mirrored` marks the shadow, which lasts for all of its hold.
    """

    name: str
    mirrored: bool
    hold: timedelta
    elapsed: timedelta
    rollout_elapsed: timedelta
    canary_requests: int


def decide(rollout: Rollout, step: StepProgress, verdict: Verdict, pending: PendingAction | None = None) -> Analysis:
    """Decide on a step from the verdict on its traffic and from what a person asked for.

    A person's promotion overrides the verdict; a pause holds the step unless a guard fails.
    """
    if pending and pending.action is RolloutAction.PROMOTE:
        return Analysis(StepDecision.GO_ON, verdict, f"{step.name}: promoted by {pending.by}")
    if pending and pending.action is RolloutAction.PAUSE and verdict.outcome is not Outcome.FAIL:
        sentence = f"{step.name}: paused by {pending.by}; say resume, promote or abort"
        return Analysis(StepDecision.WAIT, verdict, sentence)
    return _by_verdict(rollout, step, verdict)


def _by_verdict(rollout: Rollout, step: StepProgress, verdict: Verdict) -> Analysis:
    reasons = "; ".join(verdict.reasons)
    if verdict.outcome is Outcome.FAIL:
        return Analysis(StepDecision.ROLL_BACK, verdict, f"{step.name}: {reasons}")
    if verdict.outcome is Outcome.PASS and _has_shown_itself(rollout, step):
        return Analysis(StepDecision.GO_ON, verdict, f"{step.name}: not worse on any guard")
    if not step.hold:
        return Analysis(StepDecision.GO_ON, verdict, f"{step.name}: the spec asks for no hold")
    return _undecided(rollout, step, verdict, reasons)


def _undecided(rollout: Rollout, step: StepProgress, verdict: Verdict, reasons: str) -> Analysis:
    """Decide on a step that has neither passed nor failed: its hold, the rollout's time, or a person sets the end."""
    if step.rollout_elapsed >= rollout.max_duration:
        sentence = f"{step.name}: the rollout took longer than {rollout.max_duration}; {reasons}"
        return Analysis(StepDecision.ROLL_BACK, verdict, sentence)
    if step.elapsed < step.hold:
        sentence = f"{step.name}: {_seconds(step.elapsed)} of at most {_seconds(step.hold)}; {reasons}"
        return Analysis(StepDecision.WAIT, verdict, sentence)
    sentence = f"{step.name}: still {verdict.outcome} after {_seconds(step.hold)}; {reasons}"
    if rollout.on_inconclusive == "hold":
        return Analysis(StepDecision.WAIT, verdict, f"{sentence}; held for a person: say promote or abort")
    return Analysis(StepDecision.ROLL_BACK, verdict, sentence)


def _has_shown_itself(rollout: Rollout, step: StepProgress) -> bool:
    """Whether the step has carried traffic of its own: the steps before it count for the verdict, but not for this."""
    return step.canary_requests >= rollout.min_requests and (step.elapsed >= step.hold or not step.mirrored)


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
