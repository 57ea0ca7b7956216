"""How good the champion is on live traffic, with intervals that know that rows of one window resemble each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.domain import statistics
from include.domain.bounds import SECTION, Confidence, NonNegativeFloat, PositiveInt, Share
from include.domain.metrics import CLIP
from include.domain.monitoring.signal import Signal, rise, span, unknown

Floats = NDArray[np.float64]

#: Fewer windows than this say nothing about how windows differ; the interval then rests on rows alone.
MIN_CLUSTERS = 3


@dataclass(frozen=True)
class Performance:
    """The `watch.performance` section: the last `windows` with labels due, against the champion's test windows.

    The bounds are how much worse live may be; a signal fires when the whole interval is worse than that. The tolerance lies
    in the bounds, so the confidence is moderate: to miss a stale model costs more than to train once too often.
    """

    __pydantic_config__ = SECTION
    windows: PositiveInt = 7
    min_rows: PositiveInt = 500
    max_logloss_rise: NonNegativeFloat = 0.02
    max_auc_fall: Share = 0.02
    max_calibration_gap: Share = 0.05
    confidence: Confidence = 0.8


@dataclass(frozen=True)
class Measured:
    """A metric and its standard error with so many degrees of freedom."""

    value: float
    error: float
    freedom: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's two-sided interval."""
        from scipy.special import stdtrit

        half = float(stdtrit(max(1, self.freedom), (1 + confidence) / 2)) * self.error
        return self.value - half, self.value + half

    def minus(self, other: "Measured") -> "Measured":
        """The difference; Welch and Satterthwaite's degrees of freedom."""
        a, b = self.error**2, other.error**2
        parts = a**2 / max(1, self.freedom) + b**2 / max(1, other.freedom)
        freedom = int((a + b) ** 2 / parts) if parts else self.freedom
        return Measured(self.value - other.value, float(np.sqrt(a + b)), freedom)


@dataclass(frozen=True)
class Scored:
    """Predictions and what came true: labels `[n]` of 0 or 1, scores `[n]`, each row's window, the windows' names."""

    labels: Floats
    scores: Floats
    window: NDArray[np.intp]
    windows: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, name: str) -> "Scored":
        """The rows of one window."""
        rows = self.window == (self.windows.index(name) if name in self.windows else -1)
        return Scored(self.labels[rows], self.scores[rows], self.window[rows], (name,))

    @property
    def both_classes(self) -> bool:
        return bool(len(self)) and 0 < self.labels.mean() < 1


def logloss(scored: Scored) -> Measured:
    return measured(statistics.logloss(scored.labels, scored.scores), scored.window)


def auc(scored: Scored) -> Measured:
    """Raises ValueError when one class is missing."""
    return measured(statistics.auc(scored.labels, scored.scores), scored.window)


def label_rate(scored: Scored) -> Measured:
    return measured(statistics.mean(scored.labels), scored.window)


def measured(estimate: statistics.Estimate, window: NDArray[np.intp]) -> Measured:
    """With the larger of two errors: the rows' own, and the windows' where there are `MIN_CLUSTERS` of them."""
    rows = estimate.standard_error()
    windows = estimate.standard_error(window) if len(np.unique(window)) >= MIN_CLUSTERS else rows
    return Measured(estimate.value, *max(rows, windows))


def signals(rules: Performance, live: Scored, test: Mapping[str, Measured]) -> list[Signal]:
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


def compare_arms(a: Scored, b: Scored) -> dict[str, Measured]:
    """Two versions live in the same windows on different rows, as drawn by the gateway: a − b in logloss and AUC.

    A row's influence on the difference is that on its own arm's metric, with the arm's sign; what a window does to both
    arms alike cancels in its sum. Raises ValueError when an arm lacks one class.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys((*a.windows, *b.windows)))}
    window = np.concatenate([np.array([names[n] for n in arm.windows], np.intp)[arm.window] for arm in (a, b)])
    found = {}
    for name, metric in (("logloss", statistics.logloss), ("auc", statistics.auc)):
        ours, theirs = (metric(arm.labels, arm.scores) for arm in (a, b))
        influence = np.concatenate([ours.influence, -theirs.influence])
        found[name] = measured(statistics.Estimate(ours.value - theirs.value, influence), window)
    return found


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
    p = np.clip(scores, CLIP, 1 - CLIP)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def calibration(test: Scored) -> Callable[[Floats], Floats]:
    """Platt's scaling (1999), p → σ(a·logit p + b) fitted to the test windows by Newton's method, as a function."""
    x = _logit(test.scores)
    design, weights = np.column_stack([x, np.ones_like(x)]), np.array([1.0, 0.0])
    for _ in range(20):
        p = _sigmoid(design @ weights)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        weights = weights + np.linalg.solve(hessian, design.T @ (test.labels - p))
    return lambda scores: _sigmoid(weights[0] * _logit(scores) + weights[1])


def estimated(rules: Performance, scores: Floats, window: NDArray[np.intp], windows: tuple[str, ...],
              test: Measured) -> Signal:  # fmt: skip
    """`estimated_auc`: what calibrated scores `[n]` promise against the test's AUC; windows left out one by one (jackknife)."""
    count = len(windows)
    if len(scores) < rules.min_rows or count < MIN_CLUSTERS:
        said = f"{len(scores)} predictions in {count} windows; {rules.min_rows} in {MIN_CLUSTERS} are needed"
        return unknown("estimated_auc", said, windows)
    value = expected_auc(scores)
    without = np.array([expected_auc(scores[window != i]) for i in range(count)])
    error = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    fall = test.minus(Measured(value, error, count - 1))
    low, high = fall.interval(rules.confidence)
    sentence = (
        f"estimated AUC {value:.4f} without labels on {len(scores):,} predictions of {span(windows)}, {test.value:.4f} in "
        f"the test windows; a fall of {low:.4f} to {high:.4f} at {rules.confidence:.0%}, bound {rules.max_auc_fall:g}"
    )
    return rise("estimated_auc", sentence, fall.value, (low, high), bound=rules.max_auc_fall, windows=windows)


def _worse(rules: Performance, name: str, live: Scored, *, now: Measured, then: Measured, sign: int,
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
    found = measured(statistics.mean(live.scores - live.labels), live.window)
    low, high = found.interval(rules.confidence)
    bound, size = rules.max_calibration_gap, (low, high) if found.value >= 0 else (-high, -low)
    sentence = (
        f"mean score {live.scores.mean():.3f} against {live.labels.mean():.3f} true on {len(live):,} predictions of "
        f"{span(live.windows)}; gap {low:.3f} to {high:.3f} at {rules.confidence:.0%}, bound {bound:g}"
    )
    return rise("calibration", sentence, abs(found.value), size, bound=bound, windows=live.windows)


def _logit(p: Floats) -> Floats:
    kept = np.clip(p, CLIP, 1 - CLIP)
    return np.log(kept) - np.log1p(-kept)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))
