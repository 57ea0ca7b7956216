"""The watch's page for people: one self-contained HTML file with its pictures as SVG."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from include.domain.course import Course
from include.domain.sketch import Sketch

CELL, LEFT, WIDTH, HEIGHT, BARS = 14, 150, 900, 160, 20
STYLE = (
    "body{font:14px system-ui;margin:2em;max-width:70em}svg text{font:11px system-ui}"
    "td,th{padding:2px 8px;text-align:left;vertical-align:top}.fire{color:#b3261e}.warn{color:#8a5a00}.unknown{color:#777}"
    ".grid{display:flex;flex-wrap:wrap;gap:12px}figure{margin:0}"
)


def write(course: Course, path: Path) -> Path:
    """Replace the page atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(page(course), encoding="utf-8")
    return draft.replace(path)


def page(course: Course) -> str:
    asked = {str(d["window"]): d for d in course.decisions if d["start"]}
    parts = [
        f"<h1>{escape(course.model)}, version {escape(course.version)}: since its training</h1>",
        "<h2>Performance</h2><p>A dot is a window with its 95&nbsp;% interval; the dashed line is the test windows' value; "
        "rings are the AUC promised without labels, which concept drift with unchanged inputs does not move; "
        "a red line is a request for training.</p>",
        _series("AUC", {w: p.auc for w, p in course.points.items()}, course.test["auc"], asked,
                {w: p.estimated_auc for w, p in course.points.items()}),
        _series("logloss", {w: p.logloss for w, p in course.points.items()}, course.test["logloss"], asked, {}),
        "<h2>Drift</h2><p>Effect by feature and window, a frame where it is drift; hover for the numbers.</p>",
        _heat_map(course),
        "<h2>Features of the newest window</h2><p>Grey is the training reference, blue the newest window.</p>",
        _histograms(course),
        "<h2>Decisions</h2>", _decisions(course.decisions),
    ]  # fmt: skip
    title = f"{escape(course.model)} watch"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>{''.join(parts)}"


def _series(name: str, values: Mapping[str, tuple[float, float, float] | None], test: float,
            asked: Mapping[str, Any], promised: Mapping[str, float | None]) -> str:  # fmt: skip
    windows = list(values)
    known = [v for value in values.values() if value for v in value] + [p for p in promised.values() if p is not None]
    low, high = min([*known, test]), max([*known, test])
    step = (WIDTH - LEFT) / max(1, len(windows))

    def y(value: float) -> float:
        return 10 + (HEIGHT - 30) * (1 - (value - low) / max(high - low, 1e-9))

    marks = [_line(LEFT, y(test), WIDTH, y(test), "#888", dash=True), _text(4, y(test), f"{name} {test:.3f} in test")]
    for i, window in enumerate(windows):
        x, value, promise = LEFT + (i + 0.5) * step, values[window], promised.get(window)
        if window in asked:
            marks.append(_line(x, 0, x, HEIGHT - 18, "#b3261e", title=str(asked[window]["sentence"])))
        if value:
            marks += [_line(x, y(value[1]), x, y(value[2]), "#1f5fae"),
                      _dot(x, y(value[0]), "#1f5fae", f"{window}: {value[0]:.4f}")]  # fmt: skip
        if promise is not None:
            marks.append(_dot(x, y(promise), "none", f"{window}: {promise:.4f} promised"))
    ends = [_text(LEFT, HEIGHT - 4, windows[0]), _text(WIDTH - 70, HEIGHT - 4, windows[-1])] if windows else []
    return _svg(WIDTH, HEIGHT, [*marks, *ends, _text(4, 12, f"{high:.3f}"), _text(4, HEIGHT - 20, f"{low:.3f}")])


