"""Distances between two histograms, corrected for sample size, and their p-values.

In the formulas n₁ and n₂ are the rows of the two histograms and k is the number of groups in use; `n₁n₂/(n₁+n₂)` is called
the effective size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from include.domain.monitoring.sketch import Sketch

Counts = NDArray[np.float64]

#: A feature is compared on at most so many groups of bins.
MAX_GROUPS = 16
#: The rows that each group must be expected to hold: Cochran's rule (1954) for the χ² test.
MIN_EXPECTED = 5


def pool_bins(reference: NDArray[np.int64], rows: int, *, ordered: bool) -> NDArray[np.intp]:
    """Return the group of each bin, `[bins]`, numbered from 0 without gaps, for counts `[bins]` of the reference.

    Each group is expected to hold at least `MIN_EXPECTED` of a window's `rows`. Neighbouring bins are pooled when the bins are
    `ordered`, else the rare ones. The first bin (missing values) is a group of its own where it is common enough.
    """
    expected = reference / max(1, reference.sum()) * rows
    if ordered:
        order = np.arange(1, len(expected))
        count = max(1, min(MAX_GROUPS, rows // (2 * MIN_EXPECTED)))
        present = expected[1:]
        middle = (np.cumsum(present) - present / 2) / max(present.sum(), 1e-12)
        ids = np.minimum((middle * count).astype(np.intp), count - 1)
    else:
        order = np.argsort(-expected[1:], kind="stable") + 1
        ids = np.where(expected[order] >= MIN_EXPECTED, np.minimum(np.arange(len(order)), MAX_GROUPS - 1), MAX_GROUPS)
    groups = np.empty(len(expected), dtype=np.intp)
    groups[order], groups[0] = ids, MAX_GROUPS + 1
    return _pool_rare(groups, expected)


def _pool_rare(groups: NDArray[np.intp], expected: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the groups `[bins]` with all rare ones pooled into one, and that one into the smallest other if it is rare too."""
    sums = np.bincount(groups, weights=expected)
    rare = sums < MIN_EXPECTED
    if not rare.all() and sums[rare].sum() < MIN_EXPECTED:
        rare[np.argmin(np.where(rare, np.inf, sums))] = True
    pooled = np.where(rare[groups], len(sums), groups)
    return np.unique(pooled, return_inverse=True)[1].astype(np.intp)


def chi_square_excess(a: Counts, b: Counts) -> tuple[Counts, Counts]:
    """Return how far histograms `[..., groups]` lie apart beyond sampling noise, and the sampling variance of that.

    It is Pearson's two-sample X² less its expectation k − 1, divided by the effective size, and so an unbiased estimate of
    the χ² distance; its variance is 2(k − 1) divided by the squared effective size.
    """
    statistic, freedom, size = _chi_square(a, b)
    return (statistic - freedom) / size, 2 * freedom / size**2


def p_value(a: Counts, b: Counts, natural_excess: float, natural_variance: float) -> float:
    """Return the probability of an X² at least this large, when windows differ by nature.

    `natural_excess` λ and `natural_variance` v are mean and variance of the excess among the reference windows. X² is taken
    as a Gamma variable of mean k − 1 + mλ and variance 2(k − 1) + 4mλ + m²v with the effective size m: its moments are matched
    as Satterthwaite (1946) does. With λ = v = 0 it is the χ² test itself.
    """
    from scipy.special import gammaincc  # imported here, because DAG files reach this module when they are parsed

    statistic, freedom, size = (float(v) for v in _chi_square(a, b))
    mean = freedom + size * natural_excess
    variance = 2 * freedom + 4 * size * natural_excess + size**2 * natural_variance
    return float(gammaincc(mean**2 / variance, statistic * mean / variance))


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> list[bool]:
    """Return for each hypothesis whether it is rejected, with a false-discovery rate of at most `rate`.

    The procedure is that of Benjamini & Hochberg (1995). `scipy.stats.false_discovery_control` gives the same, but importing
    `scipy.stats` takes about a second in each process.
    """
    if not p_values:
        return []
    ranked = np.sort(np.asarray(p_values))
    below = np.flatnonzero(ranked <= rate * np.arange(1, len(ranked) + 1) / len(ranked))
    threshold = ranked[below[-1]] if len(below) else -1.0
    return [p <= threshold for p in p_values]


def jensen_shannon(a: Counts, b: Counts) -> float:
    """Return the Jensen-Shannon distance (0 to 1): the root of the divergence in bits, less the divergence that noise gives.

    Noise gives (k − 1)(1/n₁ + 1/n₂)/8 nats, by the χ² expansion of the divergence of Lin (1991).
    """
    p, q = a / a.sum(), b / b.sum()
    m = (p + q) / 2
    nats = (_relative_entropy(p, m) + _relative_entropy(q, m)) / 2
    noise = (_groups_in_use(a, b) - 1) * (1 / a.sum() + 1 / b.sum()) / 8
    return float(np.sqrt(max(0.0, nats - noise) / np.log(2)))


def psi(a: Counts, b: Counts) -> float:
    """Return the population stability index, less what noise gives: (k − 1)(1/n₁ + 1/n₂) (Yurdakul 2018).

    Half a row is added to each group, so that an empty one has a logarithm.
    """
    p, q = (a + 0.5) / (a.sum() + 0.5 * len(a)), (b + 0.5) / (b.sum() + 0.5 * len(b))
    noise = (_groups_in_use(a, b) - 1) * (1 / a.sum() + 1 / b.sum())
    return float(max(0.0, np.sum((p - q) * np.log(p / q)) - noise))


def wasserstein(window: Sketch, reference: Sketch, knots: Sequence[float]) -> float:
    """Return the Wasserstein-1 distance ∫|F − G| of the present numbers, in standard deviations of the reference.

    What noise gives is subtracted: E|F − G| = √(2F(1 − F)(1/n₁ + 1/n₂)/π). Between knots |F − G| is taken as linear, beyond
    them it is exact. The distance is 0 where the reference is constant or one side is empty.
    """
    n, m = (float(s.counts[1:].sum()) for s in (window, reference))
    if not n or not m or not reference.standard_deviation:
        return 0.0
    f, g = np.cumsum(window.counts[1:-1]) / n, np.cumsum(reference.counts[1:-1]) / m
    noise = np.sqrt(2 / np.pi * g * (1 - g) * (1 / n + 1 / m))
    tails = float(np.abs(window.sums[2:] / n - reference.sums[2:] / m).sum())
    between, expected = (float(np.trapezoid(d, knots)) for d in (np.abs(f - g), noise))
    return float(np.sqrt(max(0.0, (between + tails) ** 2 - expected**2))) / reference.standard_deviation


def _chi_square(a: Counts, b: Counts) -> tuple[Counts, Counts, Counts]:
    """Return Pearson's two-sample X² over the last axis, its degrees of freedom (at least 1) and the effective size."""
    n, m = a.sum(axis=-1), b.sum(axis=-1)
    x, y = a * np.sqrt(m / n)[..., None], b * np.sqrt(n / m)[..., None]
    both = a + b
    statistic = np.sum((x - y) ** 2 / np.maximum(both, 1), axis=-1)
    return statistic, np.maximum(1, np.count_nonzero(both, axis=-1) - 1), n * m / (n + m)


def _groups_in_use(a: Counts, b: Counts) -> int:
    return max(1, int(np.count_nonzero(a + b)))


def _relative_entropy(p: Counts, q: Counts) -> float:
    """Return the Kullback-Leibler divergence of p from q in nats."""
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))
