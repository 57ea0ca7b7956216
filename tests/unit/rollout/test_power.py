"""The power of a plan: how long it takes at the present traffic, and whether the judge keeps that."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from include.domain.rollout import power
from include.domain.rollout.canary import judge
from include.domain.rollout.plan import Guards, Rollout, Step
from include.domain.rollout.variants import Stratum, VariantTraffic
from include.domain.verdict import Outcome

PASS, INCONCLUSIVE = Outcome.PASS, Outcome.INCONCLUSIVE
PLAN = Rollout(guards=Guards(error_rate=0.01, slow_share=0.05))
RANDOM = np.random.default_rng(11)


def test_a_plan_says_how_long_it_takes() -> None:
    rates = {"error_rate": 0.001, "slow_share": 0.02}
    busy, quiet = power.check_plan(PLAN, 100, rates), power.check_plan(PLAN, 1, rates)
    assert (busy.outcome, quiet.outcome) == (PASS, INCONCLUSIVE)
    assert busy.checks[0].value is not None and quiet.checks[0].value is not None
    assert quiet.checks[0].value == pytest.approx(100 * busy.checks[0].value, rel=0.02)
    assert "takes about" in quiet.reasons[0] and "the plan has 1,790 s" in quiet.reasons[0]


@pytest.mark.parametrize(
    ("plan", "traffic"), [(PLAN, 0.0), (replace(PLAN, steps=(Step(100, timedelta(hours=1)),)), 100.0)]
)
def test_a_plan_that_compares_nothing_settles_nothing(plan: Rollout, traffic: float) -> None:
    verdict = power.check_plan(plan, traffic, {})
    assert verdict.outcome is INCONCLUSIVE
    assert "cannot be told" in verdict.reasons[0]


def test_what_the_plan_promises_is_what_the_judge_keeps() -> None:
    """80 of 100 equal canaries pass by the promised second."""
    promised = power.check_plan(PLAN, 100, {"error_rate": 0.01, "slow_share": 0.02}).checks[0].value
    assert promised is not None
    requests, stable = int(promised * 10), int(promised * 90)
    guards = Guards(error_rate=0.01, slow_share=None)
    drawn = zip(RANDOM.binomial(requests, 0.01, 300), RANDOM.binomial(stable, 0.01, 300), strict=True)
    verdicts = [
        judge(replace(PLAN, guards=guards), [Stratum(VariantTraffic(requests, a), VariantTraffic(stable, b))])
        for a, b in drawn
    ]
    assert np.mean([v.outcome is PASS for v in verdicts]) == pytest.approx(0.8, abs=0.1)
