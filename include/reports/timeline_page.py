"""The page of a champion's timeline: one self-contained HTML file for people."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from include.artifacts.atomic_write import write_atomically
from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring.drift import FeatureDrift
from include.domain.monitoring.signal import Signal, SignalState
from include.reports import timeline_charts as charts
from include.reports.timeline_charts import Mark
from include.stages.monitoring.online_comparison import VersionComparison
from include.stages.monitoring.timeline import Timeline

#: At most so many decisions are shown, the newest first.
MAX_DECISIONS = 200
#: An effect of so many times the bound is drawn darkest.
DARKEST = 3
STYLE = (
    "body{font:14px/1.45 system-ui;margin:1.5em auto;max-width:1040px;padding:0 1em;color:#222}svg text{font:11px system-ui}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.25em .6em;text-align:left;vertical-align:top;"
    "border-top:1px solid #e5e5e5}h2{margin:1.6em 0 .3em}p{margin:.3em 0 .6em;color:#555}.grid{display:flex;flex-wrap:wrap;"
    "gap:14px}figure{margin:0;padding:8px;border:1px solid #e5e5e5;border-radius:6px}figcaption{font-size:12px}"
    ".decision{border-left:4px solid #8a8a8a;background:#f6f6f6;padding:.6em .9em}"
    ".decision.yes{border-color:#b3261e;background:#fdf0ef}"
    ".fire{color:#b3261e;font-weight:600}.warn{color:#8a5a00}.unknown{color:#777}.ok{color:#00704a}"
)
PERFORMANCE = (
    "<h2>Performance</h2><p>A dot is a window with its 95&nbsp;% interval, the dashed line the value on the test windows. "
    'Marks: <span class="fire">a training was asked for</span>, <span class="warn">a signal fired, but no training was '
    "started</span>, grey no trigger fired, green the cause has gone. Hover for the numbers.</p>"
)
PROMISED_AUC = (
    "<p>Rings are the AUC that the scores promise before any label is due. Concept drift with unchanged inputs does not move "
    "them.</p>"
)
DRIFT = (
    "<h2>Drift</h2><p>Effect by feature and window, darker is further; red where it is drift: certainly further than the "
    "windows of the training lie from each other.</p>"
)
HISTOGRAMS = (
    "<h2>Features of the newest window</h2><p>Grey is training, blue the newest window, the furthest first.</p>"
)


def write(timeline: Timeline, path: Path) -> Path:
    """Replace the page atomically and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(timeline))
    return path


def page(timeline: Timeline) -> str:
    """Return the page as HTML that loads nothing from elsewhere."""
    model = escape(timeline.model)
    parts = [
        f"<h1>{model}, version {escape(timeline.version)}: since its training</h1>",
        _last_decision(timeline.decisions),
        _signals(timeline.decisions),
        PERFORMANCE,
        *_performance(timeline, marks(timeline)),
        DRIFT,
        charts.heat_map(timeline.feature_drift, DARKEST * timeline.effect_bound),
        HISTOGRAMS,
        _histograms(timeline),
        *_comparisons(timeline.comparisons),
        "<h2>Decisions</h2>",
        _decisions(timeline.decisions, timeline.rechecks),
        f"<p>Made {datetime.now(UTC).isoformat(timespec='seconds')}.</p>",
    ]
    head = f'<meta charset="utf-8"><title>{model} watch</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def marks(timeline: Timeline) -> list[Mark]:
    """Return a mark for each decision and each recheck of a cause, the requests last so that they lie on top."""
    all_marks = []
    for decision in timeline.decisions:
        title = f"{decision.window}: {decision.sentence}"
        if decision.start:
            all_marks.append(Mark(decision.window, title, charts.RED, strong=True))
        else:
            all_marks.append(Mark(decision.window, title, charts.AMBER if decision.cause else charts.LIGHT_GREY))
    for recheck in timeline.rechecks:
        result = "gone" if recheck.cleared else "still there"
        title = f"{recheck.request}: {result} with version {recheck.champion}; {recheck.sentence}"
        all_marks.append(Mark(recheck.window, title, charts.GREEN if recheck.cleared else charts.RED))
    return sorted(all_marks, key=lambda mark: mark.strong)


def _last_decision(decisions: Sequence[RetrainingDecided]) -> str:
    if not decisions:
        return '<p class="decision">The watch has not decided yet.</p>'
    last = decisions[-1]
    result = "A training was asked for" if last.start else "No training was started"
    at = f"{_minute(last.at)} UTC, data until {last.as_of and last.as_of.date()}"
    css = "decision yes" if last.start else "decision"
    return f'<p class="{css}"><b>{result}</b> ({at}): {escape(last.sentence)}</p>'


