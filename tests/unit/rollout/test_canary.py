from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from include.domain.rollout import power
from include.domain.rollout.canary import judge
from include.domain.rollout.plan import Guards, Rollout, Step
from include.domain.rollout.sequential import LargestDifference, MeanDifference, ProportionDifference, confidence_limit
from include.domain.rollout.variants import CUT_POINTS, Moments, Stratum, VariantTraffic
from include.domain.verdict import Check, Outcome, Verdict

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
PLAN = Rollout(guards=Guards(error_rate=0.01, slow_share=0.05))
RANDOM = np.random.default_rng(11)


def span(
    requests: int, errors: float = 0.001, slow: float = 0.02, weight: float = 0.1, beside: float = 0.001
) -> Stratum:
    """What is expected of a canary with these shares beside a stable arm with `beside` errors and 2 % slow answers."""
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
    verdict = judge(PLAN, [span(2000)])
    assert verdict.outcome is PASS
    found = check(verdict, "error_rate")
    assert found.sentence.startswith("not inferior: error_rate +0.0000 (")
    assert (found.value, found.bound) == (0.0, 0.01)
    assert found.interval is not None and -0.01 < found.interval[0] < 0 < found.interval[1] < 0.01


@pytest.mark.parametrize(("errors", "slow"), [(0.05, 0.02), (0.001, 0.3), (1.0, 0.0)])
def test_one_worse_guard_sends_it_back_before_the_minimum_sample(errors: float, slow: float) -> None:
    verdict = judge(PLAN, [span(300, errors, slow)])
    assert verdict.outcome is FAIL
    assert len(verdict.reasons) >= 1
    assert verdict.reasons[0 if errors > 0.01 else 1].startswith("worse: ")


def test_a_pass_needs_the_minimum_sample() -> None:
    guards = Guards(error_rate=None, slow_share=0.05)
    assert judge(replace(PLAN, guards=guards, min_requests=2001), [span(2000)]).outcome is INCONCLUSIVE
    assert judge(replace(PLAN, guards=guards, min_requests=2000), [span(2000)]).outcome is PASS


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [Stratum(VariantTraffic(), VariantTraffic())],
        [Stratum(VariantTraffic(), VariantTraffic(900, 9, 9))],
        [Stratum(VariantTraffic(900, 9, 9), VariantTraffic())],
        [Stratum(VariantTraffic(), None)],
    ],
    ids=["no step", "no traffic", "no canary traffic", "no stable traffic", "no traffic and no champion"],
)
def test_nothing_to_compare_is_inconclusive(spans: list[Stratum]) -> None:
    assert judge(PLAN, spans).outcome is INCONCLUSIVE


def test_no_guards_is_no_evidence() -> None:
    assert judge(Rollout(guards=Guards(error_rate=None, slow_share=None)), [span(2000)]).outcome is INCONCLUSIVE


def test_a_difference_within_the_margin_passes_even_where_it_is_surely_above_zero() -> None:
    verdict = judge(PLAN, [span(400_000, errors=0.003)])
    found = check(verdict, "error_rate")
    assert found.interval is not None and found.interval[0] > 0
    assert found.outcome is PASS


def test_a_champion_as_bad_at_the_same_time_excuses_the_canary() -> None:
    """An outage behind both is no reason to roll back."""
    assert judge(PLAN, [span(100_000, errors=0.2, beside=0.2)]).outcome is PASS


def test_a_step_of_bad_hours_does_not_tilt_the_comparison() -> None:
    """10 % of quiet traffic, then 50 % of an outage: added up, the canary saw more of the outage (Simpson's paradox)."""
    quiet, outage = span(2000, 0.001), span(80_000, errors=0.2, weight=0.5, beside=0.2)
    assert judge(PLAN, [quiet, outage]).outcome is PASS
    assert outage.stable is not None and quiet.stable is not None
    added = Stratum(
        VariantTraffic(82_000, quiet.canary.errors + outage.canary.errors, 1640),
        VariantTraffic(98_000, quiet.stable.errors + outage.stable.errors, 1960),
    )
    assert judge(PLAN, [added]).outcome is FAIL


