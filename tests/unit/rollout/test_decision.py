"""What follows from a verdict on a step: the whole table of cases, without traffic or files."""

from dataclasses import replace
from datetime import timedelta

import pytest

from include.domain.rollout.actions import PendingAction, RolloutAction
from include.domain.rollout.decision import StepDecision, StepProgress, decide
from include.domain.rollout.plan import Rollout
from include.domain.verdict import Check, Outcome, Verdict

PLAN = Rollout(min_requests=500, max_duration=timedelta(hours=6))
MINUTE = timedelta(minutes=1)
STEP = StepProgress(
    name="10 %",
    mirrored=False,
    hold=10 * MINUTE,
    elapsed=5 * MINUTE,
    rollout_elapsed=5 * MINUTE,
    canary_requests=600,
)
WAIT, GO_ON, ROLL_BACK = StepDecision.WAIT, StepDecision.GO_ON, StepDecision.ROLL_BACK


def verdict(outcome: Outcome) -> Verdict:
    return Verdict("canary", (Check("error_rate", outcome, f"error_rate {outcome}"),))


PASS, FAIL, INCONCLUSIVE = map(verdict, (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))


@pytest.mark.parametrize(
    ("step", "on", "decision", "sentence"),
    [
        (STEP, PASS, GO_ON, "10 %: not worse on any guard"),
        (STEP, FAIL, ROLL_BACK, "10 %: error_rate fail"),
        (STEP, INCONCLUSIVE, WAIT, "10 %: 300 s of at most 600 s; error_rate inconclusive"),
        (replace(STEP, canary_requests=499), PASS, WAIT, "300 s of at most 600 s"),
        (replace(STEP, mirrored=True), PASS, WAIT, "300 s of at most 600 s"),
        (replace(STEP, mirrored=True, elapsed=10 * MINUTE), PASS, GO_ON, "not worse on any guard"),
        (replace(STEP, elapsed=10 * MINUTE), INCONCLUSIVE, ROLL_BACK, "10 %: still inconclusive after 600 s"),
        (replace(STEP, hold=timedelta(0)), INCONCLUSIVE, GO_ON, "the spec asks for no hold"),
        (replace(STEP, hold=timedelta(0)), FAIL, ROLL_BACK, "error_rate fail"),
        (replace(STEP, rollout_elapsed=360 * MINUTE), INCONCLUSIVE, ROLL_BACK, "the rollout took longer than 6:00:00"),
        (replace(STEP, rollout_elapsed=360 * MINUTE), PASS, GO_ON, "not worse on any guard"),
    ],
)
def test_a_step_goes_on_waits_or_goes_back_by_its_verdict(
    step: StepProgress, on: Verdict, decision: StepDecision, sentence: str
) -> None:
    analysis = decide(PLAN, step, on)
    assert (analysis.decision, analysis.verdict) == (decision, on)
    assert sentence in analysis.sentence


def test_an_undecided_step_is_held_for_a_person_where_the_spec_says_so() -> None:
    analysis = decide(replace(PLAN, on_inconclusive="hold"), replace(STEP, elapsed=10 * MINUTE), INCONCLUSIVE)
    assert analysis.decision is WAIT
    assert "held for a person" in analysis.sentence


@pytest.mark.parametrize(
    ("action", "on", "decision"),
    [
        (RolloutAction.PROMOTE, FAIL, GO_ON),
        (RolloutAction.PAUSE, PASS, WAIT),
        (RolloutAction.PAUSE, FAIL, ROLL_BACK),
        (RolloutAction.RESUME, PASS, GO_ON),
    ],
)
def test_a_person_overrides_the_verdict_but_a_pause_does_not_hold_a_failure(
    action: RolloutAction, on: Verdict, decision: StepDecision
) -> None:
    assert decide(PLAN, STEP, on, PendingAction(action, "ada")).decision is decision
