"""The power of a rollout's plan: is it long enough, at the present traffic, to tell what the guards ask?"""

import bisect
import math
from collections.abc import Mapping

import numpy as np

from include.domain.rollout.canary import Rollout
from include.domain.rollout.sequential import Shares
from include.domain.verdict import Check, Outcome, Verdict

#: Seconds beyond which no plan is worth making, and the standard errors that a plan allows for (80 % of canaries).
LONGEST = 30 * 86400
UNLUCKY = 0.84


def of_plan(rollout: Rollout, requests_per_second: float, rates: Mapping[str, float]) -> Verdict:
    """Whether the plan is long enough at the present traffic, given the champion's present share of each guarded event.

    For `error_rate` and `slow_share`: after how many seconds a challenger equal to the champion passes with a chance of
    about 80 %. A pass when the steps that split the traffic last that long, else inconclusive. Subject: `plan`. A share
    that is not in `rates` is taken as 0.
    """
    margins = {"error_rate": rollout.guards.error_rate, "slow_share": rollout.guards.slow_share}
    traffic = [(name, margin, rates.get(name, 0.0)) for name, margin in margins.items() if margin is not None]
    return Verdict("plan", tuple(_planned(rollout, requests_per_second, *guard) for guard in traffic))


def _planned(rollout: Rollout, requests_per_second: float, name: str, margin: float, rate: float) -> Check:
    given = sum(_lengths(rollout))
    seconds = _seconds_to_pass(rollout, requests_per_second, margin, rate)
    case = f"{name}: margin {margin:g} beside a share of {rate:.2%}, at {requests_per_second:g} requests/s"
    if seconds is None:
        return Check(name, Outcome.INCONCLUSIVE, f"{case}, cannot be told within {LONGEST:,} s", None, given)
    outcome = Outcome.PASS if seconds <= given else Outcome.INCONCLUSIVE
    return Check(
        name, outcome, f"{case}, takes about {seconds:,} s to tell; the plan has {given:,.0f} s", seconds, given
    )


def _lengths(rollout: Rollout) -> list[float]:
    """Seconds that count of each step that splits the traffic."""
    return [max(0.0, (s.hold - rollout.warm_up).total_seconds()) for s in rollout.steps if s.weight < 100]


def _seconds_to_pass(rollout: Rollout, requests_per_second: float, margin: float, rate: float) -> int | None:
    """By bisection; None when the longest time is not enough."""

    def passes(seconds: int) -> bool:
        shares = _expected(rollout, seconds, requests_per_second, rate)
        enough = shares.requests.sum() >= rollout.min_requests
        return bool(enough and shares.log_e(margin, -1, margin) >= -math.log(1 - rollout.guards.confidence))

    if not _lengths(rollout) or not passes(LONGEST):
        return None
    return bisect.bisect_left(range(LONGEST), True, lo=1, key=passes)


def _expected(rollout: Rollout, seconds: float, requests_per_second: float, rate: float) -> Shares:
    """Both arms after so many seconds of the splitting steps (the last goes on), the canary unlucky by `UNLUCKY`."""
    weights = np.array([step.weight / 100 for step in rollout.steps if step.weight < 100])
    ends = np.cumsum(_lengths(rollout))
    ends[-1] = max(ends[-1], LONGEST)
    spent = np.diff(np.minimum(ends, seconds), prepend=0)
    ours = spent * requests_per_second * weights
    theirs = spent * requests_per_second - ours
    known = (ours * theirs / np.maximum(ours + theirs, 1)).sum()
    unlucky = min(1.0, rate + UNLUCKY * math.sqrt(rate * (1 - rate) / max(known, 1)))
    return Shares(ours * unlucky, ours, theirs * rate, theirs)