def _signals(decisions: Sequence[RetrainingDecided]) -> str:
    rows = [
        f'<tr><td class="{signal.state}">{signal.state}<td>{escape(signal.name)}<td>{escape(signal.sentence)}'
        for signal in (decisions[-1].signals if decisions else ())
    ]
    return f"<h2>Signals of the last decision</h2><table>{''.join(rows)}</table>"


def _performance(timeline: Timeline, all_marks: Sequence[Mark]) -> list[str]:
    windows, metrics, test = list(timeline.metrics), timeline.metrics, timeline.test_metrics
    aucs = {w: m.auc for w, m in metrics.items()}
    estimated = {w: m.estimated_auc for w, m in metrics.items()}
    losses = {w: m.logloss for w, m in metrics.items()}
    rates = {w: m.label_rate for w, m in metrics.items()}
    scores = {w: m.mean_score for w, m in metrics.items()}
    promised = "○ promised without labels"
    return [
        charts.series("AUC", windows, aucs, level=test["auc"], rings=estimated, legend=promised, marks=all_marks),
        PROMISED_AUC,
        charts.series("logloss", windows, losses, level=test["logloss"], marks=all_marks),
        charts.series("label rate", windows, rates, rings=scores, legend="○ mean score", marks=all_marks),
    ]


def _histograms(timeline: Timeline) -> str:
    """Return a histogram of each feature, those that were compared first, the furthest of them first."""
    newest = timeline.feature_drift[max(timeline.feature_drift)] if timeline.feature_drift else ()
    by_feature = {drift.feature: drift for drift in newest}
    order = [*by_feature, *(f for f in timeline.newest if f not in by_feature)]
    pictures = [_histogram(timeline, f, by_feature.get(f)) for f in order if f in timeline.reference]
    return f'<div class="grid">{"".join(pictures)}</div>'


def _histogram(timeline: Timeline, feature: str, drift: FeatureDrift | None) -> str:
    names, reference = timeline.bin_names[feature], timeline.reference[feature]
    ends = (names[1], names[-1]) if reference.numeric else ("commonest", "rare")
    picture = charts.histogram(reference, timeline.newest[feature], names, ends=ends)
    css = ' class="fire"' if drift and drift.drifted else ""
    effect = f"effect {drift.effect:.2f}{', drift' if drift.drifted else ''}" if drift else ""
    return f"<figure>{picture}<figcaption><b>{escape(feature)}</b> <span{css}>{effect}</span></figcaption></figure>"


def _comparisons(comparisons: Sequence[VersionComparison]) -> list[str]:
    """Return the table of versions that answered at the same time; nothing where there was one version alone."""
    rows = [
        f"<tr><td>{escape(c.version)} − {escape(c.champion)}<td>{escape(c.windows)}<td>{c.rows[0]:,} and {c.rows[1]:,}"
        f"<td>{metric}<td>{value:+.4f}<td>{lower:+.4f} to {upper:+.4f}"
        for c in comparisons
        for metric, (value, lower, upper) in c.differences.items()
    ]
    if not rows:
        return []
    heads = "<tr><th>versions<th>windows<th>rows<th>metric<th>difference<th>95&nbsp;%"
    return [
        "<h2>Versions live at once</h2><p>On different requests of the same windows.</p>",
        f"<table>{heads}{''.join(rows)}</table>",
    ]


def _decisions(decisions: Sequence[RetrainingDecided], rechecks: Sequence[CauseRechecked]) -> str:
    by_request = {recheck.request: recheck for recheck in rechecks}
    rows = [
        f"<tr><td>{_minute(event.at)}<td>{escape(event.window)}<td>{'train' if event.start else 'no'}"
        f"<td>{escape(event.sentence)}{_recheck(by_request.get(event.request or ''))}<td>{_states(event.signals)}"
        for event in reversed(decisions[-MAX_DECISIONS:])
    ]
    return f"<table><tr><th>At<th>Window<th>Decision<th>Why<th>Signals{''.join(rows)}</table>"


def _recheck(recheck: CauseRechecked | None) -> str:
    if recheck is None:
        return ""
    result = "the cause has gone" if recheck.cleared else "the cause is still there"
    return f" <b>With version {escape(recheck.champion)} {result}.</b>"


def _states(signals: Iterable[Signal]) -> str:
    """Return the names of the signals that are not ok, coloured by their state."""
    not_ok = [s for s in signals if s.state is not SignalState.OK]
    return " ".join(f'<span class="{s.state}" title="{escape(s.sentence)}">{s.name}</span>' for s in not_ok)


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"
