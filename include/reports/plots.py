"""Plots as SVG text: they need no library, look the same everywhere, and a page can hold them inline."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 46
#: Height of a row of a forest plot, and the room to its left for the row's name.
ROW, NAMES = 22, 190
#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: A line of more points than this is thinned: nobody sees the difference, and the page stays small.
POINTS = 300

Range = tuple[float, float]


@dataclass(frozen=True)
class PlotLine:
    """A named line through `x`, `y` `[n]`; with `lower` and `upper` `[n]` there is a band around it."""

    name: str
    x: ArrayLike
    y: ArrayLike
    lower: ArrayLike | None = None
    upper: ArrayLike | None = None


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot: an estimate with the ends of its interval."""

    name: str
    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Axes:
    """The ranges of the data that the chart's area shows."""

    x: Range
    y: Range

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixels of a point; what lies outside of the ranges is drawn at the edge."""
        right = min(max((x - self.x[0]) / (self.x[1] - self.x[0]), 0.0), 1.0)
        above = min(max((y - self.y[0]) / (self.y[1] - self.y[0]), 0.0), 1.0)
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
        """Return the line through the points."""
        pixels = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.place(*point) for point in points))
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        return f'<polyline points="{pixels}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'


def chart(
    title: str,
    axis_names: tuple[str, str],
    lines: Sequence[PlotLine],
    *,
    diagonal: bool = False,
    level: float | None = None,
    y_range: Range | None = None,
) -> str:
    """Return lines over common axes, with a legend.

    `diagonal` draws y = x, `level` a dashed horizontal line such as a margin. What lies outside of `y_range` is drawn at the
    edge; without it the range is the data's.
    """
    arrays = [values for line in lines for values in (line.x, line.y, line.lower, line.upper) if values is not None]
    if not any(len(np.asarray(values)) for values in arrays):
        return _svg(title, HEIGHT, [_text(WIDTH / 2, HEIGHT / 2, "nothing to show", "middle")])
    axes = Axes(_range([np.asarray(line.x, float) for line in lines]), y_range or _y_range(lines, level))
    body = _draw_axes(axis_names, axes)
    if diagonal:
        low, high = max(axes.x[0], axes.y[0]), min(axes.x[1], axes.y[1])
        body.append(axes.path([(low, low), (high, high)], "#999", dashed=True))
    if level is not None:
        body.append(axes.path([(axes.x[0], level), (axes.x[1], level)], "#999", dashed=True))
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        body += _draw_line(line, colour, axes)
        body.append(_text(LEFT + 8, TOP + 12 + 14 * i, line.name, colour=colour))
    return _svg(title, HEIGHT, body)


def forest(title: str, axis_name: str, rows: Sequence[ForestRow], margin: float) -> str:
    """Return a forest plot: one interval a row, with dashed lines at 0 and at the margin."""
    height = TOP + BOTTOM + ROW * len(rows)
    low, high = _range([np.asarray([0.0, margin, *(end for row in rows for end in (row.lower, row.upper))])])

    def place(value: float) -> float:
        return NAMES + (value - low) / (high - low) * (WIDTH - RIGHT - NAMES)

    body = []
    for value in (0.0, margin):
        body.append(_stroke(place(value), TOP, place(value), height - BOTTOM, "#999", dashed=True))
        body.append(_text(place(value), height - BOTTOM + 14, f"{value:g}", "middle"))
    for i, row in enumerate(rows):
        y = TOP + ROW * (i + 0.5)
        colour = COLOURS[1] if row.lower > margin else COLOURS[0]
        body.append(_text(NAMES - 8, y + 4, row.name, "end"))
        body.append(_stroke(place(row.lower), y, place(row.upper), y, colour))
        body.append(f'<circle cx="{place(row.estimate):.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    body.append(_text((NAMES + WIDTH) / 2, height - 8, axis_name, "middle"))
    return _svg(title, height, body)


def _draw_line(line: PlotLine, colour: str, axes: Axes) -> list[str]:
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if len(x) == 1:
        return _draw_dot(line, colour, axes)
    thinned = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int))
    parts = []
    if line.lower is not None and line.upper is not None:
        lower, upper = np.asarray(line.lower, float)[thinned], np.asarray(line.upper, float)[thinned]
        outline = [*zip(x[thinned], lower, strict=True), *zip(x[thinned][::-1], upper[::-1], strict=True)]
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (axes.place(*point) for point in outline))
        parts.append(f'<polygon points="{points}" fill="{colour}" opacity=".15"/>')
    parts.append(axes.path(list(zip(x[thinned], y[thinned], strict=True)), colour))
    return parts


def _draw_dot(line: PlotLine, colour: str, axes: Axes) -> list[str]:
    """Draw a line of one point, which would not be seen as a line: a dot, on a bar where there is a band."""
    arrays = (line.x, line.y, line.lower, line.upper)
    x, *values = (float(np.asarray(array, float)[0]) for array in arrays if array is not None)
    (middle, height), *ends = (axes.place(x, value) for value in values)
    dot = f'<circle cx="{middle:.1f}" cy="{height:.1f}" r="3" fill="{colour}"/>'
    return [dot, *([_stroke(middle, ends[0][1], middle, ends[1][1], colour)] if ends else [])]


def _draw_axes(names: tuple[str, str], axes: Axes) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    body = [_stroke(LEFT, bottom, right, bottom, "#333"), _stroke(LEFT, TOP, LEFT, bottom, "#333")]
    for value in _ticks(axes.x):
        x = axes.place(value, axes.y[0])[0]
        body += [_stroke(x, bottom, x, bottom + 3, "#333"), _text(x, bottom + 15, f"{value:.6g}", "middle")]
    for value in _ticks(axes.y):
        y = axes.place(axes.x[0], value)[1]
        body += [_stroke(LEFT - 3, y, LEFT, y, "#333"), _text(LEFT - 6, y + 4, f"{value:.6g}", "end")]
    middle = (TOP + bottom) / 2
    upright = f'transform="rotate(-90 14 {middle:.0f})"'
    x_name = _text((LEFT + right) / 2, HEIGHT - 8, names[0], "middle")
    return [*body, x_name, _text(14, middle, names[1], "middle", attributes=upright)]


def _ticks(span: Range) -> list[float]:
    """Return three to seven round numbers of the range: steps of 1, 2 or 5 times a power of ten."""
    rough = (span[1] - span[0]) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = np.ceil(span[0] / step - 1e-9), np.floor(span[1] / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]


def _y_range(lines: Sequence[PlotLine], level: float | None) -> Range:
    bounds = [values for line in lines for values in (line.y, line.lower, line.upper) if values is not None]
    arrays = [np.asarray(values, float) for values in bounds]
    return _range(arrays if level is None else [*arrays, np.asarray([level])])


def _range(arrays: Sequence[NDArray[np.float64]]) -> Range:
    """Return the least and the greatest finite value, with room around them where they are the same."""
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, attributes: str = "", colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" {attributes}>{escape(text)}</text>'


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img"'
    heading = f'<title>{escape(title)}</title><text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} font-family="sans-serif" font-size="11">{background}{heading}{"".join(body)}</svg>\n'
