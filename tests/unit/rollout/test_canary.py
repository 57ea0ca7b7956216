"""The canary's judge: guards on counts, on means and on distributions of scores."""

from dataclasses import replace

import numpy as np
import pytest

from include.domain.rollout.canary import judge
from include.domain.rollout.plan import Guards, Rollout
from include.domain.rollout.variants import CUT_POINTS, Moments, Stratum, VariantTraffic
from include.domain.verdict import Check, Outcome, Verdict

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
PLAN = Rollout(guards=Guards(error_rate=0.01, slow_share=0.05))
RANDOM = np.random.default_rng(11)


def expected_traffic(
    requests: int, errors: float = 0.001, slow: float = 0.02, weight: float = 0.1, beside: float = 0.001
) -> Stratum:
    """What is expected of a canary with these shares beside a stable slot with `beside` errors and 2 % slow answers."""
    stable = round(requests / weight - requests)
    return Stratum(
        VariantTraffic(requests, round(requests * errors), round(requests * slow)),
        VariantTraffic(stable, round(stable * beside), round(stable * 0.02)),
    )


def values(mean: float, rows: int = 5000) -> Moments:
    return Moments.of(RANDOM.normal(mean, 0.1, rows))


def check(verdict: Verdict, name: str) -> Check:
    return next(c for c in verdict.checks if c.name == name)


def test_an_equal_canary_passes_with_its_numbers() -> None:
    verdict = judge(PLAN, [expected_traffic(2000)])
    assert verdict.outcome is PASS
    error_rate = check(verdict, "error_rate")
    assert error_rate.sentence.startswith("not inferior: error_rate +0.0000 (")
    assert (error_rate.value, error_rate.bound) == (0.0, 0.01)
    assert error_rate.interval is not None and -0.01 < error_rate.interval[0] < 0 < error_rate.interval[1] < 0.01


@pytest.mark.parametrize(("errors", "slow"), [(0.05, 0.02), (0.001, 0.3), (1.0, 0.0)])
def test_one_worse_guard_sends_it_back_before_the_minimum_sample(errors: float, slow: float) -> None:
    verdict = judge(PLAN, [expected_traffic(300, errors, slow)])
    assert verdict.outcome is FAIL
    assert len(verdict.reasons) >= 1
    assert verdict.reasons[0 if errors > 0.01 else 1].startswith("worse: ")


def test_a_pass_needs_the_minimum_sample() -> None:
    guards = Guards(error_rate=None, slow_share=0.05)
    assert judge(replace(PLAN, guards=guards, min_requests=2001), [expected_traffic(2000)]).outcome is INCONCLUSIVE
    assert judge(replace(PLAN, guards=guards, min_requests=2000), [expected_traffic(2000)]).outcome is PASS


@pytest.mark.parametrize(
    "strata",
    [
        [],
        [Stratum(VariantTraffic(), VariantTraffic())],
        [Stratum(VariantTraffic(), VariantTraffic(900, 9, 9))],
        [Stratum(VariantTraffic(900, 9, 9), VariantTraffic())],
        [Stratum(VariantTraffic(), None)],
    ],
    ids=["no step", "no traffic", "no canary traffic", "no stable traffic", "no traffic and no champion"],
)
def test_nothing_to_compare_is_inconclusive(strata: list[Stratum]) -> None:
    assert judge(PLAN, strata).outcome is INCONCLUSIVE


def test_no_guards_is_no_evidence() -> None:
    assert (
        judge(Rollout(guards=Guards(error_rate=None, slow_share=None)), [expected_traffic(2000)]).outcome
        is INCONCLUSIVE
    )


def test_a_difference_within_the_margin_passes_even_where_it_is_surely_above_zero() -> None:
    verdict = judge(PLAN, [expected_traffic(400_000, errors=0.003)])
    error_rate = check(verdict, "error_rate")
    assert error_rate.interval is not None and error_rate.interval[0] > 0
    assert error_rate.outcome is PASS


def test_a_champion_as_bad_at_the_same_time_excuses_the_canary() -> None:
    """An outage behind both is no reason to roll back."""
    assert judge(PLAN, [expected_traffic(100_000, errors=0.2, beside=0.2)]).outcome is PASS


