"""Evidence that stays valid however often it is judged: e-processes for the difference of two variants measured together.

An e-process for a null starts at 1 and, while the null is true, ever reaches 1/α with chance at most α (Ville 1939), so
it may be judged after every request and acted on at once. The values that are not rejected make a confidence sequence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Supposed shares of the stable variant, and supposed differences beyond the null in units of the margin. The evidence is
#: the mean over all pairs: any choice is valid, and a pair near the truth makes it grow fast.
BASE_RATES = np.array([[0.002], [0.01], [0.05], [0.25], [0.75]])
EFFECTS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 16.0])
#: Shares and splits stay this far from 0 and 1, and no bet risks more than this part of the wealth.
EPSILON = 1e-6
MAX_RISK = 0.99
BISECTIONS = 40
#: Standard errors from an estimate to the end of its range.
MAX_ERRORS = 40.0


class SequentialEvidence(Protocol):
    """The evidence on a difference, canary less stable."""

    @property
    def estimate(self) -> float:
        """The difference that the data show."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest difference in question."""

    def log_e_value(self, null: float, side: int, scale: float) -> float:
        """Return the log e-value against "the difference is at most `null`" (`side` 1) or "at least `null`" (`side` -1).

        `scale` is the distance from the null that is worth finding; it steers the power, never the validity.
        """


@dataclass(frozen=True)
class ProportionDifference:
    """The difference of two shares of requests, from counts of events and requests, each `[..., strata]`.

    A stratum is the traffic of one time under one split. `without_stable`: there is no stable variant, and the difference
    is the canary's share itself.
    """

    canary_events: Floats
    canary_requests: Floats
    stable_events: Floats
    stable_requests: Floats
    without_stable: bool = False

    @property
    def estimate(self) -> float:
        """The strata's differences, weighted by their information (Mantel & Haenszel 1959); 0 when there is no traffic."""
        canary, stable = self.canary_requests, self.stable_requests
        if self.without_stable:
            return float(self.canary_events.sum() / max(1.0, canary.sum()))
        both = np.maximum(canary + stable, 1)
        weight = (canary * stable / both).sum()
        weighted = ((self.canary_events * stable - self.stable_events * canary) / both).sum()
        return float(weighted / weight) if weight else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of a difference of shares, or of one share."""
        return (EPSILON if self.without_stable else EPSILON - 1), 1 - EPSILON

    def log_e_value(self, null: float, side: int, scale: float) -> float:
        """Return the log e-value of counts without leading axes; see SequentialEvidence."""
        return float(self.log_e_values(null, side, scale))

    def log_e_values(self, null: float, side: int, scale: float) -> Floats:
        """Return `log_e_value` for all leading axes, `[...]`, at any number of requests and any base rate, also one that drifts.

        A request of a split w : 1 - w multiplies the wealth by 1 + s (x - p - null) / w on the canary and by
        1 - s (x - p) / (1 - w) on stable, where x is 0 or 1: in the mean by 1 + s (difference - null), so by at most 1
        under the null. (Variants taken in a fixed order obey too, by the inequality of arithmetic and geometric means.) The
        stake s is the best one for a difference `scale` × EFFECTS beyond the null at base rate p. Exact for a split that is
        held within a stratum; w is its realised share. Betting: Waudby-Smith & Ramdas 2024. For two Bernoulli variants these
        products are the growth-optimal likelihood ratios of Turner, Ly & Grünwald 2024; strata: Turner & Grünwald 2023.
        """
        total = np.maximum(self.canary_requests + self.stable_requests, 1)
        split = np.full_like(total, 0.5)
        if not self.without_stable:
            split = np.clip(self.canary_requests / total, EPSILON, 1 - EPSILON)
        w = split[..., None, None]
        rates = np.zeros((1, 1)) if self.without_stable else BASE_RATES
        base = np.clip(rates, max(0.0, EPSILON - null), min(1.0, max(0.0, 1 - EPSILON - null)))
        p = np.clip(base + null, EPSILON, 1 - EPSILON)
        gains = tuple(side * gain for gain in ((1 - p) / w, -p / w, -(1 - base) / (1 - w), base / (1 - w)))
        stake = scale * EFFECTS / (p * (1 - p) / w + base * (1 - base) / (1 - w))
        stake = np.minimum(stake, MAX_RISK / -np.minimum.reduce(np.broadcast_arrays(*gains)))
        logs = sum(n[..., None, None] * np.log1p(stake * gain) for n, gain in zip(self._counts(), gains, strict=True))
        return _log_mean(np.asarray(logs).sum(axis=-3))

    def _counts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the canary's events and other requests, then stable's."""
        canary_others = self.canary_requests - self.canary_events
        stable_others = self.stable_requests - self.stable_events
        return self.canary_events, canary_others, self.stable_events, stable_others


