"""The power of a rollout's plan: is it long enough, at the present traffic, to settle what the guards ask?"""

import bisect
import math
from collections.abc import Mapping

import numpy as np

from include.domain.rollout.plan import Rollout
from include.domain.rollout.sequential import ProportionDifference
from include.domain.verdict import Check, Outcome, Verdict

#: Seconds beyond which no plan is worth making.
MAX_SECONDS = 30 * 86400
#: Standard errors by which a canary may be unlucky and still pass: the normal quantile of a power of 80 %.
POWER_QUANTILE = 0.84


def check_plan(rollout: Rollout, requests_per_second: float, rates: Mapping[str, float]) -> Verdict:
    """Judge whether the plan is long enough at the present traffic; the verdict's subject is `plan`.

    `rates` are the champion's present shares of the events behind the guards `error_rate` and `slow_share`; one that is
    missing is taken as 0. A check's value is the seconds after which a challenger equal to the champion passes with a
    chance of about 80 %. It passes when the steps that split the traffic last that long, and is else inconclusive.
    """
    margins = {"error_rate": rollout.guards.error_rate, "slow_share": rollout.guards.slow_share}
    guards = [(name, margin, rates.get(name, 0.0)) for name, margin in margins.items() if margin is not None]
    return Verdict("plan", tuple(_check(rollout, requests_per_second, *guard) for guard in guards))


def _check(rollout: Rollout, requests_per_second: float, name: str, margin: float, rate: float) -> Check:
    planned = sum(_counted_seconds(rollout))
    needed = _seconds_to_pass(rollout, requests_per_second, margin, rate)
    case = f"{name}: margin {margin:g} beside a share of {rate:.2%}, at {requests_per_second:g} requests/s"
    if needed is None:
        return Check(name, Outcome.INCONCLUSIVE, f"{case}, cannot be told within {MAX_SECONDS:,} s", bound=planned)
    sentence = f"{case}, takes about {needed:,} s to tell; the plan has {planned:,.0f} s"
    return Check(name, Outcome.PASS if needed <= planned else Outcome.INCONCLUSIVE, sentence, needed, planned)


def _counted_seconds(rollout: Rollout) -> list[float]:
    """Return how many seconds count, of each step that splits the traffic."""
    return [max(0.0, (s.hold - rollout.warm_up).total_seconds()) for s in rollout.steps if s.weight < 100]


def _seconds_to_pass(rollout: Rollout, requests_per_second: float, margin: float, rate: float) -> int | None:
    """Find the time by bisection; None when the longest is not enough."""

    def passes(seconds: int) -> bool:
        counts = _expected_counts(rollout, seconds, requests_per_second, rate)
        enough = counts.canary_requests.sum() >= rollout.min_requests
        return bool(enough and counts.log_e_value(margin, -1, margin) >= -math.log(1 - rollout.guards.confidence))

    if not _counted_seconds(rollout) or not passes(MAX_SECONDS):
        return None
    return bisect.bisect_left(range(MAX_SECONDS), True, lo=1, key=passes)


def _expected_counts(rollout: Rollout, seconds: float, requests_per_second: float, rate: float) -> ProportionDifference:
    """Return the counts after so many seconds of the splitting steps, of which the last goes on.

    The canary is unlucky by POWER_QUANTILE standard errors.
    """
    weights = np.array([step.weight / 100 for step in rollout.steps if step.weight < 100])
    ends = np.cumsum(_counted_seconds(rollout))
    ends[-1] = max(ends[-1], MAX_SECONDS)
    spent = np.diff(np.minimum(ends, seconds), prepend=0)
    canary = spent * requests_per_second * weights
    stable = spent * requests_per_second - canary
    information = (canary * stable / np.maximum(canary + stable, 1)).sum()
    error = math.sqrt(rate * (1 - rate) / max(information, 1))
    unlucky = min(1.0, rate + POWER_QUANTILE * error)
    return ProportionDifference(canary * unlucky, canary, stable * rate, stable)
