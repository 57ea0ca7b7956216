"""Evidence that stays valid however often one looks: e-processes for the difference of two arms measured together.

An e-process for a null starts at 1 and, while the null is true, ever reaches 1/α with chance at most α (Ville 1939), so
it may be looked at after every request and acted on at once. The values that are not rejected make a confidence
sequence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Supposed shares of the stable arm, and supposed differences beyond the null in units of the margin. The evidence is
#: the mean over all pairs: any choice is valid, and a pair near the truth makes it grow fast.
CENTRES = np.array([[0.002], [0.01], [0.05], [0.25], [0.75]])
BETS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 16.0])
#: Shares and splits stay this far from 0 and 1, and no bet risks more than this part of the wealth.
EPSILON = 1e-6
CAUTION = 0.99
BISECTIONS = 40
#: Standard errors from an estimate to the end of its range.
FAR = 40.0


class Evidence(Protocol):
    """What is known of a difference, canary less stable."""

    @property
    def estimate(self) -> float: ...

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest difference in question."""

    def log_e(self, null: float, side: int, scale: float) -> float:
        """Log e-value against "the difference is at most `null`" (`side` 1) or "at least `null`" (`side` -1).

        `scale` is the distance from the null that is worth finding; it steers the power, never the validity.
        """


@dataclass(frozen=True)
class Shares:
    """Events among requests of both arms, each `[..., spans]`; a span is traffic of one time under one split.

    `alone`: there is no stable arm, and the difference is the canary's share itself.
    """

    events: Floats
    requests: Floats
    stable_events: Floats
    stable_requests: Floats
    alone: bool = False

    @property
    def estimate(self) -> float:
        """The spans' differences, weighted by what they tell (Mantel & Haenszel 1959); 0 when there is no traffic."""
        ours, theirs = self.requests, self.stable_requests
        if self.alone:
            return float(self.events.sum() / max(1.0, ours.sum()))
        both = np.maximum(ours + theirs, 1)
        weight = (ours * theirs / both).sum()
        return float(((self.events * theirs - self.stable_events * ours) / both).sum() / weight) if weight else 0.0

    @property
    def range(self) -> tuple[float, float]:
        return (EPSILON if self.alone else EPSILON - 1), 1 - EPSILON

    def log_e(self, null: float, side: int, scale: float) -> float:
        return float(self.log_es(null, side, scale))

    def log_es(self, null: float, side: int, scale: float) -> Floats:
        """`log_e` for all leading axes, `[...]`, at any number of requests and any base rate, also one that drifts.

        A request of a split w : 1 - w multiplies the wealth by 1 + s (x - p - null) / w on the canary and by
        1 - s (x - p) / (1 - w) on stable, where x is 0 or 1: in the mean by 1 + s (difference - null), so by at most 1
        under the null. (Arms taken in a fixed order obey too, by the inequality of arithmetic and geometric means.) The
        stake s is the best one for a difference `scale` × BETS beyond the null at base rate p. Exact for a split that is
        held within a span; w is its realised share. Betting: Waudby-Smith & Ramdas 2024. For two Bernoulli arms these
        products are the growth-optimal likelihood ratios of Turner, Ly & Grünwald 2024; spans are strata: Turner &
        Grünwald 2023.
        """
        total = np.maximum(self.requests + self.stable_requests, 1)
        split = np.full_like(total, 0.5) if self.alone else np.clip(self.requests / total, EPSILON, 1 - EPSILON)
        w = split[..., None, None]
        centres = np.zeros((1, 1)) if self.alone else CENTRES
        base = np.clip(centres, max(0.0, EPSILON - null), min(1.0, max(0.0, 1 - EPSILON - null)))
        p = np.clip(base + null, EPSILON, 1 - EPSILON)
        counts = self._counts()
        gains = tuple(side * gain for gain in ((1 - p) / w, -p / w, -(1 - base) / (1 - w), base / (1 - w)))
        stake = scale * BETS / (p * (1 - p) / w + base * (1 - base) / (1 - w))
        stake = np.minimum(stake, CAUTION / -np.minimum.reduce(np.broadcast_arrays(*gains)))
        logs = sum(n[..., None, None] * np.log1p(stake * gain) for n, gain in zip(counts, gains, strict=True))
        return _log_mean(np.asarray(logs).sum(axis=-3))

    def _counts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """The canary's events and other requests, then stable's."""
        others, stable_others = self.requests - self.events, self.stable_requests - self.stable_events
        return self.events, others, self.stable_events, stable_others


@dataclass(frozen=True)
class Largest:
    """The largest of several differences, whichever way: how far apart two distributions are at some cuts."""

    parts: Sequence[Shares]

    @property
    def estimate(self) -> float:
        return max(abs(part.estimate) for part in self.parts)

    @property
    def range(self) -> tuple[float, float]:
        return EPSILON, 1 - EPSILON

    def log_e(self, null: float, side: int, scale: float) -> float:
        """Against "none is beyond ± `null`" by the best of them, corrected for their number (Bonferroni); against "one is
        beyond" by the worst, which needs no correction (an intersection-union test, Berger 1982).
        """
        every = [part.log_e(way * null, way * side, scale) for part in self.parts for way in (1, -1)]
        return max(every) - math.log(len(every)) if side > 0 else min(every)


@dataclass(frozen=True)
class Means:
    """A difference of means with the variance of its estimate, from enough values for both to be near normal."""

    estimate: float
    variance: float

    @property
    def range(self) -> tuple[float, float]:
        reach = FAR * math.sqrt(self.variance)
        return self.estimate - reach, self.estimate + reach

    def log_e(self, null: float, side: int, scale: float) -> float:
        """Robbins's mixture of normal likelihood ratios over a half-normal of spread `scale` (1970).

        One-sided: Howard et al. 2021, section 3. With an estimated variance its limits are an asymptotic confidence
        sequence: Waudby-Smith et al. 2024.
        """
        known = scale**2 / (scale**2 + self.variance)
        z = side * (self.estimate - null) * math.sqrt(known / self.variance)
        return math.log(2) + math.log1p(-known) / 2 + z**2 / 2 + _log_normal_cdf(z)


def limit(evidence: Evidence, side: int, level: float, scale: float) -> float:
    """The confidence limit at `level`: the differences below it (`side` 1) or above it (`side` -1) are rejected.

    Found by bisection between the estimate, which is never rejected, and the end of the range.
    """
    kept, rejected = evidence.estimate, evidence.range[0 if side > 0 else 1]
    if evidence.log_e(rejected, side, scale) < -math.log(level):
        return rejected
    for _ in range(BISECTIONS):
        middle = (kept + rejected) / 2
        if evidence.log_e(middle, side, scale) < -math.log(level):
            kept = middle
        else:
            rejected = middle
    return rejected


def _log_mean(logs: Floats) -> Floats:
    """Log of the mean over the last two axes."""
    most = logs.max(axis=(-2, -1), keepdims=True)
    return np.asarray(np.log(np.exp(logs - most).mean(axis=(-2, -1))) + most[..., 0, 0])


def _log_normal_cdf(z: float) -> float:
    """For z far below zero by the tail's first term, which is an upper bound."""
    return math.log(NormalDist().cdf(z)) if z > -8 else -(z**2) / 2 - math.log(-z * math.sqrt(2 * math.pi))
