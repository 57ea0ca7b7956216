"""The pictures of the timeline's page as SVG text: series over windows, a heat map, histograms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from include.domain.monitoring.drift import FeatureDrift
from include.domain.monitoring.sketch import Sketch
from include.stages.monitoring.online_comparison import Interval

#: All sizes are in pixels: a series, its margins, and the room for dates at its foot.
WIDTH, HEIGHT, LEFT, RIGHT, FOOT = 1000, 180, 130, 10, 22
#: The side of a cell of the heat map; the bars of a histogram, the width of each, and its height.
CELL, BARS, BAR_WIDTH, BAR_HEIGHT = 15, 24, 8, 76
LETTER = 6.2  #: the width of a letter of a feature's name
MAX_DATES = 10
DATE_WIDTH = 90
#: Okabe and Ito's colours (2008), which people with a colour vision deficiency can tell apart, a red and greys.
BLUE, ORANGE, GREEN, AMBER = "#0072b2", "#d55e00", "#009e73", "#e69f00"
RED, GREY, LIGHT_GREY = "#b3261e", "#8a8a8a", "#bbb"


@dataclass(frozen=True)
class Mark:
    """An event on the time axis; a strong one is a line through the whole picture, another a tick at its foot."""

    window: str
    title: str
    colour: str
    strong: bool = False


def series(
    name: str,
    windows: Sequence[str],
    values: Mapping[str, Interval | None],
    *,
    level: float | None = None,
    rings: Mapping[str, float | None] | None = None,
    legend: str = "",
    marks: Sequence[Mark] = (),
) -> str:
    """Return a dot with its interval for each window that has a value, over all windows.

    `level` is a dashed line, that of the test windows. `rings` are a second value by window, which `legend` explains.
    """
    ring_values = {w: v for w, v in (rings or {}).items() if v is not None}
    intervals = {w: interval for w, interval in values.items() if interval}
    levels = [] if level is None else [level]
    low, high = _padded_range([*(v for i in intervals.values() for v in i), *ring_values.values(), *levels])

    def x(window: str) -> float:
        return LEFT + (windows.index(window) + 0.5) * (WIDTH - LEFT - RIGHT) / len(windows)

    def y(value: float) -> float:
        return 14 + (HEIGHT - FOOT - 20) * (1 - (value - low) / (high - low))

    body = [_text(4, 14, name, bold=True), _text(WIDTH - RIGHT, 10, legend, ORANGE, end=True), *_dates(windows, x)]
    for value in np.linspace(low, high, 4):
        label = _text(LEFT - 6, y(value) + 4, f"{value:.3f}", end=True)
        body += [_line(LEFT, y(value), WIDTH - RIGHT, y(value), "#eee"), label]
    for value in levels:
        line = _line(LEFT, y(value), WIDTH - RIGHT, y(value), GREY, dash=True)
        body += [line, _text(4, y(value) + 4, f"test {value:.3f}", GREY)]
    body += [_mark(mark, x(mark.window)) for mark in marks if mark.window in windows]
    body += [_ring(x(w), y(v), f"{w}: {v:.4f} {legend}") for w, v in ring_values.items()]
    for window, (value, lower, upper) in intervals.items():
        title = f"{window}: {value:.4f} ({lower:.4f} to {upper:.4f})"
        interval = _line(x(window), y(lower), x(window), y(upper), BLUE, title=title)
        body += [interval, _dot(x(window), y(value), title)]
    return _svg(WIDTH, HEIGHT, body)


def heat_map(by_window: Mapping[str, Sequence[FeatureDrift]], darkest: float) -> str:
    """Return the effects of features by window, the feature with the largest effect first.

    An effect of `darkest` or more is darkest; drift is red and the rest grey.
    """
    windows = list(by_window)
    largest: dict[str, float] = {}
    for drift in (d for drifts in by_window.values() for d in drifts):
        largest[drift.feature] = max(largest.get(drift.feature, 0.0), drift.effect)
    rows = {f: row for row, f in enumerate(sorted(largest, key=lambda f: -largest[f]))}
    left = LETTER * max(map(len, rows), default=0) + 12
    width = min(CELL, (WIDTH - left - RIGHT) / max(1, len(windows)))
    body = [_text(left - 6, (row + 1) * CELL - 4, feature, end=True) for feature, row in rows.items()]
    for column, window in enumerate(windows):
        for drift in sorted(by_window[window], key=lambda d: rows[d.feature]):
            place = (left + column * width, rows[drift.feature] * CELL, width)
            body.append(_cell(drift, window, place, darkest))
    height = CELL * len(rows) + FOOT
    body += _dates(
        windows, lambda w: left + (windows.index(w) + 0.5) * width, height, min_windows=int(DATE_WIDTH / width)
    )
    return _svg(left + width * len(windows) + 60, height, body)


def histogram(reference: Sketch, newest: Sketch, names: Sequence[str], *, ends: tuple[str, str]) -> str:
    """Return both sketches as shares of the same bars, the reference grey and the newest window as an outline.

    The first bar is missing values; the others are a number's bins, pooled, or a category's commonest values. `names`
    `[bins]` describe the bins under the pointer, `ends` are written below the first and the last bar.
    """
    bars = _bars(reference)
    then, now = (np.bincount(bars, weights=s.counts, minlength=BARS + 1) / max(1, s.rows) for s in (reference, newest))
    top, body = max(then.max(), now.max()) or 1.0, []
    outline = f'fill="none" stroke="{BLUE}" stroke-width="1.4"'
    for bar in range(BARS + 1):
        inside = [names[int(b)] for b in np.flatnonzero(bars == bar)]
        title = f"{_bar_name(inside)}: {then[bar]:.1%} in training, {now[bar]:.1%} now"
        left = bar * BAR_WIDTH + (6 if bar else 0)
        for share, style in ((then[bar], 'fill="#c9c9c9"'), (now[bar], outline)):
            height = BAR_HEIGHT * share / top
            body.append(_rect(left, BAR_HEIGHT - height + 2, BAR_WIDTH - 1, height, style, title))
    right = BAR_WIDTH * (BARS + 1)
    body += [
        _text(0, BAR_HEIGHT + 14, "∅"),
        _text(BAR_WIDTH + 6, BAR_HEIGHT + 14, ends[0]),
        _text(right + 6, BAR_HEIGHT + 14, ends[1], end=True),
    ]
    return _svg(right + 8, BAR_HEIGHT + 18, body)


def _bars(reference: Sketch) -> NDArray[np.intp]:
    """Return the bar of each bin, `[bins]`; 0 is missing."""
    count = len(reference.counts)
    bars = np.zeros(count, dtype=np.intp)
    if reference.numeric:
        bars[1:] = 1 + np.arange(count - 1) * BARS // max(1, count - 1)
    else:
        order = np.argsort(-reference.counts[1:], kind="stable")
        bars[1 + order] = 1 + np.minimum(np.arange(count - 1), BARS - 1)
    return bars


def _bar_name(inside: Sequence[str]) -> str:
    if not inside:
        return "nothing"
    return inside[0] if len(inside) == 1 else f"{inside[0]} … {inside[-1]}"


def _cell(drift: FeatureDrift, window: str, place: tuple[float, float, float], darkest: float) -> str:
    x, y, width = place
    depth = min(1.0, drift.effect / darkest)
    style = f'fill="{RED if drift.drifted else GREY}" fill-opacity="{0.1 + 0.9 * depth:.2f}"'
    title = f"{drift.feature}, {window}: effect {drift.effect:.3f}, PSI {drift.psi:.3f}, p {drift.p_value:.2g}"
    return _rect(x, y + 1, width - 2, CELL - 3, style, title)


def _padded_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    edge = 0.05 * (high - low) or 0.01
    return low - edge, high + edge


def _dates(
    windows: Sequence[str], x: Callable[[str], float], height: float = HEIGHT, min_windows: int = 1
) -> list[str]:
    """Return at most ten labels at the foot, each at least `min_windows` from the next."""
    step = max(min_windows, -(-len(windows) // MAX_DATES))
    return [_text(x(w), height - 5, w, middle=True) for w in windows[step // 2 :: step]]


def _mark(mark: Mark, x: float) -> str:
    top = 10 if mark.strong else HEIGHT - FOOT - 8
    return _line(x, top, x, HEIGHT - FOOT, mark.colour, title=mark.title, stroke=2.5)


def _svg(width: float, height: float, body: Iterable[str]) -> str:
    return f'<svg width="{width:.0f}" height="{height:.0f}" role="img">{"".join(body)}</svg>'


def _line(
    x: float,
    y: float,
    to_x: float,
    to_y: float,
    colour: str,
    *,
    dash: bool = False,
    title: str = "",
    stroke: float = 1.2,
) -> str:
    style = f'stroke="{colour}" stroke-width="{stroke}"' + (' stroke-dasharray="4 3"' if dash else "")
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" {style}><title>{escape(title)}</title></line>'
    )


def _dot(x: float, y: float, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{BLUE}"><title>{escape(title)}</title></circle>'


def _ring(x: float, y: float, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="none" stroke="{ORANGE}"><title>{escape(title)}</title></circle>'


def _rect(x: float, y: float, width: float, height: float, style: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(0.0, height):.1f}"'
    return f"<rect {place} {style}><title>{escape(title)}</title></rect>"


def _text(
    x: float,
    y: float,
    text: str,
    colour: str = "#333",
    *,
    end: bool = False,
    middle: bool = False,
    bold: bool = False,
) -> str:
    anchor = "end" if end else "middle" if middle else "start"
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
