"""Metrics with their uncertainty.

Every metric is a value and the influence of each row on it (the first-order change of the metric by that row: Hampel 1974;
van der Vaart 1998, chapter 20). Differences of metrics, clustered errors and resamples are then sums of influences.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from include.domain.metrics import ECE_BINS, midranks, row_losses

Floats = NDArray[np.float64]

BOOTSTRAP_T_RESAMPLES = 1000
PERCENTILE_RESAMPLES = 200
#: More rows (or groups) than this are resampled as so many blocks of neighbours, of which only the sums are needed.
MAX_RESAMPLED_UNITS = 2000


@dataclass(frozen=True)
class Estimate:
    """A metric of n rows: its value, and influences `[n]`, which sum to zero and whose squares sum to its variance.

    The difference of two estimates on the same rows is the paired difference.
    """

    value: float
    influence: Floats

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.influence - other.influence)

    def standard_error(self, groups: ArrayLike | None = None) -> tuple[float, int]:
        """Return the standard error and its degrees of freedom.

        With `groups` `[n]`, rows of one group may depend on each other: the error is the cluster-robust one (Liang & Zeger
        1986). It is infinite for fewer than two rows or groups.
        """
        return _standard_error(self.influence if groups is None else _group_sums(self.influence, groups))

    def interval(self, confidence: float, groups: ArrayLike | None = None) -> tuple[float, float]:
        """Return the ends of the two-sided interval by Student's t.

        For an AUC this is the interval of DeLong et al. (1988); with `groups` `[n]` that of Obuchowski (1997).
        """
        return student_interval(self.value, *self.standard_error(groups), confidence)

    def bootstrap_t_interval(
        self, confidence: float, seed: int, groups: ArrayLike | None = None
    ) -> tuple[float, float]:
        """Return the ends of the two-sided bootstrap-t interval over 1,000 resamples (Efron & Tibshirani 1993, section 12.5).

        Rows are resampled, or blocks of neighbouring rows where there are many (Carlstein 1986), or whole `groups` `[n]`.
        """
        units = _block_sums(self.influence if groups is None else _group_sums(self.influence, groups))
        error, _ = _standard_error(units)
        if error == 0:
            return self.value, self.value
        t = _resampled_t_statistics(units, np.random.default_rng(seed))
        low, high = np.quantile(t, [(1 - confidence) / 2, (1 + confidence) / 2])
        return self.value - float(high) * error, self.value - float(low) * error


def mean(values: Floats) -> Estimate:
    """Return the mean of the values `[n]`."""
    centre = float(values.mean())
    return Estimate(centre, (values - centre) / len(values))


def logloss(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the mean binary cross-entropy in nats of 0/1 labels `[n]` and probabilities `[n]`."""
    return mean(row_losses(labels, scores))


