"""The pictures of the watch's page as SVG text: series over windows, a heat map, histograms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.monitoring.drift import FeatureDrift
from include.domain.monitoring.sketch import Sketch
from include.stages.monitoring.online_comparison import Interval

WIDTH, HEIGHT, LEFT, RIGHT, FOOT = 1000, 180, 130, 10, 22
CELL, BARS, BAR, TALL = 15, 24, 8, 76
LETTER = 6.2  #: a letter of a feature's name, in pixels
#: Okabe and Ito's colours, told apart by people who see few.
BLUE, ORANGE, RED, GREY = "#0072b2", "#d55e00", "#b3261e", "#8a8a8a"


@dataclass(frozen=True)
class Mark:
    """An event on the time axis: `strong` is a line through the whole picture, else a tick at its foot."""

    window: str
    title: str
    colour: str
    strong: bool = False


def series(
    name: str, windows: Sequence[str], values: Mapping[str, Interval | None], *, level: float | None = None,
    beside: Mapping[str, float | None] | None = None, legend: str = "", marks: Sequence[Mark] = (),
) -> str:  # fmt: skip
    """Dots with intervals over the windows, a dashed `level`, rings for what is shown `beside`, and marks."""
    rings = {w: v for w, v in (beside or {}).items() if v is not None}
    known = [v for interval in values.values() if interval for v in interval]
    known += [*rings.values(), *([] if level is None else [level])]
    low, high = _padded(known)

    def x(window: str) -> float:
        return LEFT + (windows.index(window) + 0.5) * (WIDTH - LEFT - RIGHT) / len(windows)

    def y(value: float) -> float:
        return 14 + (HEIGHT - FOOT - 20) * (1 - (value - low) / (high - low))

    body = [_text(4, 14, name, bold=True), _text(WIDTH - RIGHT, 10, legend, ORANGE, end=True), *_dates(windows, x)]
    for value in np.linspace(low, high, 4):
        body += [
            _line(LEFT, y(value), WIDTH - RIGHT, y(value), "#eee"),
            _text(LEFT - 6, y(value) + 4, f"{value:.3f}", end=True),
        ]
    if level is not None:
        body += [
            _line(LEFT, y(level), WIDTH - RIGHT, y(level), GREY, dash=True),
            _text(4, y(level) + 4, f"test {level:.3f}", GREY),
        ]
    body += [_mark(mark, x(mark.window)) for mark in marks if mark.window in windows]
    body += [_ring(x(w), y(v), f"{w}: {v:.4f} {legend}") for w, v in rings.items()]
    for window, interval in values.items():
        if interval:
            value, low_end, high_end = interval
            title = f"{window}: {value:.4f} ({low_end:.4f} to {high_end:.4f})"
            body += [
                _line(x(window), y(low_end), x(window), y(high_end), BLUE, title=title),
                _dot(x(window), y(value), title),
            ]
    return _svg(WIDTH, HEIGHT, body)


def heat_map(moved: Mapping[str, Sequence[FeatureDrift]], strongest: float) -> str:
    """Features × windows, the furthest feature first; an effect of `strongest` is darkest, drift is red and the rest grey."""
    windows = list(moved)
    by_window = {w: {m.feature: m for m in found} for w, found in moved.items()}
    peak: dict[str, float] = {}
    for found in moved.values():
        for m in found:
            peak[m.feature] = max(peak.get(m.feature, 0.0), m.effect)
    features = sorted(peak, key=lambda f: -peak[f])
    left = LETTER * max(map(len, features), default=0) + 12
    wide = min(CELL, (WIDTH - left - RIGHT) / max(1, len(windows)))
    body = [_text(left - 6, (r + 1) * CELL - 4, feature, end=True) for r, feature in enumerate(features)]
    for c, window in enumerate(windows):
        for r, feature in enumerate(features):
            if feature in by_window[window]:
                body.append(_cell(by_window[window][feature], window, (left + c * wide, r * CELL, wide), strongest))
    height = CELL * len(features) + FOOT
    body += _dates(windows, lambda w: left + (windows.index(w) + 0.5) * wide, height, least=int(90 / wide))
    return _svg(left + wide * len(windows) + 60, height, body)


def histogram(then: Sketch, now: Sketch, names: Sequence[str], *, ends: tuple[str, str]) -> str:
    """Both as shares of the same bars, grey and outlined: first the missing, then a number's bins pooled or a category's
    commonest values. `names` `[bins]` are said when hovered; `ends` of the axis."""
    bars = _bars(then)
    shares = [np.bincount(bars, weights=s.counts, minlength=BARS + 1) / max(1, s.rows) for s in (then, now)]
    top, body = max(s.max() for s in shares) or 1.0, []
    for i in range(BARS + 1):
        inside = [names[int(b)] for b in np.flatnonzero(bars == i)]
        named = "nothing" if not inside else inside[0] if len(inside) == 1 else f"{inside[0]} … {inside[-1]}"
        title = f"{named}: {shares[0][i]:.1%} in training, {shares[1][i]:.1%} now"
        left = i * BAR + (6 if i else 0)
        for share, look in (
            (shares[0][i], 'fill="#c9c9c9"'),
            (shares[1][i], f'fill="none" stroke="{BLUE}" stroke-width="1.4"'),
        ):
            high = TALL * share / top
            body.append(_rect(left, TALL - high + 2, BAR - 1, high, look, title))
    body += [
        _text(0, TALL + 14, "∅"),
        _text(BAR + 6, TALL + 14, ends[0]),
        _text(BAR * (BARS + 1) + 6, TALL + 14, ends[1], end=True),
    ]
    return _svg(BAR * (BARS + 1) + 8, TALL + 18, body)


def _bars(reference: Sketch) -> NDArray[np.intp]:
    """Bins → bars, 0 for missing."""
    count = len(reference.counts)
    bars = np.zeros(count, dtype=np.intp)
    if reference.numeric:
        bars[1:] = 1 + np.arange(count - 1) * BARS // max(1, count - 1)
    else:
        order = np.argsort(-reference.counts[1:], kind="stable")
        bars[1 + order] = 1 + np.minimum(np.arange(count - 1), BARS - 1)
    return bars


def _cell(moved: FeatureDrift, window: str, place: tuple[float, float, float], strongest: float) -> str:
    x, y, wide = place
    depth = min(1.0, moved.effect / strongest)
    look = f'fill="{RED if moved.drifted else GREY}" fill-opacity="{0.1 + 0.9 * depth:.2f}"'
    title = f"{moved.feature}, {window}: effect {moved.effect:.3f}, PSI {moved.psi:.3f}, p {moved.p_value:.2g}"
    return _rect(x, y + 1, wide - 2, CELL - 3, look, title)


def _padded(known: Sequence[float]) -> tuple[float, float]:
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    edge = 0.05 * (high - low) or 0.01
    return low - edge, high + edge


def _dates(windows: Sequence[str], x: Any, height: float = HEIGHT, least: int = 1) -> list[str]:
    """At most ten labels, `least` windows apart."""
    step = max(least, -(-len(windows) // 10))
    return [_text(x(w), height - 5, w, middle=True) for w in windows[step // 2 :: step]]


def _mark(mark: Mark, x: float) -> str:
    top = 10 if mark.strong else HEIGHT - FOOT - 8
    return _line(x, top, x, HEIGHT - FOOT, mark.colour, title=mark.title, wide=2.5)


def _svg(width: float, height: float, body: Iterable[str]) -> str:
    return f'<svg width="{width:.0f}" height="{height:.0f}" role="img">{"".join(body)}</svg>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, *, dash: bool = False, title: str = "",
          wide: float = 1.2) -> str:  # fmt: skip
    style = f'stroke="{colour}" stroke-width="{wide}"' + (' stroke-dasharray="4 3"' if dash else "")
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" {style}><title>{escape(title)}</title></line>'
    )


def _dot(x: float, y: float, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{BLUE}"><title>{escape(title)}</title></circle>'


def _ring(x: float, y: float, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="none" stroke="{ORANGE}"><title>{escape(title)}</title></circle>'


def _rect(x: float, y: float, width: float, height: float, look: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(0.0, height):.1f}"'
    return f"<rect {place} {look}><title>{escape(title)}</title></rect>"


def _text(x: float, y: float, text: str, colour: str = "#333", *, end: bool = False, middle: bool = False,
          bold: bool = False) -> str:  # fmt: skip
    anchor = "end" if end else "middle" if middle else "start"
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
