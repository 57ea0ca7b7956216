"""Distances between two histograms, corrected for sample size, and how surprising they are.

n₁ and n₂ are the rows of the two; k the groups in use. `n₁n₂/(n₁+n₂)` is called the effective size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from include.domain.monitoring.sketch import Sketch

Counts = NDArray[np.float64]

#: Groups a feature is compared on at most, and the rows that a group must expect (Cochran's rule for the χ² test).
MAX_GROUPS = 16
MIN_EXPECTED = 5


def groups(reference: NDArray[np.int64], rows: int, *, ordered: bool) -> NDArray[np.intp]:
    """Bins → groups, dense from 0, each expecting `MIN_EXPECTED` of `rows` or more; neighbours pooled when `ordered`.

    The first bin (missing) stands alone where it is common enough; rare bins are pooled together.
    """
    expected = reference / max(1, reference.sum()) * rows
    if ordered:
        order = np.arange(1, len(expected))
        most = max(1, min(MAX_GROUPS, rows // (2 * MIN_EXPECTED)))
        known = expected[1:]
        middle = (np.cumsum(known) - known / 2) / max(known.sum(), 1e-12)
        ids = np.minimum((middle * most).astype(np.intp), most - 1)
    else:
        order = np.argsort(-expected[1:], kind="stable") + 1
        ids = np.where(expected[order] >= MIN_EXPECTED, np.minimum(np.arange(len(order)), MAX_GROUPS - 1), MAX_GROUPS)
    raw = np.empty(len(expected), dtype=np.intp)
    raw[order], raw[0] = ids, MAX_GROUPS + 1
    return _pool_rare(raw, expected)


def _pool_rare(raw: NDArray[np.intp], expected: NDArray[np.float64]) -> NDArray[np.intp]:
    """Groups that expect too little go, all together, to the one that is left over or to the smallest of the others."""
    sums = np.bincount(raw, weights=expected)
    rare = sums < MIN_EXPECTED
    if not rare.all() and sums[rare].sum() < MIN_EXPECTED:
        rare[np.argmin(np.where(rare, np.inf, sums))] = True
    pooled = np.where(rare[raw], len(sums), raw)
    return np.unique(pooled, return_inverse=True)[1].astype(np.intp)


def excess(a: Counts, b: Counts) -> tuple[Counts, Counts]:
    """How far histograms `[..., groups]` lie apart beyond sampling: unbiased χ² distance, its sampling variance.

    Pearson's two-sample X² less its expectation k − 1, over the effective size; variance 2(k − 1) over its square.
    """
    chi, freedom, size = _chi_square(a, b)
    return (chi - freedom) / size, 2 * freedom / size**2


def p_value(a: Counts, b: Counts, natural: float, spread: float) -> float:
    """P(X² this large) when windows differ by nature by `natural` ± `spread` (mean and variance of `excess`).

    X² is taken as a Gamma variable of mean k − 1 + mλ and variance 2(k − 1) + 4mλ + m²v, m the effective size
    (moments matched as in Satterthwaite 1946; with λ = v = 0 it is the χ² test itself).
    """
    from scipy.special import gammaincc

    chi, freedom, size = (float(v) for v in _chi_square(a, b))
    mean = freedom + size * natural
    variance = 2 * freedom + 4 * size * natural + size**2 * spread
    return float(gammaincc(mean**2 / variance, chi * mean / variance))


def discoveries(ps: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses fall, the expected share of wrong ones at most `rate` (Benjamini & Hochberg 1995)."""
    if not ps:
        return []
    ranked = np.sort(np.asarray(ps))
    below = np.flatnonzero(ranked <= rate * np.arange(1, len(ranked) + 1) / len(ranked))
    bound = ranked[below[-1]] if len(below) else -1.0
    return [p <= bound for p in ps]


def jensen_shannon(a: Counts, b: Counts) -> float:
    """Jensen-Shannon distance (root of the divergence in bits, 0 to 1), less the divergence that noise gives,
    (k − 1)(1/n₁ + 1/n₂)/8 nats (χ² expansion of Lin 1991's divergence)."""
    p, q = a / a.sum(), b / b.sum()
    m = (p + q) / 2
    nats = (_relative(p, m) + _relative(q, m)) / 2
    noise = (_used(a, b) - 1) * (1 / a.sum() + 1 / b.sum()) / 8
    return float(np.sqrt(max(0.0, nats - noise) / np.log(2)))


def psi(a: Counts, b: Counts) -> float:
    """Population stability index, half a row added to each group, less noise's (k − 1)(1/n₁ + 1/n₂) (Yurdakul 2018)."""
    p, q = (a + 0.5) / (a.sum() + 0.5 * len(a)), (b + 0.5) / (b.sum() + 0.5 * len(b))
    noise = (_used(a, b) - 1) * (1 / a.sum() + 1 / b.sum())
    return float(max(0.0, np.sum((p - q) * np.log(p / q)) - noise))


def wasserstein(window: Sketch, reference: Sketch, knots: Sequence[float]) -> float:
    """Wasserstein-1 distance of the known numbers, ∫|F − G|, in the reference's standard deviations, less noise's.

    Between knots |F − G| is taken as linear, beyond it is exact; noise gives E|F − G| = √(2F(1 − F)(1/n₁ + 1/n₂)/π).
    0 where the reference is constant or one side is empty.
    """
    n, m = (float(s.counts[1:].sum()) for s in (window, reference))
    if not n or not m or not reference.deviation:
        return 0.0
    f, g = np.cumsum(window.counts[1:-1]) / n, np.cumsum(reference.counts[1:-1]) / m
    noise = np.sqrt(2 / np.pi * g * (1 - g) * (1 / n + 1 / m))
    tails = float(np.abs(window.sums[2:] / n - reference.sums[2:] / m).sum())
    moved, expected = (float(np.trapezoid(d, knots)) for d in (np.abs(f - g), noise))
    return float(np.sqrt(max(0.0, (moved + tails) ** 2 - expected**2))) / reference.deviation


def _chi_square(a: Counts, b: Counts) -> tuple[Counts, Counts, Counts]:
    """Pearson's two-sample X², its degrees of freedom (1 at least) and the effective size, over the last axis."""
    n, m = a.sum(axis=-1), b.sum(axis=-1)
    x, y = a * np.sqrt(m / n)[..., None], b * np.sqrt(n / m)[..., None]
    both = a + b
    chi = np.sum((x - y) ** 2 / np.maximum(both, 1), axis=-1)
    return chi, np.maximum(1, np.count_nonzero(both, axis=-1) - 1), n * m / (n + m)


def _used(a: Counts, b: Counts) -> int:
    return max(1, int(np.count_nonzero(a + b)))


def _relative(p: Counts, q: Counts) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / q[held])))
