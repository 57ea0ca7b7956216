"""The watch's page for people: one self-contained HTML file."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from include.artifacts.files import write_atomically
from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring.signal import Signal, SignalState
from include.reports import timeline_charts as charts
from include.reports.timeline_charts import Mark
from include.stages.monitoring.online_comparison import Comparison
from include.stages.monitoring.timeline import Course

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
    for decision in course.decisions:
        title = f"{decision.window}: {decision.sentence}"
        if decision.start:
            found.append(Mark(decision.window, title, charts.RED, strong=True))
        else:
            found.append(Mark(decision.window, title, "#e69f00" if decision.cause else "#bbb"))
    for event in course.cleared:
        came = "gone" if event.cleared else "still there"
        title = f"{event.request}: {came} with version {event.champion}; {event.sentence}"
        found.append(Mark(event.window, title, "#009e73" if event.cleared else charts.RED))
    return sorted(found, key=lambda mark: mark.strong)


def _said(decisions: Sequence[RetrainingDecided]) -> str:
    if not decisions:
        return '<p class="said">The watch has not decided yet.</p>'
    last = decisions[-1]
    verdict = "A training was asked for" if last.start else "No training was started"
    at = f"{_minute(last.at)} UTC, data until {last.as_of and last.as_of.date()}"
    return f'<p class="said{" yes" if last.start else ""}"><b>{verdict}</b> ({at}): {escape(last.sentence)}</p>'


def _signals(decisions: Sequence[RetrainingDecided]) -> str:
    rows = [
        f'<tr><td class="{signal.state}">{signal.state}<td>{escape(signal.name)}<td>{escape(signal.sentence)}'
        for signal in (decisions[-1].signals if decisions else ())
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


def _decisions(decisions: Sequence[RetrainingDecided], cleared: Sequence[CauseRechecked]) -> str:
    after = {event.request: event for event in cleared}
    shown = [
        f"<tr><td>{_minute(event.at)}<td>{escape(event.window)}<td>{'train' if event.start else 'no'}"
        f"<td>{escape(event.sentence)}{_cleared(after.get(event.request or ''))}<td>{_states(event.signals)}"
        for event in reversed(decisions[-MOST:])
    ]
    return f"<table><tr><th>At<th>Window<th>Decision<th>Why<th>Signals{''.join(shown)}</table>"


def _cleared(event: CauseRechecked | None) -> str:
    if event is None:
        return ""
    result = "the cause has gone" if event.cleared else "the cause is still there"
    return f" <b>With version {escape(event.champion)} {result}.</b>"


def _states(signals: Iterable[Signal]) -> str:
    loud = [s for s in signals if s.state is not SignalState.OK]
    return " ".join(f'<span class="{s.state}" title="{escape(s.sentence)}">{s.name}</span>' for s in loud)


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"
