"""Is the input itself sound? A fault here is mended at its source, and never trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Confidence, Range, Share
from include.domain.monitoring.performance import Measured
from include.domain.monitoring.signal import Signal, State, rise, span, unknown
from include.domain.monitoring.sketch import Sketches


@dataclass(frozen=True)
class Quality:
    """The `watch.quality` section of a spec; rises are of shares, against the reference windows.

    `max_missing_rise` and `max_unseen_rise`: of rows without a value, or with one training never saw, in a feature.
    `volume`: rows of a window over the median of its like. `max_skew`: share of rows served another value than the
    table holds.
    """

    __pydantic_config__ = SECTION
    max_missing_rise: Share = 0.1
    max_unseen_rise: Share = 0.5
    volume: Range = (0.2, 5.0)
    max_label_rate_change: Share = 0.1
    max_skew: Share = 0.01
    confidence: Confidence = 0.99


def missing(rules: Quality, reference: Sequence[Sketches], window: Sketches, label: str) -> Signal:
    """Rows without a value, worst feature first."""
    usual = [{f: s.missing for f, s in w.items()} for w in reference]
    now = {f: (s.missing, s.rows) for f, s in window.items()}
    return _shares(rules, "missing", usual, now, bound=rules.max_missing_rise, label=label)


def unseen(rules: Quality, reference: Sequence[Sketches], window: Sketches, label: str) -> Signal:
    """Rows with a category that training never saw, worst feature first."""
    usual = [{f: s.unknown for f, s in w.items() if not s.numeric} for w in reference]
    now = {f: (s.unknown, s.rows) for f, s in window.items() if not s.numeric}
    return _shares(rules, "unseen", usual, now, bound=rules.max_unseen_rise, label=label)


def volume(rules: Quality, like: Sequence[int], rows: int, label: str, gaps: Sequence[str] = ()) -> Signal:
    """`like`: rows of the reference windows of the same season; `gaps`: recent windows that hold no row."""
    if not like:
        return unknown("volume", "no reference window to count against", (label,))
    median = float(np.median(like))
    ratio = rows / median
    spread = float(np.std(np.log(np.maximum(like, 1)), ddof=1)) if len(like) > 1 else 0.0
    half = _quantile((1 + rules.confidence) / 2) * max(spread, 1 / np.sqrt(max(rows, 1)))
    low, high = ratio * float(np.exp(-half)), ratio * float(np.exp(half))
    least, most = rules.volume
    outside = not least <= ratio <= most
    state = State.FIRE if outside and not (low < least < high or low < most < high) else State.OK
    if state is State.OK and (outside or gaps):
        state = State.WARN
    more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
    empty = f"; without any row: {', '.join(gaps[:5])}{more}" if gaps else ""
    sentence = f"{rows:,} rows in {label}, {ratio:.2f} of the {median:,.0f} usual; bounds {least:g} to {most:g}{empty}"
    return Signal("volume", state, sentence, ratio, least if ratio < 1 else most, (low, high), (label,))


def label_rate(rules: Quality, live: Measured, reference: Measured, windows: tuple[str, ...]) -> Signal:
    """Share of positives among the labels that are due, against the reference windows'."""
    change = live.minus(reference)
    low, high = change.interval(rules.confidence)
    size = (low, high) if change.value >= 0 else (-high, -low)
    sentence = (
        f"{live.value:.1%} positive in {span(windows)}, "
        f"{change.value:+.1%} against the reference's {reference.value:.1%}; "
        f"{low:+.1%} to {high:+.1%} at {rules.confidence:.0%}, bound {rules.max_label_rate_change:.0%}"
    )
    return rise("label_rate", sentence, abs(change.value), size, bound=rules.max_label_rate_change, windows=windows)


def skew(rules: Quality, differing: Mapping[str, int], rows: int, windows: tuple[str, ...]) -> Signal:
    """`differing`: per feature, how many of the `rows` were served another value than the table holds."""
    if not rows or not differing:
        return unknown("skew", f"no served row of {span(windows)} is in the table yet", windows)
    worst = max(differing, key=lambda f: differing[f])
    share = differing[worst] / rows
    low, high = wilson(differing[worst], rows, rules.confidence)
    bound = rules.max_skew
    sentence = (
        f"{worst} differs between server and table in {share:.2%} of {rows:,} rows; "
        f"{low:.2%} to {high:.2%} at {rules.confidence:.0%}, bound {bound:.2%}"
    )
    return rise("skew", sentence, share, (low, high), bound=bound, windows=windows)


def wilson(hits: int, rows: int, confidence: float) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927)."""
    z = _quantile((1 + confidence) / 2)
    p, shrink = hits / rows, 1 + z * z / rows
    middle = (p + z * z / (2 * rows)) / shrink
    half = z * float(np.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows))) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def _shares(rules: Quality, name: str, reference: Sequence[Mapping[str, float]],
            window: Mapping[str, tuple[float, int]], *, bound: float, label: str) -> Signal:  # fmt: skip
    """The feature whose share rose most, of those that surely passed the bound if any did; confidence is split over the
    features (Bonferroni)."""
    if not window or not reference:
        return unknown(name, "no feature to compare" if reference else "the reference windows are missing", (label,))
    z = _quantile(1 - (1 - rules.confidence) / (2 * len(window)))
    found = []
    for feature, (share, rows) in window.items():
        usual = np.array([w[feature] for w in reference])
        error = _error(usual, share, rows)
        found.append((share - float(usual.mean()), z * error, share, feature))
    change, half, share, worst = max(found, key=lambda f: (f[0] - f[1] > bound, f[0]))
    kind = "without a value" if name == "missing" else "with a value that training never saw"
    sentence = (
        f"{share:.1%} of {label}'s rows {kind} in {worst}, a rise of {change:.1%} "
        f"({change - half:.1%} to {change + half:.1%} at {rules.confidence:.0%}), bound {bound:.0%}"
    )
    return rise(name, sentence, change, (change - half, change + half), bound=bound, windows=(label,))


def _error(usual: NDArray[np.float64], share: float, rows: int) -> float:
    """Of one more window's share: how the reference windows differ, or the rows' own noise where that is larger."""
    between = float(usual.std(ddof=1)) if len(usual) > 1 else 0.0
    return max(between, float(np.sqrt(share * (1 - share) / max(rows, 1))))


def _quantile(p: float) -> float:
    """Of the standard normal."""
    from scipy.special import ndtri

    return float(ndtri(p))
