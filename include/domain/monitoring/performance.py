"""Performance: how good the champion is on live traffic, with intervals that allow for rows of one window being alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.domain import statistics
from include.domain.bounds import SECTION, Confidence, NonNegativeFloat, PositiveInt, Share
from include.domain.metrics import CLIP
from include.domain.monitoring.signal import Signal, describe_windows, signal_from_interval, unknown

Floats = NDArray[np.float64]

#: Fewer windows than this do not show how windows differ; the standard error is then that of independent rows.
MIN_CLUSTERS = 3
#: Steps of Newton's method, which is at rest long before, and the ridge that keeps its matrix regular.
NEWTON_STEPS = 20
RIDGE = 1e-6


@dataclass(frozen=True)
class Performance:
    """The `watch.performance` section of a spec: the last `windows` with due labels, against the champion's test windows.

    The bounds say how much worse live traffic may be; a signal fires when the whole interval is worse than that. The tolerance
    lies in the bounds, so the confidence is moderate: to miss a stale model costs more than to train once too often.
    """

    __pydantic_config__ = SECTION
    windows: PositiveInt = 7
    min_rows: PositiveInt = 500
    max_logloss_rise: NonNegativeFloat = 0.02
    max_auc_fall: Share = 0.02
    max_calibration_gap: Share = 0.05
    confidence: Confidence = 0.8


@dataclass(frozen=True)
class MetricWithError:
    """A metric with its standard error and the degrees of freedom of that."""

    value: float
    standard_error: float
    degrees_of_freedom: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the ends of the two-sided interval by Student's t."""
        freedom = max(1, self.degrees_of_freedom)
        return statistics.student_interval(self.value, self.standard_error, freedom, confidence)

    def minus(self, other: "MetricWithError") -> "MetricWithError":
        """Return the difference of two independent estimates, its degrees of freedom by Welch (1947) and Satterthwaite."""
        a, b = self.standard_error**2, other.standard_error**2
        parts = a**2 / max(1, self.degrees_of_freedom) + b**2 / max(1, other.degrees_of_freedom)
        freedom = int((a + b) ** 2 / parts) if parts else self.degrees_of_freedom
        return MetricWithError(self.value - other.value, float(np.sqrt(a + b)), freedom)


@dataclass(frozen=True)
class LabelledScores:
    """Predictions with their outcomes: labels `[n]` of 0 or 1, scores `[n]`, and each row's index `window` `[n]` into `windows`.

    `windows` are the labels of the windows.
    """

    labels: Floats
    scores: Floats
    window: NDArray[np.intp]
    windows: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def in_window(self, label: str) -> "LabelledScores":
        """Return the rows of one window; none where there is no window of that label."""
        rows = self.window == (self.windows.index(label) if label in self.windows else -1)
        return LabelledScores(self.labels[rows], self.scores[rows], self.window[rows], (label,))

    @property
    def both_classes(self) -> bool:
        """Return whether there are positives and negatives."""
        return bool(len(self)) and 0 < self.labels.mean() < 1


def logloss(rows: LabelledScores) -> MetricWithError:
    """Return the mean binary cross-entropy in nats."""
    return metric_with_error(statistics.logloss(rows.labels, rows.scores), rows.window)


def auc(rows: LabelledScores) -> MetricWithError:
    """Return the area under the ROC curve. Raises ValueError when one class is missing."""
    return metric_with_error(statistics.auc(rows.labels, rows.scores), rows.window)


def label_rate(rows: LabelledScores) -> MetricWithError:
    """Return the share of positives."""
    return metric_with_error(statistics.mean(rows.labels), rows.window)


def metric_with_error(estimate: statistics.Estimate, window: NDArray[np.intp]) -> MetricWithError:
    """Return the estimate with the larger of two standard errors.

    One takes rows as independent, the other takes rows of one window (index `window` `[n]`) as dependent; it is left out where
    there are fewer than `MIN_CLUSTERS` windows.
    """
    of_rows = estimate.standard_error()
    of_windows = estimate.standard_error(window) if len(np.unique(window)) >= MIN_CLUSTERS else of_rows
    return MetricWithError(estimate.value, *max(of_rows, of_windows))


def signals(rules: Performance, live: LabelledScores, test: Mapping[str, MetricWithError]) -> list[Signal]:
    """Return the signals `logloss`, `auc` and `calibration` of the live predictions.

    `test` has the logloss and the AUC of the champion's test windows, by name.
    """
    names = ("logloss", "auc", "calibration")
    if len(live) < rules.min_rows:
        reason = (
            f"{len(live)} predictions with due labels in {describe_windows(live.windows)}; {rules.min_rows} are needed"
        )
        return [unknown(name, reason, live.windows) for name in names]
    if not live.both_classes:
        reason = f"the labels of {describe_windows(live.windows)} are all of one class"
        return [unknown(name, reason, live.windows) for name in names]
    return [
        _degradation(rules, "logloss", live, logloss(live), test["logloss"], sign=1, bound=rules.max_logloss_rise),
        _degradation(rules, "auc", live, auc(live), test["auc"], sign=-1, bound=rules.max_auc_fall),
        _calibration(rules, live),
    ]