def auc(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the area under the ROC curve of 0/1 labels `[n]` and scores `[n]`.

    The influences are the structural components of DeLong et al. (1988), computed from midranks in O(n log n) (Sun & Xu
    2014). Raises ValueError when one class is missing.
    """
    is_positive, values = np.asarray(labels) > 0.5, np.asarray(scores, dtype=np.float64)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        raise ValueError(f"an AUC needs both classes; there are {positives} positives and {negatives} negatives")
    ranks = midranks(values)
    placement = np.empty(len(values))
    placement[is_positive] = (ranks[is_positive] - midranks(values[is_positive])) / negatives
    placement[~is_positive] = 1 - (ranks[~is_positive] - midranks(values[~is_positive])) / positives
    value = float(placement[is_positive].mean())
    return Estimate(value, (placement - value) / np.where(is_positive, positives, negatives))


def ece(labels: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the expected calibration error as `metrics.ece` does.

    The influences hold fixed in which bins the scores lie too high or too low.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    order, rows = np.argsort(values, kind="stable"), len(values)
    total, influence = 0.0, np.empty(rows)
    for part in (p for p in np.array_split(order, ECE_BINS) if len(p)):
        gaps = values[part] - truth[part]
        gap = float(gaps.mean())
        influence[part] = np.sign(gap) * (gaps - gap) / rows
        total += abs(gap) * len(part) / rows
    return Estimate(total, influence)


#: The metrics by name; none of them is ever below 0.
METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], Estimate]] = {"auc": auc, "logloss": logloss, "ece": ece}


def estimate_with_interval(
    name: str, labels: ArrayLike, scores: ArrayLike, confidence: float, groups: ArrayLike | None
) -> tuple[float, tuple[float, float]]:
    """Return the value of one of `METRICS` and the ends of its interval, the lower one cut at 0."""
    estimate = METRICS[name](labels, scores)
    low, high = estimate.interval(confidence, groups)
    return estimate.value, (max(low, 0.0), high)


def percentile_bootstrap(
    metric: Callable[[Floats, Floats], float],
    labels: Floats,
    scores: Floats,
    groups: ArrayLike,
    *,
    confidence: float,
    seed: int,
) -> tuple[float, tuple[float, float]]:
    """Return the value of any metric and its percentile interval over 200 resamples of whole `groups` `[n]`.

    It is for a metric whose influences are not known: the metric is computed anew for each resample (Efron & Tibshirani
    1993, chapter 13).
    """
    order = np.argsort(np.asarray(groups), kind="stable")
    _, counts = np.unique(np.asarray(groups), return_counts=True)
    parts = np.split(order, np.cumsum(counts)[:-1])
    random, values = np.random.default_rng(seed), []
    for _ in range(PERCENTILE_RESAMPLES):
        rows = np.concatenate([parts[i] for i in random.integers(0, len(parts), len(parts))])
        values.append(float(metric(labels[rows], scores[rows])))
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(metric(labels, scores)), (float(low), float(high))


def student_interval(
    estimate: float, standard_error: float, degrees_of_freedom: int, confidence: float
) -> tuple[float, float]:
    """Return the ends of the two-sided interval around the estimate by Student's t (1908)."""
    from scipy.special import stdtrit  # imported here, because DAG files reach this module when they are parsed

    half = float(stdtrit(degrees_of_freedom, (1 + confidence) / 2)) * standard_error
    return estimate - half, estimate + half


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from scipy.special import ndtri  # imported here, as in `student_interval`

    return float(ndtri(probability))


def p_value_above(estimate: Estimate, bound: float, groups: ArrayLike | None = None) -> float:
    """Return the one-sided p-value, by Student's t, of the hypothesis that the true value is at most `bound`."""
    from scipy.special import stdtr  # imported here, as in `student_interval`

    error, freedom = estimate.standard_error(groups)
    if error == 0:
        return float(estimate.value <= bound)
    return float(stdtr(freedom, (bound - estimate.value) / error))


def holm_adjusted(p_values: ArrayLike) -> Floats:
    """Return p-values `[k]` adjusted by the step-down procedure of Holm (1979).

    Rejecting the hypotheses whose adjusted p-value is below alpha rejects any true one with a probability of at most alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _standard_error(units: Floats) -> tuple[float, int]:
    """Return the standard error of a sum of independent influences, and its degrees of freedom."""
    count = len(units)
    if count < 2:
        return float("inf"), 1
    return float(np.sqrt((units**2).sum() * count / (count - 1))), count - 1


def _group_sums(influence: Floats, groups: ArrayLike) -> Floats:
    """Return the sum of the influences of each group, `[groups]`."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(np.bincount(index, weights=influence), dtype=np.float64)


def _block_sums(units: Floats) -> Floats:
    """Return the units themselves, or the sums of `MAX_RESAMPLED_UNITS` blocks of neighbours where there are more."""
    if len(units) <= MAX_RESAMPLED_UNITS:
        return units
    block = np.arange(len(units)) * MAX_RESAMPLED_UNITS // len(units)
    return np.asarray(np.bincount(block, weights=units), dtype=np.float64)


def _resampled_t_statistics(units: Floats, random: np.random.Generator) -> Floats:
    """Return the total of each resample divided by the resample's own standard error, `[resamples]`."""
    count = len(units)
    samples = units[random.integers(0, count, size=(BOOTSTRAP_T_RESAMPLES, count), dtype=np.int32)]
    totals = samples.sum(axis=1)
    squares = np.einsum("ij,ij->i", samples, samples) - totals**2 / count
    errors = np.sqrt(np.maximum(squares, 0) * count / (count - 1))
    return np.asarray(np.divide(totals, errors, out=np.zeros_like(totals), where=errors > 0), dtype=np.float64)
