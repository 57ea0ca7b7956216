"""Sequential evidence: limits, and error rates that hold however often it is judged."""

import numpy as np
import pytest

from include.domain.rollout.sequential import LargestDifference, MeanDifference, ProportionDifference, confidence_limit
from include.domain.rollout.variants import Moments

RANDOM = np.random.default_rng(11)


def test_shares_that_are_apart_by_the_margin_are_rarely_called_within_or_beyond_it_however_often_they_are_judged() -> (
    None
):
    within = beyond = 0
    for run in range(60):
        random = np.random.default_rng(run)
        counts = [random.binomial(300, share, (20, 3)).cumsum(axis=0).astype(float) for share in (0.3, 0.2)]
        requests = np.arange(300.0, 6001, 300)[:, None]
        evidence = [
            LargestDifference([ProportionDifference(canary[[cut]], n, stable[[cut]], n) for cut in range(3)])
            for canary, stable, n in zip(*counts, requests, strict=True)
        ]
        within += any(difference.log_e_value(0.1, -1, 0.1) >= np.log(20) for difference in evidence)
        beyond += any(difference.log_e_value(0.1, 1, 0.1) >= np.log(20) for difference in evidence)
    assert within <= 3
    assert beyond <= 3


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("errors", "requests"), [(0, 1), (1, 1), (0, 10**6), (10**6, 10**6), (5, 1000)])
def test_limits_enclose_the_estimate_within_what_is_possible(errors: int, requests: int, alone: bool) -> None:
    events, canary, stable_events, stable = (np.array([float(n)]) for n in (errors, requests, 3, 0 if alone else 500))
    shares = ProportionDifference(events, canary, stable_events, stable, without_stable=alone)
    low, high = confidence_limit(shares, 1, 0.05, 0.01), confidence_limit(shares, -1, 0.05, 0.01)
    assert (0 if alone else -1) <= low <= shares.estimate + 1e-5
    assert shares.estimate - 1e-5 <= high <= 1


def test_the_expected_bet_never_gains_under_the_null() -> None:
    """All outcomes of four requests, two of each variant, weighted by their chance: the mean of the e-value is at most 1."""
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
    """1,000 streams of means, judged again and again: the limit excludes the truth in at most 5 %."""
    judged_at, streams = np.arange(200, 3000, 25), RANDOM.normal(0, 1, (1000, 3000))
    sums, squares = streams.cumsum(1), (streams**2).cumsum(1)
    wrong = 0
    for total, square in zip(sums, squares, strict=True):
        moments = (Moments(int(n), total[n - 1], square[n - 1]) for n in judged_at)
        wrong += any(
            MeanDifference(m.mean, m.variance_of_mean).log_e_value(0.0, 1, 0.1) > -np.log(0.05) for m in moments
        )
    assert wrong <= 50