def test_evidence_adds_up_over_steps() -> None:
    one = judge(PLAN, [span(700)])
    assert one.outcome is INCONCLUSIVE
    assert judge(PLAN, [span(700), span(700, weight=0.5)]).outcome is PASS


@pytest.mark.parametrize(("errors", "outcome"), [(0.001, PASS), (0.03, FAIL)])
def test_without_a_champion_the_margins_are_absolute(errors: float, outcome: Outcome) -> None:
    arm = span(3000, errors).canary
    verdict = judge(replace(PLAN, guards=Guards(logloss=0.01, score_mean=0.1)), [Stratum(arm, None)])
    assert verdict.outcome is outcome
    assert [c.name for c in verdict.checks] == ["error_rate", "slow_share"]
    assert "the challenger's own" in verdict.checks[0].sentence


def online(logloss: float = 0.45, score: float = 0.2, bias: float = 0.0, label: float = 0.2) -> Stratum:
    canary = VariantTraffic(5000, 5, 100, values(logloss), values(label), values(score), values(bias))
    return Stratum(canary, VariantTraffic(5000, 5, 100, values(0.45), values(0.2), values(0.2), values(0.1)))


@pytest.mark.parametrize(
    ("seen", "failed"),
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
def test_guards_on_means(seen: Stratum, failed: list[str]) -> None:
    plan = replace(PLAN, guards=Guards(logloss=0.015, label_rate=0.02, score_mean=0.02, calibration=0.02))
    verdict = judge(plan, [seen])
    assert [c.name for c in verdict.checks if c.outcome is FAIL] == failed
    assert verdict.outcome is (FAIL if failed else PASS)


def scored(scores: np.ndarray, above: np.ndarray) -> Stratum:
    """Challenger and champion with these scores."""
    arms = [
        VariantTraffic(len(x), 0, 0, score=Moments.of(x), above=[int((x > cut).sum()) for cut in CUT_POINTS])
        for x in (scores, above)
    ]
    return Stratum(*arms)


@pytest.mark.parametrize(
    ("spread", "rows", "outcome"), [(0.1, 8000, PASS), (0.1, 300, INCONCLUSIVE), (0.12, 8000, PASS), (0.3, 8000, FAIL)]
)
def test_scores_of_the_same_mean_and_another_spread_are_told_apart(spread: float, rows: int, outcome: Outcome) -> None:
    random = np.random.default_rng(4)
    ours, theirs = (np.clip(random.normal(0.5, s, rows), 0, 1) for s in (spread, 0.1))
    guards = Guards(error_rate=None, slow_share=None, score_shift=0.1)
    seen = check(judge(replace(PLAN, guards=guards), [scored(ours, theirs)]), "score_shift")
    assert seen.outcome is outcome, seen.sentence
    assert "apart from the champion's" in seen.sentence


def test_shares_that_are_apart_by_the_margin_are_rarely_called_within_or_beyond_it_however_often_one_looks() -> None:
    within = beyond = 0
    for run in range(60):
        random = np.random.default_rng(run)
        counts = [random.binomial(300, share, (20, 3)).cumsum(axis=0).astype(float) for share in (0.3, 0.2)]
        requests = np.arange(300.0, 6001, 300)[:, None]
        looks = [
            LargestDifference([ProportionDifference(ours[[cut]], n, theirs[[cut]], n) for cut in range(3)])
            for ours, theirs, n in zip(*counts, requests, strict=True)
        ]
        within += any(seen.log_e_value(0.1, -1, 0.1) >= np.log(20) for seen in looks)
        beyond += any(seen.log_e_value(0.1, 1, 0.1) >= np.log(20) for seen in looks)
    assert within <= 3
    assert beyond <= 3


def test_a_click_through_rate_that_falls_is_said_as_it_is() -> None:
    seen = check(judge(replace(PLAN, guards=Guards(label_rate=0.02)), [online(label=0.15)]), "label_rate")
    assert seen.sentence.startswith("worse: label_rate +0.0")
    assert "less than the champion's" in seen.sentence


def test_labels_that_have_not_come_yet_hold_the_verdict() -> None:
    assert judge(replace(PLAN, guards=Guards(logloss=0.01)), [span(5000)]).outcome is INCONCLUSIVE


def test_answers_that_are_all_the_same_can_be_judged() -> None:
    same = VariantTraffic(1000, 0, 0, score=Moments.of(np.full(1000, 0.5)))
    plan = replace(PLAN, guards=Guards(error_rate=None, slow_share=None, score_mean=0.02))
    assert judge(plan, [Stratum(same, same)]).outcome is PASS


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("errors", "requests"), [(0, 1), (1, 1), (0, 10**6), (10**6, 10**6), (5, 1000)])
def test_limits_enclose_the_estimate_within_what_is_possible(errors: int, requests: int, alone: bool) -> None:
    ours, all_ours, theirs, all_theirs = (np.array([float(n)]) for n in (errors, requests, 3, 0 if alone else 500))
    shares = ProportionDifference(ours, all_ours, theirs, all_theirs, without_stable=alone)
    low, high = confidence_limit(shares, 1, 0.05, 0.01), confidence_limit(shares, -1, 0.05, 0.01)
    assert (0 if alone else -1) <= low <= shares.estimate + 1e-5
    assert shares.estimate - 1e-5 <= high <= 1


