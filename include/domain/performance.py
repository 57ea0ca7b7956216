"""How good the champion is on live traffic, with intervals that know that rows of one window resemble each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.domain.signal import Signal, rise, span, unknown

Floats = NDArray[np.float64]

#: Probabilities are kept this far from 0 and 1 in a logarithm.
EPSILON = 1e-7
#: Fewer windows than this say nothing about how windows differ; the interval then rests on rows alone.
MIN_CLUSTERS = 3


@dataclass(frozen=True)
class Performance:
    """The `watch.performance` section: the last `windows` with labels due, against the champion's test windows.

    The bounds are how much worse live may be; a signal fires when the whole interval is worse than that.
    """

    __pydantic_config__ = {"extra": "forbid"}
    windows: int = 7
    min_rows: int = 500
    max_logloss_rise: float = 0.02
    max_auc_fall: float = 0.02
    max_calibration_gap: float = 0.05
    confidence: float = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error with so many degrees of freedom."""

    value: float
    error: float
    freedom: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's two-sided interval."""
        from scipy.special import stdtrit

        half = float(stdtrit(max(1, self.freedom), (1 + confidence) / 2)) * self.error
        return self.value - half, self.value + half

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference; Welch and Satterthwaite's degrees of freedom."""
        a, b = self.error**2, other.error**2
        parts = a**2 / max(1, self.freedom) + b**2 / max(1, other.freedom)
        freedom = int((a + b) ** 2 / parts) if parts else self.freedom
        return Estimate(self.value - other.value, float(np.sqrt(a + b)), freedom)


@dataclass(frozen=True)
class Scored:
    """Predictions and what came true: labels `[n]` of 0 or 1, scores `[n]`, each row's window, the windows' names."""

    labels: Floats
    scores: Floats
    window: NDArray[np.intp]
    windows: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def both_classes(self) -> bool:
        return bool(len(self)) and 0 < self.labels.mean() < 1


def logloss(scored: Scored) -> Estimate:
    """Mean of −log p(label)."""
    p = np.clip(scored.scores, EPSILON, 1 - EPSILON)
    return clustered(-np.where(scored.labels == 1, np.log(p), np.log1p(-p)), scored.window)


def gap(scored: Scored) -> Estimate:
    """Calibration in the large: mean score less the share of positives."""
    return clustered(scored.scores - scored.labels, scored.window)


def auc(scored: Scored) -> Estimate:
    """Area under the ROC curve, variance by placement values (DeLong 1988), summed within windows (Obuchowski 1997).

    Raises ValueError when one class is missing.
    """
    from scipy.stats import rankdata

    positive = scored.labels == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if not n1 or not n0:
        raise ValueError(f"an AUC needs both classes; there are {n1} positives and {n0} negatives")
    ranks = rankdata(scored.scores)
    placement = np.empty(len(scored))
    placement[positive] = (ranks[positive] - rankdata(scored.scores[positive])) / n0
    placement[~positive] = 1 - (ranks[~positive] - rankdata(scored.scores[~positive])) / n1
    value = float(placement[positive].mean())
    influence = np.where(positive, (placement - value) / n1, (placement - value) / n0)
    return Estimate(value, *_error(influence, scored.window))


def clustered(values: Floats, window: NDArray[np.intp]) -> Estimate:
    """The rows' mean; its error is the larger of the rows' and the windows' (cluster-robust, Liang & Zeger 1986)."""
    mean = float(values.mean())
    return Estimate(mean, *_error((values - mean) / len(values), window))


def signals(rules: Performance, live: Scored, test: Mapping[str, Estimate]) -> list[Signal]:
    """`logloss`, `auc` and `calibration` of the live predictions; `test`: the first two on the test windows."""
    names = ("logloss", "auc", "calibration")
    if len(live) < rules.min_rows:
        said = f"{len(live)} predictions with due labels in {span(live.windows)}; {rules.min_rows} are needed"
        return [unknown(name, said, live.windows) for name in names]
    if not live.both_classes:
        said = f"the labels of {span(live.windows)} are all of one class"
        return [unknown(name, said, live.windows) for name in names]
    return [
        _worse(rules, "logloss", live, now=logloss(live), then=test["logloss"], sign=1, bound=rules.max_logloss_rise),
        _worse(rules, "auc", live, now=auc(live), then=test["auc"], sign=-1, bound=rules.max_auc_fall),
        _calibration(rules, live),
    ]


def compare_arms(a: Scored, b: Scored, confidence: float) -> dict[str, tuple[Estimate, tuple[float, float]]]:
    """Online comparison of two versions live at once: a − b in logloss and AUC, each with its interval."""
    found = {"logloss": logloss(a).minus(logloss(b)), "auc": auc(a).minus(auc(b))}
    return {name: (estimate, estimate.interval(confidence)) for name, estimate in found.items()}


def expected_auc(scores: Floats) -> float:
    """The AUC that calibrated scores promise without labels: P(p_i > p_j) over pairs weighted p_i(1 − p_j), ties half.

    Confidence-based performance estimation (CBPE, NannyML 2022). It rests on calibration and on P(label | features)
    being unchanged: concept drift with unchanged inputs is invisible to it.
    """
    value, index = np.unique(scores, return_inverse=True)
    positives = np.bincount(index, weights=scores, minlength=len(value))
    negatives = np.bincount(index, weights=1 - scores, minlength=len(value))
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")


def expected_logloss(scores: Floats) -> float:
    """The logloss that calibrated scores promise: the mean entropy in nats."""
    p = np.clip(scores, EPSILON, 1 - EPSILON)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def _worse(rules: Performance, name: str, live: Scored, *, now: Estimate, then: Estimate, sign: int,
           bound: float) -> Signal:  # fmt: skip
    worse = now.minus(then)
    low, high = sorted(sign * end for end in worse.interval(rules.confidence))
    value, direction = sign * worse.value, "above" if worse.value > 0 else "below"
    sentence = (
        f"{name} {now.value:.4f} on {len(live):,} predictions of {span(live.windows)}, {abs(worse.value):.4f} "
        f"{direction} the {then.value:.4f} of the test windows; worse by {low:.4f} to {high:.4f} "
        f"at {rules.confidence:.0%}, bound {bound:g}"
    )
    return rise(name, sentence, value, (low, high), bound=bound, windows=live.windows)


def _calibration(rules: Performance, live: Scored) -> Signal:
    found = gap(live)
    low, high = found.interval(rules.confidence)
    bound, size = rules.max_calibration_gap, (low, high) if found.value >= 0 else (-high, -low)
    sentence = (
        f"mean score {live.scores.mean():.3f} against {live.labels.mean():.3f} true on {len(live):,} predictions of "
        f"{span(live.windows)}; gap {low:.3f} to {high:.3f} at {rules.confidence:.0%}, bound {bound:g}"
    )
    return rise("calibration", sentence, abs(found.value), size, bound=bound, windows=live.windows)


def _error(influence: Floats, window: Sequence[int] | NDArray[np.intp]) -> tuple[float, int]:
    """Standard error of a sum of influences and its degrees of freedom: of rows, or of windows where that is larger."""
    n = len(influence)
    rows = float(np.sqrt((influence**2).sum() * n / max(1, n - 1)))
    sums = np.bincount(np.unique(window, return_inverse=True)[1], weights=influence)
    clusters = len(sums)
    if clusters < MIN_CLUSTERS:
        return rows, n - 1
    between = float(np.sqrt((sums**2).sum() * clusters / (clusters - 1)))
    return (between, clusters - 1) if between > rows else (rows, n - 1)
