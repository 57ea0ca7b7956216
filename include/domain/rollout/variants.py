"""What a canary is judged on: the traffic of both variants, stable and canary, stratum by stratum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: Where two distributions of scores are compared, from rare clicks to near certainty.
CUT_POINTS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


class RequestCounts(NamedTuple):
    """Requests of one slot, and how many of them failed or were slow; a list of three numbers in the ledger's JSON."""

    requests: int = 0
    errors: int = 0
    slow: int = 0

    def plus(self, other: "RequestCounts") -> "RequestCounts":
        """Return the sum of both."""
        return RequestCounts(self.requests + other.requests, self.errors + other.errors, self.slow + other.slow)

    def since(self, earlier: "RequestCounts") -> "RequestCounts":
        """Return what was counted since an earlier reading; a smaller one now means that the counter started anew, from 0."""
        if self.requests < earlier.requests:
            return self
        return RequestCounts(self.requests - earlier.requests, self.errors - earlier.errors, self.slow - earlier.slow)


@dataclass(frozen=True)
class Moments:
    """The count, the sum and the sum of squares of one value per request."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike) -> "Moments":
        """Return the moments of values `[n]`."""
        array = np.asarray(values, dtype=np.float64)
        return cls(len(array), float(array.sum()), float((array**2).sum()))

    @property
    def mean(self) -> float:
        """The mean of the values; there must be some."""
        return self.total / self.n

    @property
    def variance_of_mean(self) -> float:
        """The variance of the mean, that is the values' variance over their number."""
        return max(self.squares / self.n - self.mean**2, 0.0) / self.n


@dataclass(frozen=True)
class VariantTraffic:
    """The traffic of one variant within a stratum.

    `logloss`, `label` and `bias` (score less label) are of the requests whose label is known; `above` counts the scores
    above each of CUT_POINTS.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    logloss: Moments = Moments()
    label: Moments = Moments()
    score: Moments = Moments()
    bias: Moments = Moments()
    above: Sequence[int] = (0,) * len(CUT_POINTS)


@dataclass(frozen=True)
class Stratum:
    """Both variants over the same time under one split, e.g. during one step; `stable` is None without a champion."""

    canary: VariantTraffic
    stable: VariantTraffic | None
