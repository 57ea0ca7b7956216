"""The watch's page for people: one self-contained HTML file."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from include.artifacts.files import write_atomically
from include.domain.monitoring.timeline import Comparison, Course
from include.reports import timeline_charts as charts
from include.reports.timeline_charts import Mark

#: Decisions shown, the newest first.
MOST = 200
STYLE = (
    "body{font:14px/1.45 system-ui;margin:1.5em auto;max-width:1040px;padding:0 1em;color:#222}svg text{font:11px system-ui}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.25em .6em;text-align:left;vertical-align:top;"
    "border-top:1px solid #e5e5e5}h2{margin:1.6em 0 .3em}p{margin:.3em 0 .6em;color:#555}.grid{display:flex;flex-wrap:wrap;"
    "gap:14px}figure{margin:0;padding:8px;border:1px solid #e5e5e5;border-radius:6px}figcaption{font-size:12px}"
    ".said{border-left:4px solid #8a8a8a;background:#f6f6f6;padding:.6em .9em}.said.yes{border-color:#b3261e;background:#fdf0ef}"
    ".fire{color:#b3261e;font-weight:600}.warn{color:#8a5a00}.unknown{color:#777}.ok{color:#00704a}"
)


def write(course: Course, path: Path) -> Path:
    """Replace the page atomically."""
    write_atomically(path, page(course))
    return path


def page(course: Course) -> str:
    windows = list(course.points)
    title = f"{escape(course.model)}, version {escape(course.version)}: since its training"
    parts = [
        f"<h1>{title}</h1>", _said(course.decisions), _signals(course.decisions),
        "<h2>Performance</h2><p>A dot is a window with its 95&nbsp;% interval, the dashed line the test windows' value. Marks: "
        '<span class="fire">a training was asked for</span>, <span class="warn">a signal fired and was held back</span>, '
        "grey looked and found nothing to start, green the cause has gone. Hover for the numbers.</p>",
        *_performance(course, windows, marks(course)),
        "<h2>Drift</h2><p>Effect by feature and window, darker is further; red where it is drift: further, "
        "for sure, than the windows of the training lie from each other.</p>",
        charts.heat_map(course.moved, 3 * course.effect_bound),
        "<h2>Features of the newest window</h2><p>Grey is training, blue the newest window, the furthest first.</p>",
        _histograms(course),
        *_arms(course.arms),
        "<h2>Decisions</h2>", _decisions(course.decisions, course.cleared),
        f"<p>Made {datetime.now(UTC).isoformat(timespec='seconds')}.</p>",
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>{escape(course.model)} watch</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def marks(course: Course) -> list[Mark]:
    """What was decided on which window, the requests last so that they lie on top."""
    found = []
    for row in course.decisions:
        title = f"{row['window']}: {row['sentence']}"
        if row["start"]:
            found.append(Mark(str(row["window"]), title, charts.RED, strong=True))
        else:
            found.append(Mark(str(row["window"]), title, "#e69f00" if row["cause"] else "#bbb"))
    for row in course.cleared:
        came = "gone" if row["cleared"] else "still there"
        title = f"{row['request']}: {came} with version {row['champion']}; {row['sentence']}"
        found.append(Mark(str(row["window"]), title, "#009e73" if row["cleared"] else charts.RED))
    return sorted(found, key=lambda mark: mark.strong)


def _said(decisions: Sequence[Mapping[str, Any]]) -> str:
    if not decisions:
        return '<p class="said">The watch has not decided yet.</p>'
    row = decisions[-1]
    verdict = "A training was asked for" if row["start"] else "No training was started"
    at = f"{str(row['at'])[:16]} UTC, data until {str(row['as_of'])[:10]}"
    return (
        f'<p class="said{" yes" if row["start"] else ""}"><b>{verdict}</b> ({at}): {escape(str(row["sentence"]))}</p>'
    )


def _signals(decisions: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f'<tr><td class="{s["state"]}">{s["state"]}<td>{escape(str(s["name"]))}<td>{escape(str(s["sentence"]))}'
        for s in (decisions[-1]["signals"] if decisions else ())
    ]
    return f"<h2>Signals of the last look</h2><table>{''.join(rows)}</table>"


def _performance(course: Course, windows: Sequence[str], shown: Sequence[Mark]) -> list[str]:
    points = course.points
    said = {w: p.mean_score for w, p in points.items()}
    promised = {w: p.estimated_auc for w, p in points.items()}
    return [
        charts.series("AUC", windows, {w: p.auc for w, p in points.items()}, level=course.test["auc"], beside=promised,
                      legend="○ promised without labels", marks=shown),
        "<p>Rings are the AUC that the scores promise before any label is due. Concept drift with unchanged inputs does not "
        "move them.</p>",
        charts.series("logloss", windows, {w: p.logloss for w, p in points.items()}, level=course.test["logloss"], marks=shown),
        charts.series("label rate", windows, {w: p.label_rate for w, p in points.items()}, beside=said,
                      legend="○ mean score", marks=shown),
    ]  # fmt: skip


def _histograms(course: Course) -> str:
    newest = course.moved[max(course.moved)] if course.moved else ()
    order = [*(m.feature for m in newest), *(f for f in course.newest if all(f != m.feature for m in newest))]
    effects = {m.feature: f"effect {m.effect:.2f}{', drift' if m.drifted else ''}" for m in newest}
    return f'<div class="grid">{"".join(_histogram(course, f, effects.get(f, "")) for f in order if f in course.reference)}</div>'


def _histogram(course: Course, feature: str, said: str) -> str:
    names = course.bins[feature]
    ends = (names[1], names[-1]) if course.reference[feature].numeric else ("commonest", "rare")
    picture = charts.histogram(course.reference[feature], course.newest[feature], names, ends=ends)
    loud = ' class="fire"' if said.endswith("drift") else ""
    return f"<figure>{picture}<figcaption><b>{escape(feature)}</b> <span{loud}>{said}</span></figcaption></figure>"


def _arms(arms: Sequence[Comparison]) -> list[str]:
    """Versions that answered at the same time."""
    rows = [
        f"<tr><td>{escape(arm.version)} − {escape(arm.other)}<td>{escape(arm.span)}<td>{arm.rows[0]:,} and {arm.rows[1]:,}"
        f"<td>{metric}<td>{value:+.4f}<td>{low:+.4f} to {high:+.4f}"
        for arm in arms
        for metric, (value, low, high) in arm.metrics.items()
    ]
    if not rows:
        return []
    heads = "<tr><th>versions<th>windows<th>rows<th>metric<th>difference<th>95&nbsp;%"
    return [
        "<h2>Versions live at once</h2><p>On different requests of the same windows.</p>",
        f"<table>{heads}{''.join(rows)}</table>",
    ]


def _decisions(rows: Sequence[Mapping[str, Any]], cleared: Sequence[Mapping[str, Any]]) -> str:
    after = {row["request"]: row for row in cleared}
    shown = [
        f"<tr><td>{escape(str(r['at'])[:16])}<td>{escape(str(r['window']))}<td>{'train' if r['start'] else 'no'}"
        f"<td>{escape(str(r['sentence']))}{_cleared(after.get(r['request']))}<td>{_states(r['signals'])}"
        for r in reversed(rows[-MOST:])
    ]
    return f"<table><tr><th>At<th>Window<th>Decision<th>Why<th>Signals{''.join(shown)}</table>"


def _cleared(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    said = "the cause has gone" if row["cleared"] else "the cause is still there"
    return f" <b>With version {escape(str(row['champion']))} {said}.</b>"


def _states(signals: Iterable[Mapping[str, Any]]) -> str:
    loud = [s for s in signals if s["state"] != "ok"]
    return " ".join(f'<span class="{s["state"]}" title="{escape(s["sentence"])}">{s["name"]}</span>' for s in loud)