def test_the_expected_bet_never_gains_under_the_null() -> None:
    """All outcomes of four requests, two on each arm, weighed by their chance: the mean of the e-value is at most 1."""
    ups, chance = np.meshgrid(*[[0.0, 1.0]] * 4), 1.0
    for stable_share, null in ((0.3, 0.1), (0.02, 0.0), (0.6, -0.2)):
        shares = [stable_share + null, stable_share + null, stable_share, stable_share]
        chance = np.prod([np.where(u == 1, p, 1 - p) for u, p in zip(ups, shares, strict=True)], axis=0)
        two = np.full(chance.shape, 2.0)
        counts = [ups[0] + ups[1], two, ups[2] + ups[3], two]
        for side in (1, -1):
            e = np.exp(ProportionDifference(*(c[..., None] for c in counts)).log_e_values(null, side, 0.05))
            assert (e * chance).sum() <= 1 + 1e-9


def test_ever_crossing_is_rare_under_the_null() -> None:
    """1,000 streams of means, a look at every value: the limit excludes the truth in at most 5 %."""
    looks, streams = np.arange(200, 3000, 25), RANDOM.normal(0, 1, (1000, 3000))
    sums, squares = streams.cumsum(1), (streams**2).cumsum(1)
    wrong = 0
    for total, square in zip(sums, squares, strict=True):
        seen = (Moments(int(n), total[n - 1], square[n - 1]) for n in looks)
        wrong += any(MeanDifference(m.mean, m.variance_of_mean).log_e_value(0.0, 1, 0.1) > -np.log(0.05) for m in seen)
    assert wrong <= 50


def test_a_plan_says_how_long_it_takes_to_tell() -> None:
    rates = {"error_rate": 0.001, "slow_share": 0.02}
    busy, quiet = power.check_plan(PLAN, 100, rates), power.check_plan(PLAN, 1, rates)
    assert (busy.outcome, quiet.outcome) == (PASS, INCONCLUSIVE)
    assert busy.checks[0].value is not None and quiet.checks[0].value is not None
    assert quiet.checks[0].value == pytest.approx(100 * busy.checks[0].value, rel=0.02)
    assert "takes about" in quiet.reasons[0] and "the plan has 1,790 s" in quiet.reasons[0]


@pytest.mark.parametrize(
    ("plan", "traffic"), [(PLAN, 0.0), (replace(PLAN, steps=(Step(100, timedelta(hours=1)),)), 100.0)]
)
def test_a_plan_that_compares_nothing_tells_nothing(plan: Rollout, traffic: float) -> None:
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