def _heat_map(course: Course) -> str:
    by_window = {w: {m.feature: m for m in moved} for w, moved in course.moved.items()}
    features = sorted({f for found in by_window.values() for f in found},
                      key=lambda f: -max(found[f].effect for found in by_window.values() if f in found))  # fmt: skip
    cells = [_text(4, (r + 1) * CELL - 3, feature) for r, feature in enumerate(features)]
    for c, (window, found) in enumerate(by_window.items()):
        for r, feature in enumerate(features):
            if feature in found:
                m = found[feature]
                shade, frame = int(255 * (1 - min(1.0, m.effect))), "#b3261e" if m.drifted else "none"
                title = f"{feature}, {window}: effect {m.effect:.3f}, PSI {m.psi:.3f}, p {m.p:.2g}"
                cells.append(
                    f'<rect x="{LEFT + c * CELL}" y="{r * CELL}" width="{CELL - 2}" height="{CELL - 2}" '
                    f'fill="rgb(255,{shade},{shade})" stroke="{frame}"><title>{escape(title)}</title></rect>'
                )
    return _svg(LEFT + CELL * len(by_window) + 10, CELL * len(features) + 10, cells)


def _histograms(course: Course) -> str:
    pictures = [_histogram(course, feature) for feature in course.newest if feature in course.reference]
    return f'<div class="grid">{"".join(pictures)}</div>'


def _histogram(course: Course, feature: str) -> str:
    """Both as shares of the same bins: a number's pooled to `BARS`, a category's commonest values, the missing first."""
    then, now = course.reference[feature], course.newest[feature]
    bins = _bars(then)
    shares = [np.bincount(bins, weights=s.counts, minlength=BARS + 1) / max(1, s.rows) for s in (then, now)]
    top, bars = max(s.max() for s in shares) or 1.0, []
    for share, fill in zip(shares, ("#ccc", "none"), strict=True):
        stroke = "none" if fill == "#ccc" else "#1f5fae"
        bars += [f'<rect x="{i * 9}" y="{70 - 70 * v / top:.1f}" width="8" height="{70 * v / top:.1f}" fill="{fill}" '
                 f'stroke="{stroke}"/>' for i, v in enumerate(share)]  # fmt: skip
    return f"<figure>{_svg(9 * (BARS + 1), 72, bars)}<figcaption>{escape(feature)}</figcaption></figure>"


def _bars(reference: Sketch) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Bins → bars, 0 for missing."""
    count = len(reference.counts)
    bars = np.zeros(count, dtype=np.intp)
    if reference.numeric:
        bars[1:] = 1 + np.arange(count - 1) * BARS // max(1, count - 1)
    else:
        order = np.argsort(-reference.counts[1:], kind="stable")
        bars[1 + order] = 1 + np.minimum(np.arange(count - 1), BARS - 1)
    return bars


def _decisions(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        f"<tr><td>{escape(str(r['at'])[:19])}<td>{escape(str(r['window']))}<td>{'train' if r['start'] else 'no'}"
        f"<td>{escape(str(r['sentence']))}<td>{_states(r['signals'])}"
        for r in reversed(rows[-200:])
    ]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return f"<table><tr><th>At<th>Window<th>Decision<th>Why<th>Signals{''.join(shown)}</table><p>Made {made}.</p>"


def _states(signals: Iterable[Mapping[str, Any]]) -> str:
    loud = [s for s in signals if s["state"] != "ok"]
    return " ".join(f'<span class="{s["state"]}" title="{escape(s["sentence"])}">{s["name"]}</span>' for s in loud)


def _svg(width: float, height: float, marks: Iterable[str]) -> str:
    return f'<svg width="{width:.0f}" height="{height:.0f}" role="img">{"".join(marks)}</svg>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, *, dash: bool = False, title: str = "") -> str:
    style = ' stroke-dasharray="4"' if dash else ""
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="{colour}"{style}><title>{escape(title)}</title></line>'


def _dot(x: float, y: float, fill: str, title: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}"'
    return f'<circle {place} r="3" fill="{fill}" stroke="#1f5fae"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'