def test_a_step_of_bad_hours_does_not_tilt_the_comparison() -> None:
    """10 % of quiet traffic, then 50 % of an outage: added up, the canary saw more of the outage (Simpson's paradox)."""
    quiet, outage = expected_traffic(2000, 0.001), expected_traffic(80_000, errors=0.2, weight=0.5, beside=0.2)
    assert judge(PLAN, [quiet, outage]).outcome is PASS
    assert outage.stable is not None and quiet.stable is not None
    added = Stratum(
        VariantTraffic(82_000, quiet.canary.errors + outage.canary.errors, 1640),
        VariantTraffic(98_000, quiet.stable.errors + outage.stable.errors, 1960),
    )
    assert judge(PLAN, [added]).outcome is FAIL


def test_evidence_adds_up_over_steps() -> None:
    one = judge(PLAN, [expected_traffic(700)])
    assert one.outcome is INCONCLUSIVE
    assert judge(PLAN, [expected_traffic(700), expected_traffic(700, weight=0.5)]).outcome is PASS


@pytest.mark.parametrize(("errors", "outcome"), [(0.001, PASS), (0.03, FAIL)])
def test_without_a_champion_the_margins_are_absolute(errors: float, outcome: Outcome) -> None:
    alone = expected_traffic(3000, errors).canary
    verdict = judge(replace(PLAN, guards=Guards(logloss=0.01, score_mean=0.1)), [Stratum(alone, None)])
    assert verdict.outcome is outcome
    assert [c.name for c in verdict.checks] == ["error_rate", "slow_share"]
    assert "the challenger's own" in verdict.checks[0].sentence


def online(logloss: float = 0.45, score: float = 0.2, bias: float = 0.0, label: float = 0.2) -> Stratum:
    canary = VariantTraffic(5000, 5, 100, values(logloss), values(label), values(score), values(bias))
    return Stratum(canary, VariantTraffic(5000, 5, 100, values(0.45), values(0.2), values(0.2), values(0.1)))


@pytest.mark.parametrize(
    ("stratum", "failed"),
    [
        (online(), []),
        (online(0.40), []),
        (online(0.48), ["logloss"]),
        (online(label=0.3), []),
        (online(label=0.15), ["label_rate"]),
        (online(score=0.1), ["score_mean"]),
        (online(score=0.3), ["score_mean"]),
        (online(bias=-0.1), ["calibration"]),
    ],
)
def test_guards_on_means(stratum: Stratum, failed: list[str]) -> None:
    plan = replace(PLAN, guards=Guards(logloss=0.015, label_rate=0.02, score_mean=0.02, calibration=0.02))
    verdict = judge(plan, [stratum])
    assert [c.name for c in verdict.checks if c.outcome is FAIL] == failed
    assert verdict.outcome is (FAIL if failed else PASS)


def scored(challenger: np.ndarray, champion: np.ndarray) -> Stratum:
    """Challenger and champion with these scores."""
    variants = [
        VariantTraffic(len(x), 0, 0, score=Moments.of(x), above=[int((x > cut).sum()) for cut in CUT_POINTS])
        for x in (challenger, champion)
    ]
    return Stratum(*variants)


@pytest.mark.parametrize(
    ("spread", "rows", "outcome"), [(0.1, 8000, PASS), (0.1, 300, INCONCLUSIVE), (0.12, 8000, PASS), (0.3, 8000, FAIL)]
)
def test_scores_of_the_same_mean_and_another_spread_are_told_apart(spread: float, rows: int, outcome: Outcome) -> None:
    random = np.random.default_rng(4)
    challenger, champion = (np.clip(random.normal(0.5, s, rows), 0, 1) for s in (spread, 0.1))
    guards = Guards(error_rate=None, slow_share=None, score_shift=0.1)
    shift = check(judge(replace(PLAN, guards=guards), [scored(challenger, champion)]), "score_shift")
    assert shift.outcome is outcome, shift.sentence
    assert "apart from the champion's" in shift.sentence


def test_the_sentence_of_a_click_through_rate_says_that_it_falls() -> None:
    label_rate = check(judge(replace(PLAN, guards=Guards(label_rate=0.02)), [online(label=0.15)]), "label_rate")
    assert label_rate.sentence.startswith("worse: label_rate +0.0")
    assert "less than the champion's" in label_rate.sentence


def test_labels_that_have_not_come_yet_hold_the_verdict() -> None:
    assert judge(replace(PLAN, guards=Guards(logloss=0.01)), [expected_traffic(5000)]).outcome is INCONCLUSIVE


def test_answers_that_are_all_the_same_can_be_judged() -> None:
    same = VariantTraffic(1000, 0, 0, score=Moments.of(np.full(1000, 0.5)))
    plan = replace(PLAN, guards=Guards(error_rate=None, slow_share=None, score_mean=0.02))
    assert judge(plan, [Stratum(same, same)]).outcome is PASS
