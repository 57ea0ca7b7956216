"""Quality: whether the input itself is sound. A fault here is mended at its source, and never trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Confidence, Range, Share
from include.domain.monitoring.performance import MetricWithError
from include.domain.monitoring.signal import Signal, describe_windows, fire_or_warn, signal_from_interval, unknown
from include.domain.monitoring.sketch import Sketches
from include.domain.statistics import normal_quantile

#: Empty windows that a sentence names.
NAMED_WINDOWS = 5


@dataclass(frozen=True)
class Quality:
    """The `watch.quality` section of a spec; a rise is that of a share, against the reference windows.

    `max_missing_rise` bounds the share of rows without a value in a feature, `max_unseen_rise` that of rows with a value which
    training never saw. `volume` bounds the rows of a window divided by the median of the reference windows of its season.
    `max_skew` bounds the share of rows that were served another value than the table holds.
    """

    __pydantic_config__ = SECTION
    max_missing_rise: Share = 0.1
    max_unseen_rise: Share = 0.5
    volume: Range = (0.2, 5.0)
    max_label_rate_change: Share = 0.1
    max_skew: Share = 0.01
    confidence: Confidence = 0.99


def missing(rules: Quality, reference: Sequence[Sketches], window: Sketches, label: str) -> Signal:
    """Return the signal `missing`: the share of rows without a value, in the feature where it rose most."""
    usual = [{f: s.missing_share for f, s in w.items()} for w in reference]
    now = {f: (s.missing_share, s.rows) for f, s in window.items()}
    return _largest_rise(rules, "missing", usual, now, bound=rules.max_missing_rise, label=label)


def unseen(rules: Quality, reference: Sequence[Sketches], window: Sketches, label: str) -> Signal:
    """Return the signal `unseen`: the share of rows with a category that training never saw, where it rose most."""
    usual = [{f: s.unknown_share for f, s in w.items() if not s.numeric} for w in reference]
    now = {f: (s.unknown_share, s.rows) for f, s in window.items() if not s.numeric}
    return _largest_rise(rules, "unseen", usual, now, bound=rules.max_unseen_rise, label=label)


def volume(
    rules: Quality, reference_rows: Sequence[int], rows: int, label: str, empty_windows: Sequence[str] = ()
) -> Signal:
    """Return the signal `volume`: the rows of the window divided by the median of the reference windows of its season.

    It fires when the whole interval of the ratio lies outside of the bounds, and warns when the ratio alone does, or when
    recent windows are empty. The interval is log-normal, from the spread of the reference windows.
    """
    if not reference_rows:
        return unknown("volume", "no reference window to count against", (label,))
    median = float(np.median(reference_rows))
    ratio = rows / median
    logs = np.log(np.maximum(reference_rows, 1))
    spread = float(np.std(logs, ddof=1)) if len(reference_rows) > 1 else 0.0
    half = normal_quantile((1 + rules.confidence) / 2) * max(spread, 1 / np.sqrt(max(rows, 1)))
    lower, upper = ratio * float(np.exp(-half)), ratio * float(np.exp(half))
    least, most = rules.volume
    outside = not least <= ratio <= most
    certain = not (lower < least < upper or lower < most < upper)
    state = fire_or_warn(fire=outside and certain, warn=outside or bool(empty_windows))
    sentence = (
        f"{rows:,} rows in {label}, {ratio:.2f} of the {median:,.0f} usual; "
        f"bounds {least:g} to {most:g}{_empty_windows(empty_windows)}"
    )
    return Signal("volume", state, sentence, ratio, least if ratio < 1 else most, (lower, upper), (label,))


def label_rate(rules: Quality, live: MetricWithError, reference: MetricWithError, windows: tuple[str, ...]) -> Signal:
    """Return the signal `label_rate`: the share of positives among the due labels, against that of the test windows."""
    change = live.minus(reference)
    lower, upper = change.interval(rules.confidence)
    size = (lower, upper) if change.value >= 0 else (-upper, -lower)
    bound = rules.max_label_rate_change
    sentence = (
        f"{live.value:.1%} positive in {describe_windows(windows)}, "
        f"{change.value:+.1%} against the reference's {reference.value:.1%}; "
        f"{lower:+.1%} to {upper:+.1%} at {rules.confidence:.0%}, bound {bound:.0%}"
    )
    return signal_from_interval("label_rate", sentence, abs(change.value), size, bound=bound, windows=windows)


def skew(rules: Quality, differing: Mapping[str, int], rows: int, windows: tuple[str, ...]) -> Signal:
    """Return the signal `skew` between training and serving, of the feature that differs most often.

    `differing` has for each feature how many of the `rows` were served another value than the table holds.
    """
    if not rows or not differing:
        return unknown("skew", f"no served row of {describe_windows(windows)} is in the table yet", windows)
    worst = max(differing, key=lambda f: differing[f])
    share = differing[worst] / rows
    lower, upper = wilson_interval(differing[worst], rows, rules.confidence)
    bound = rules.max_skew
    sentence = (
        f"{worst} differs between server and table in {share:.2%} of {rows:,} rows; "
        f"{lower:.2%} to {upper:.2%} at {rules.confidence:.0%}, bound {bound:.2%}"
    )
    return signal_from_interval("skew", sentence, share, (lower, upper), bound=bound, windows=windows)


def wilson_interval(hits: int, rows: int, confidence: float) -> tuple[float, float]:
    """Return the ends of the two-sided score interval of the share `hits` / `rows` (Wilson 1927)."""
    z = normal_quantile((1 + confidence) / 2)
    p, shrink = hits / rows, 1 + z * z / rows
    middle = (p + z * z / (2 * rows)) / shrink
    half = z * float(np.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows))) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def _empty_windows(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    more = f" and {len(labels) - NAMED_WINDOWS} more" if len(labels) > NAMED_WINDOWS else ""
    return f"; without any row: {', '.join(labels[:NAMED_WINDOWS])}{more}"


def _largest_rise(
    rules: Quality,
    name: str,
    reference: Sequence[Mapping[str, float]],
    window: Mapping[str, tuple[float, int]],
    *,
    bound: float,
    label: str,
) -> Signal:
    """Return the signal of the feature whose share rose most, of those that certainly passed the bound if there are any.

    `reference` has each window's share by feature, `window` the share and the rows now. The error rate is divided among the
    features (Bonferroni).
    """
    if not window or not reference:
        return unknown(name, "no feature to compare" if reference else "the reference windows are missing", (label,))
    z = normal_quantile(1 - (1 - rules.confidence) / (2 * len(window)))
    rises = []
    for feature, (share, rows) in window.items():
        usual = np.array([w[feature] for w in reference])
        rises.append((share - float(usual.mean()), z * _standard_error(usual, share, rows), share, feature))
    rise, half, share, worst = max(rises, key=lambda r: (r[0] - r[1] > bound, r[0]))
    kind = "without a value" if name == "missing" else "with a value that training never saw"
    sentence = (
        f"{share:.1%} of {label}'s rows {kind} in {worst}, a rise of {rise:.1%} "
        f"({rise - half:.1%} to {rise + half:.1%} at {rules.confidence:.0%}), bound {bound:.0%}"
    )
    return signal_from_interval(name, sentence, rise, (rise - half, rise + half), bound=bound, windows=(label,))


def _standard_error(usual: NDArray[np.float64], share: float, rows: int) -> float:
    """Return the standard error of one more window's share: the larger of the windows' spread and the rows' own noise."""
    between = float(usual.std(ddof=1)) if len(usual) > 1 else 0.0
    return max(between, float(np.sqrt(share * (1 - share) / max(rows, 1))))