@dataclass(frozen=True)
class LargestDifference:
    """The largest of several differences, whichever way: how far apart two distributions are at some cut points."""

    parts: Sequence[ProportionDifference]

    @property
    def estimate(self) -> float:
        """The largest distance that the data show."""
        return max(abs(part.estimate) for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of a distance between shares."""
        return EPSILON, 1 - EPSILON

    def log_e_value(self, null: float, side: int, scale: float) -> float:
        """Return the log e-value against "none is beyond ± `null`" (`side` 1) or "one is beyond" (`side` -1).

        The first takes the best of them, corrected for their number (Bonferroni), the second the worst, which needs no
        correction (an intersection-union test, Berger 1982).
        """
        every = [part.log_e_value(way * null, way * side, scale) for part in self.parts for way in (1, -1)]
        return max(every) - math.log(len(every)) if side > 0 else min(every)


@dataclass(frozen=True)
class MeanDifference:
    """A difference of means with the variance of its estimate, from enough values for both to be near normal."""

    estimate: float
    variance: float

    @property
    def bounds(self) -> tuple[float, float]:
        """The estimate less and plus MAX_ERRORS standard errors."""
        reach = MAX_ERRORS * math.sqrt(self.variance)
        return self.estimate - reach, self.estimate + reach

    def log_e_value(self, null: float, side: int, scale: float) -> float:
        """Return the log of Robbins's mixture of normal likelihood ratios over a half-normal of spread `scale` (1970).

        One-sided: Howard et al. 2021, section 3. With an estimated variance its limits are an asymptotic confidence
        sequence: Waudby-Smith et al. 2024.
        """
        shrinkage = scale**2 / (scale**2 + self.variance)
        z = side * (self.estimate - null) * math.sqrt(shrinkage / self.variance)
        return math.log(2) + math.log1p(-shrinkage) / 2 + z**2 / 2 + _log_normal_cdf(z)


def confidence_limit(evidence: SequentialEvidence, side: int, alpha: float, scale: float) -> float:
    """Return the limit at error rate `alpha`: the differences below it (`side` 1) or above it (`side` -1) are rejected.

    It is found by bisection between the estimate, which is never rejected, and the end of the range.
    """
    accepted, rejected = evidence.estimate, evidence.bounds[0 if side > 0 else 1]
    if evidence.log_e_value(rejected, side, scale) < -math.log(alpha):
        return rejected
    for _ in range(BISECTIONS):
        middle = (accepted + rejected) / 2
        if evidence.log_e_value(middle, side, scale) < -math.log(alpha):
            accepted = middle
        else:
            rejected = middle
    return rejected


def _log_mean(logs: Floats) -> Floats:
    """Return the log of the mean over the last two axes."""
    most = logs.max(axis=(-2, -1), keepdims=True)
    return np.asarray(np.log(np.exp(logs - most).mean(axis=(-2, -1))) + most[..., 0, 0])


def _log_normal_cdf(z: float) -> float:
    """Return log Φ(z); for z far below zero by the tail's first term, which is an upper bound."""
    return math.log(NormalDist().cdf(z)) if z > -8 else -(z**2) / 2 - math.log(-z * math.sqrt(2 * math.pi))