def compare_variants(a: LabelledScores, b: LabelledScores) -> dict[str, MetricWithError]:
    """Return logloss and AUC of a less those of b, for versions that answered different requests in the same windows.

    The influence of a row on the difference is that on the metric of its own variant, negative for b. What a window does to
    both variants alike cancels in the window's sum. Raises ValueError when a variant lacks one class.
    """
    numbers = {label: i for i, label in enumerate(dict.fromkeys((*a.windows, *b.windows)))}
    windows = [np.array([numbers[label] for label in rows.windows], np.intp)[rows.window] for rows in (a, b)]
    differences = {}
    for name, metric in (("logloss", statistics.logloss), ("auc", statistics.auc)):
        of_a, of_b = (metric(rows.labels, rows.scores) for rows in (a, b))
        influence = np.concatenate([of_a.influence, -of_b.influence])
        estimate = statistics.Estimate(of_a.value - of_b.value, influence)
        differences[name] = metric_with_error(estimate, np.concatenate(windows))
    return differences


def expected_auc(scores: Floats) -> float:
    """Return the AUC that calibrated scores `[n]` promise without labels, or NaN where all are 0 or all are 1.

    It is P(p_i > p_j) over pairs weighted by p_i(1 − p_j), ties counting half: confidence-based performance estimation (CBPE,
    NannyML 2022). It holds as long as the scores are calibrated and P(label | features) does not change: concept drift with
    unchanged inputs is invisible to it.
    """
    value, index = np.unique(scores, return_inverse=True)
    positives = np.bincount(index, weights=scores, minlength=len(value))
    negatives = np.bincount(index, weights=1 - scores, minlength=len(value))
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")


def expected_logloss(scores: Floats) -> float:
    """Return the logloss that calibrated scores `[n]` promise without labels: their mean entropy in nats."""
    p = np.clip(scores, CLIP, 1 - CLIP)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def platt_scaling(test: LabelledScores) -> Callable[[Floats], Floats]:
    """Return the function p → σ(a·logit p + b) that calibrates scores, fitted to the test windows (Platt 1999).

    It is fitted by Newton's method on the logloss.
    """
    x = _logit(test.scores)
    design, weights = np.column_stack([x, np.ones_like(x)]), np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(design @ weights)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + RIDGE * np.eye(2)
        weights = weights + np.linalg.solve(hessian, design.T @ (test.labels - p))
    return lambda scores: _sigmoid(weights[0] * _logit(scores) + weights[1])


def estimated_auc(
    rules: Performance, scores: Floats, window: NDArray[np.intp], windows: tuple[str, ...], test: MetricWithError
) -> Signal:
    """Return the signal `estimated_auc`: the AUC that calibrated scores `[n]` promise, against the AUC of the test windows.

    Its standard error is the jackknife's, leaving out the windows (index `window` `[n]` into `windows`) one by one.
    """
    count = len(windows)
    if len(scores) < rules.min_rows or count < MIN_CLUSTERS:
        reason = f"{len(scores)} predictions in {count} windows; {rules.min_rows} in {MIN_CLUSTERS} are needed"
        return unknown("estimated_auc", reason, windows)
    value = expected_auc(scores)
    without = np.array([expected_auc(scores[window != i]) for i in range(count)])
    error = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    fall = test.minus(MetricWithError(value, error, count - 1))
    lower, upper = fall.interval(rules.confidence)
    bound = rules.max_auc_fall
    sentence = (
        f"estimated AUC {value:.4f} without labels on {len(scores):,} predictions of {describe_windows(windows)}, "
        f"{test.value:.4f} in the test windows; a fall of {lower:.4f} to {upper:.4f} at {rules.confidence:.0%}, "
        f"bound {bound:g}"
    )
    return signal_from_interval("estimated_auc", sentence, fall.value, (lower, upper), bound=bound, windows=windows)


def _degradation(
    rules: Performance,
    name: str,
    live: LabelledScores,
    now: MetricWithError,
    then: MetricWithError,
    *,
    sign: int,
    bound: float,
) -> Signal:
    """Return the signal of how much worse a metric is now; `sign` is 1 where a larger metric is worse, else −1."""
    difference = now.minus(then)
    lower, upper = sorted(sign * end for end in difference.interval(rules.confidence))
    direction = "above" if difference.value > 0 else "below"
    sentence = (
        f"{name} {now.value:.4f} on {len(live):,} predictions of {describe_windows(live.windows)}, "
        f"{abs(difference.value):.4f} {direction} the {then.value:.4f} of the test windows; "
        f"worse by {lower:.4f} to {upper:.4f} at {rules.confidence:.0%}, bound {bound:g}"
    )
    value = sign * difference.value
    return signal_from_interval(name, sentence, value, (lower, upper), bound=bound, windows=live.windows)


def _calibration(rules: Performance, live: LabelledScores) -> Signal:
    gap = metric_with_error(statistics.mean(live.scores - live.labels), live.window)
    lower, upper = gap.interval(rules.confidence)
    bound, size = rules.max_calibration_gap, (lower, upper) if gap.value >= 0 else (-upper, -lower)
    sentence = (
        f"mean score {live.scores.mean():.3f} against {live.labels.mean():.3f} true on {len(live):,} predictions of "
        f"{describe_windows(live.windows)}; gap {lower:.3f} to {upper:.3f} at {rules.confidence:.0%}, bound {bound:g}"
    )
    return signal_from_interval("calibration", sentence, abs(gap.value), size, bound=bound, windows=live.windows)


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))
