"""Plots as SVG text: they need no library, look the same everywhere, and a page can hold them inline."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 46
ROW = 22
#: Okabe and Ito's colours, told apart by people who see few.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: A line of more points than this is thinned: nobody sees the difference, and the page stays small.
POINTS = 300


@dataclass(frozen=True)
class Line:
    """A named curve through `x`, `y` `[n]`; with `low` and `high` `[n]` a band around it."""

    name: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None


@dataclass(frozen=True)
class Effect:
    """One row of a forest plot."""

    name: str
    value: float
    low: float
    high: float


def chart(
    title: str, axes: tuple[str, str], lines: Sequence[Line], *, diagonal: bool = False, level: float | None = None,
    up: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Curves over common axes, with a legend; what lies outside of `up`, the range of y, is drawn at the edge.

    `diagonal` draws y = x, `level` a dashed horizontal line such as a margin.
    """
    parts = [part for line in lines for part in (line.x, line.y, line.low, line.high) if part is not None]
    if not any(len(np.asarray(part)) for part in parts):
        return _svg(title, HEIGHT, [_text(WIDTH / 2, HEIGHT / 2, "nothing to show", "middle")])
    across = _span([np.asarray(line.x, float) for line in lines])
    up = up or _span([np.asarray(v, float) for line in lines for v in (line.y, line.low, line.high) if v is not None]
               + ([] if level is None else [np.asarray([level])]))  # fmt: skip
    body = _axes(axes, across, up)
    if diagonal:
        low, high = max(across[0], up[0]), min(across[1], up[1])
        body.append(_path([(low, low), (high, high)], across, up, "#999", dashed=True))
    if level is not None:
        body.append(_path([(across[0], level), (across[1], level)], across, up, "#999", dashed=True))
    for i, line in enumerate(lines):
        body += _curve(line, COLOURS[i % len(COLOURS)], across, up)
        body.append(_text(LEFT + 8, TOP + 12 + 14 * i, line.name, colour=COLOURS[i % len(COLOURS)]))
    return _svg(title, HEIGHT, body)


def forest(title: str, axis: str, effects: Sequence[Effect], margin: float) -> str:
    """One interval a row, with dashed lines at 0 and at the margin."""
    height, start = TOP + BOTTOM + ROW * len(effects), 190
    ends = [np.asarray([0.0, margin, *(v for e in effects for v in (e.low, e.high))])]
    across = _span(ends)

    def place(value: float) -> float:
        return start + (value - across[0]) / (across[1] - across[0]) * (WIDTH - RIGHT - start)

    body = []
    for value in (0.0, margin):
        body.append(_stroke(place(value), TOP, place(value), height - BOTTOM, "#999", dashed=True))
        body.append(_text(place(value), height - BOTTOM + 14, f"{value:g}", "middle"))
    for i, effect in enumerate(effects):
        y = TOP + ROW * (i + 0.5)
        colour = COLOURS[1] if effect.low > margin else COLOURS[0]
        body.append(_text(start - 8, y + 4, effect.name, "end"))
        body.append(_stroke(place(effect.low), y, place(effect.high), y, colour))
        body.append(f'<circle cx="{place(effect.value):.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    body.append(_text((start + WIDTH) / 2, height - 8, axis, "middle"))
    return _svg(title, height, body)


def _curve(line: Line, colour: str, across: tuple[float, float], up: tuple[float, float]) -> list[str]:
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if len(x) == 1:
        return _dot(line, colour, across, up)
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int))
    found = []
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, float)[kept], np.asarray(line.high, float)[kept]
        around = [*zip(x[kept], low, strict=True), *zip(x[kept][::-1], high[::-1], strict=True)]
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (_place(a, b, across, up) for a, b in around))
        found.append(f'<polygon points="{points}" fill="{colour}" opacity=".15"/>')
    found.append(_path(list(zip(x[kept], y[kept], strict=True)), across, up, colour))
    return found


def _dot(line: Line, colour: str, across: tuple[float, float], up: tuple[float, float]) -> list[str]:
    """A curve of one point would not be seen: a dot, on a bar where there is a band."""
    x, *values = (
        float(np.asarray(part, float)[0]) for part in (line.x, line.y, line.low, line.high) if part is not None
    )
    (middle, at), *ends = (_place(x, value, across, up) for value in values)
    found = [f'<circle cx="{middle:.1f}" cy="{at:.1f}" r="3" fill="{colour}"/>']
    return found + ([_stroke(middle, ends[0][1], middle, ends[1][1], colour)] if ends else [])


def _axes(names: tuple[str, str], across: tuple[float, float], up: tuple[float, float]) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    body = [_stroke(LEFT, bottom, right, bottom, "#333"), _stroke(LEFT, TOP, LEFT, bottom, "#333")]
    for value in _ticks(across):
        x = _place(value, up[0], across, up)[0]
        body += [_stroke(x, bottom, x, bottom + 3, "#333"), _text(x, bottom + 15, f"{value:.6g}", "middle")]
    for value in _ticks(up):
        y = _place(across[0], value, across, up)[1]
        body += [_stroke(LEFT - 3, y, LEFT, y, "#333"), _text(LEFT - 6, y + 4, f"{value:.6g}", "end")]
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {middle:.0f})"'
    return [
        *body,
        _text((LEFT + right) / 2, HEIGHT - 8, names[0], "middle"),
        _text(14, middle, names[1], "middle", more=turned),
    ]


def _ticks(span: tuple[float, float]) -> list[float]:
    """Three to seven round numbers of the span: steps of 1, 2 or 5 times a power of ten."""
    rough = (span[1] - span[0]) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = np.ceil(span[0] / step - 1e-9), np.floor(span[1] / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]


def _span(values: Sequence[np.ndarray]) -> tuple[float, float]:
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(x: float, y: float, across: tuple[float, float], up: tuple[float, float]) -> tuple[float, float]:
    """Data to pixels; what lies outside is drawn at the edge."""
    right = min(max((x - across[0]) / (across[1] - across[0]), 0.0), 1.0)
    above = min(max((y - up[0]) / (up[1] - up[0]), 0.0), 1.0)
    return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)


def _path(
    points: Sequence[tuple[float, float]], across: tuple[float, float], up: tuple[float, float], colour: str, *,
    dashed: bool = False,
) -> str:  # fmt: skip
    placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(a, b, across, up) for a, b in points))
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{placed}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, more: str = "", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {more}>{escape(text)}</text>'


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img"'
    named = f'<title>{escape(title)}</title><text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    white = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} font-family="sans-serif" font-size="11">{white}{named}{"".join(body)}</svg>\n'
