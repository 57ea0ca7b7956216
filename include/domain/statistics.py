"""Metrics with their uncertainty.

Every metric is a value and each row's influence on it (its first-order change by that row: Hampel 1974; van der Vaart
1998, chapter 20), so that differences, clusters and resamples are sums.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from include.domain.metrics import ECE_BINS, losses

Floats = NDArray[np.float64]

RESAMPLES = 1000
PERCENTILE_RESAMPLES = 200
#: More rows (or groups) than this are resampled in so many blocks of neighbours, whose sums are all that is needed.
MAX_UNITS = 2000


@dataclass(frozen=True)
class Estimate:
    """A metric of n rows: its value, and influences `[n]` that sum to zero and whose squares sum to its variance.

    Two estimates on the same rows subtract into the paired difference.
    """

    value: float
    influence: Floats

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.influence - other.influence)

    def error(self, groups: ArrayLike | None = None) -> tuple[float, int]:
        """Standard error and its degrees of freedom; rows of a group may depend on each other (Liang & Zeger 1986)."""
        return _error(self.influence if groups is None else _sums(self.influence, groups))

    def interval(self, confidence: float, groups: ArrayLike | None = None) -> tuple[float, float]:
        """Student's two-sided interval. For an AUC this is DeLong's; with `groups` `[n]`, Obuchowski's (1997)."""
        from scipy.special import stdtrit  # here, because DAG files reach this module when they are parsed

        error, freedom = self.error(groups)
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
        return self.value - half, self.value + half

    def bootstrap(self, confidence: float, seed: int, groups: ArrayLike | None = None) -> tuple[float, float]:
        """Two-sided bootstrap-t interval of 1,000 resamples (Efron & Tibshirani 1993, section 12.5).

        Resampled are rows, or blocks of neighbouring rows where there are many (Carlstein 1986), or whole `groups`
        `[n]`.
        """
        units = _blocks(self.influence if groups is None else _sums(self.influence, groups))
        error, _ = _error(units)
        if error == 0:
            return self.value, self.value
        t = _resampled_t(units, np.random.default_rng(seed))
        low, high = np.quantile(t, [(1 - confidence) / 2, (1 + confidence) / 2])
        return self.value - float(high) * error, self.value - float(low) * error


def mean(values: Floats) -> Estimate:
    """The mean of values `[n]`."""
    centre = float(values.mean())
    return Estimate(centre, (values - centre) / len(values))


def logloss(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Mean binary cross-entropy in nats."""
    return mean(losses(labels, scores))


def auc(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Area under the ROC curve with DeLong's structural components (1988), by midranks in O(n log n) (Sun & Xu 2014).

    Raises ValueError when one class is missing.
    """
    truth, values = np.asarray(labels) > 0.5, np.asarray(scores, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise ValueError(f"an AUC needs both classes; there are {positives} positives and {negatives} negatives")
    ranks = _midranks(values)
    placement = np.empty(len(values))
    placement[truth] = (ranks[truth] - _midranks(values[truth])) / negatives
    placement[~truth] = 1 - (ranks[~truth] - _midranks(values[~truth])) / positives
    value = float(placement[truth].mean())
    return Estimate(value, (placement - value) / np.where(truth, positives, negatives))


def ece(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Expected calibration error over bins of equal count, as `metrics.ece`; the influence holds the signs fixed."""
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    order, rows = np.argsort(values, kind="stable"), len(values)
    total, influence = 0.0, np.empty(rows)
    for part in (p for p in np.array_split(order, ECE_BINS) if len(p)):
        gaps = values[part] - truth[part]
        gap = float(gaps.mean())
        influence[part] = np.sign(gap) * (gaps - gap) / rows
        total += abs(gap) * len(part) / rows
    return Estimate(total, influence)


#: None of them is ever below 0.
METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], Estimate]] = {"auc": auc, "logloss": logloss, "ece": ece}


def measured(
    name: str, labels: ArrayLike, scores: ArrayLike, confidence: float, groups: ArrayLike | None
) -> tuple[float, tuple[float, float]]:
    """One of METRICS and its interval."""
    estimate = METRICS[name](labels, scores)
    low, high = estimate.interval(confidence, groups)
    return estimate.value, (max(low, 0.0), high)


def resampled(
    metric: Callable[[Floats, Floats], float], labels: Floats, scores: Floats, groups: ArrayLike, *,
    confidence: float, seed: int,
) -> tuple[float, tuple[float, float]]:  # fmt: skip
    """Any metric's value and percentile interval over 200 resamples of whole `groups` `[n]`.

    Efron & Tibshirani (1993), chapter 13. For a metric whose influence is not known, so it is computed anew each time.
    """
    order = np.argsort(np.asarray(groups), kind="stable")
    _, counts = np.unique(np.asarray(groups), return_counts=True)
    parts = np.split(order, np.cumsum(counts)[:-1])
    random, found = np.random.default_rng(seed), []
    for _ in range(PERCENTILE_RESAMPLES):
        rows = np.concatenate([parts[i] for i in random.integers(0, len(parts), len(parts))])
        found.append(float(metric(labels[rows], scores[rows])))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(metric(labels, scores)), (float(low), float(high))


def p_above(estimate: Estimate, bound: float, groups: ArrayLike | None = None) -> float:
    """One-sided p-value of "the true value is at most `bound`", by Student's t."""
    from scipy.special import stdtr  # here, as in `Estimate.interval`

    error, freedom = estimate.error(groups)
    if error == 0:
        return float(estimate.value <= bound)
    return float(stdtr(freedom, (bound - estimate.value) / error))


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values `[k]`: rejecting those below α rejects any true hypothesis at most α of the time (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _error(units: Floats) -> tuple[float, int]:
    count = len(units)
    if count < 2:
        return float("inf"), 1
    return float(np.sqrt((units**2).sum() * count / (count - 1))), count - 1


def _sums(influence: Floats, groups: ArrayLike) -> Floats:
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(np.bincount(index, weights=influence), dtype=np.float64)


def _blocks(units: Floats) -> Floats:
    if len(units) <= MAX_UNITS:
        return units
    block = np.arange(len(units)) * MAX_UNITS // len(units)
    return np.asarray(np.bincount(block, weights=units), dtype=np.float64)


def _resampled_t(units: Floats, random: np.random.Generator) -> Floats:
    """Each resample's total over its own standard error, `[resamples]`."""
    count = len(units)
    drawn = units[random.integers(0, count, size=(RESAMPLES, count), dtype=np.int32)]
    totals = drawn.sum(axis=1)
    spread = np.einsum("ij,ij->i", drawn, drawn) - totals**2 / count
    errors = np.sqrt(np.maximum(spread, 0) * count / (count - 1))
    return np.asarray(np.divide(totals, errors, out=np.zeros_like(totals), where=errors > 0), dtype=np.float64)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, ties at the mean of theirs."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[index], dtype=np.float64)
