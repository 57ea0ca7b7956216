"""The evidence of a rollout for people: its analyses as confidence sequences against the margins, and its story."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path

from include.artifacts.atomic_write import write_atomically
from include.domain.events import ActionRequested, Event, RolloutChanged, ShadowCompared, StepAnalysed
from include.domain.rollout.decision import StepDecision
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.reports import html, plots
from include.reports.html import ReportTable
from include.reports.plots import PlotLine
from include.stages.rollout.state import RolloutState

#: Margins shown to each side of 0; the first analyses of a step say next to nothing, and their intervals are cut there.
VISIBLE_MARGINS = 5
HEADS = ("step", "slot", "requests", "errors", "slow", "analyses", "verdict")


def attach(state: RolloutState, ledger: Ledger, registry: Registry, folder: Path) -> None:
    """Write the pages of a rollout that has ended and attach them to the tracking run of the version's training."""
    pages = write(state.model, state.run, ledger, folder)
    if run_id := registry.version(state.model, state.version).tags.get("mlflow_run_id"):
        registry.attach(run_id, pages, f"rollout/{state.run}")


@dataclass(frozen=True)
class GuardEstimate:
    """What an analysis knew of a guard: how much worse the challenger is, its interval, and the guard's margin."""

    at: datetime
    value: float
    interval: tuple[float, float]
    bound: float | None


def write(model: str, run: str, ledger: Ledger, folder: Path) -> list[Path]:
    """Write `rollout.html` and a plot per guard into `folder`/`model`-`run`/, and return their paths."""
    pages = {"rollout.html": page(model, run, ledger), **charts(analyses_of(model, run, ledger))}
    out = folder / f"{model}-{run}"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        write_atomically(out / name, text)
    return [out / name for name in pages]


def page(model: str, run: str, ledger: Ledger) -> str:
    """Return the rollout as HTML, also while it runs: what happened, the traffic of each step, and a plot per guard."""
    changes = [event for event in ledger.read(model, RolloutChanged) if event.run == run]
    comparisons = [event for event in ledger.read(model, ShadowCompared) if event.run == run]
    actions = [event for event in ledger.read(model, ActionRequested) if event.run == run]
    analyses = analyses_of(model, run, ledger)
    lines = [*map(_line, changes), *map(_line, comparisons), *map(_line, actions), *_decisions(analyses)]
    story = "".join(f"<li>{escape(line)}</li>" for line in sorted(lines))
    body = [
        f"<p>{escape(run)}</p><ul>{story}</ul>",
        *charts(analyses).values(),
        html.table(ReportTable(HEADS, _traffic(analyses))),
    ]
    version = changes[0].version if changes else "?"
    return html.document(f"{model}: rollout of version {version}", "".join(body))


def analyses_of(model: str, run: str, ledger: Ledger) -> list[StepAnalysed]:
    """Return the recorded analyses of that run, oldest first."""
    return [event for event in ledger.read(model, StepAnalysed) if event.run == run]


def charts(analyses: Sequence[StepAnalysed]) -> dict[str, str]:
    """Return a chart as SVG by file name, for each guard that was ever estimated."""
    guards = list(dict.fromkeys(c.name for analysis in analyses for c in analysis.verdict.checks if c.interval))
    return {f"{guard}.svg": _chart(guard, analyses) for guard in guards}


def _chart(guard: str, analyses: Sequence[StepAnalysed]) -> str:
    began = analyses[0].at
    lines, bound = [], None
    for step, of_step in groupby(analyses, key=lambda analysis: analysis.step):
        estimates = [estimate for analysis in of_step for estimate in _estimates(analysis, guard)]
        if not estimates:
            continue
        bound = estimates[-1].bound
        minutes = [(estimate.at - began).total_seconds() / 60 for estimate in estimates]
        low, high = ([estimate.interval[end] for estimate in estimates] for end in (0, 1))
        lines.append(PlotLine(step, minutes, [estimate.value for estimate in estimates], low, high))
    axes = ("minutes since the first analysis", "worse by")
    y_range = (-VISIBLE_MARGINS * bound, VISIBLE_MARGINS * bound) if bound else None
    return plots.chart(f"{guard}, dashed: its margin", axes, lines, level=bound, y_range=y_range)


def _estimates(analysis: StepAnalysed, guard: str) -> list[GuardEstimate]:
    checks = [check for check in analysis.verdict.checks if check.name == guard]
    return [
        GuardEstimate(analysis.at, c.value, c.interval, c.bound) for c in checks if c.interval and c.value is not None
    ]


def _line(event: RolloutChanged | ShadowCompared | ActionRequested) -> str:
    """Return the event as a line of the rollout's story."""
    match event:
        case ActionRequested():
            what, reason = f"{event.by} says {event.word}", event.reason
        case ShadowCompared():
            what, reason = f"shadow (version {event.version})", event.sentence
        case RolloutChanged():
            what, reason = f"{event.event} (version {event.version})", event.reason
    return f"{_at(event)}: {what}" + (f": {reason}" if reason else "")


def _decisions(analyses: Sequence[StepAnalysed]) -> list[str]:
    decided = [analysis for analysis in analyses if analysis.decision != StepDecision.WAIT]
    return [f"{_at(analysis)}: {analysis.decision}: {analysis.sentence}" for analysis in decided]


def _at(event: Event) -> str:
    return f"{event.at:%Y-%m-%d %H:%M:%S}"


def _traffic(analyses: Sequence[StepAnalysed]) -> list[list[str]]:
    last = {analysis.step: analysis for analysis in analyses}
    return [
        [step, slot, *(f"{n:,}" for n in counts), f"{analysis.number:,}", analysis.verdict.outcome]
        for step, analysis in last.items()
        for slot, counts in analysis.counts.items()
    ]
