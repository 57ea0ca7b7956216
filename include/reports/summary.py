"""How a model stands: its versions, rollouts and decisions as tables and sentences, for a terminal and for a page."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from include.artifacts import store
from include.artifacts.evaluation_record import EvaluationRecord, MetricEstimate
from include.artifacts.verdict_record import VerdictRecord
from include.domain.events import (
    ChallengerJudged,
    ChampionPromoted,
    Event,
    RetrainingDecided,
    RolloutChanged,
    StepAnalysed,
    VersionApproved,
    VersionRegistered,
    VersionRejected,
)
from include.domain.windows import parse_utc
from include.ports.ledger import Ledger
from include.reports.html import ReportTable
from include.stages.release import promotion

#: A watch that runs decides more often than this, whether there is new evidence or not.
LONGEST_PAUSE = timedelta(minutes=20)
CANDIDATES = ("challenger", "champion", "lightgbm", "logistic")


def champion_at(model: str, ledger: Ledger, at: datetime) -> str:
    """Say who was champion at that moment, since when, and why."""
    champion = promotion.promotion_at(model, at, ledger)
    if champion is None:
        return f"{model} had no champion at {at:%Y-%m-%d %H:%M} UTC"
    approved = champion.approved_at and f"{parse_utc(champion.approved_at):%Y-%m-%d %H:%M} UTC"
    return (
        f"version {champion.version} since {champion.at:%Y-%m-%d %H:%M} UTC: {champion.reason}; verdict "
        f"{champion.verdict}, approved by {champion.approved_by} at {approved}, trained by run {champion.run}"
    )


def tables(model: str, ledger: Ledger, runs: Path) -> list[ReportTable]:
    """Return the tables of versions, rollouts and decisions; `runs` is the folder of all models' training runs."""
    events = ledger.read_all(model)
    return [versions(events, runs / model), rollouts(events), decisions(events)]


def versions(events: Sequence[Event], runs: Path) -> ReportTable:
    """Return each judged challenger: the AUC of every candidate on the same test rows, the verdict, and what became of it.

    `runs` is the folder of the model's training runs.
    """
    numbers = {event.run: event.version for event in events if isinstance(event, VersionRegistered)}
    lines, links = [], []
    for path in judged_evaluations(runs):
        record = store.load(path, EvaluationRecord)
        verdict = store.load(path.with_name("verdict.json"), VerdictRecord)
        number, windows = numbers.get(record.run), record.windows.test
        aucs = [_auc(record.metrics.get(name, {}).get("auc")) for name in CANDIDATES]
        outcome = " → ".join(_steps(number, events)) if number else "held back: " + "; ".join(verdict.verdict.reasons)
        lines.append((number or "–", f"{windows[0]} to {windows[-1]}", *aucs, verdict.outcome, outcome))
        links.append(quote(f"runs/{path.with_name('card.html').relative_to(runs)}"))
    heads = ("version", "tested on", *(f"{name} AUC" for name in CANDIDATES), "gates", "outcome")
    return ReportTable(heads, lines, "Model versions", links)


def judged_evaluations(runs: Path) -> list[Path]:
    """Return the paths of the evaluations that have a verdict, oldest first."""
    paths = runs.glob("*/evaluation/evaluation.json")
    return sorted((p for p in paths if p.with_name("verdict.json").exists()), key=lambda p: p.stat().st_mtime)


def rollouts(events: Sequence[Event]) -> ReportTable:
    """Return the last analysis of each step: how much traffic each slot had by then, and the verdict."""
    lines = []
    last = {(event.version, event.run, event.step): event for event in events if isinstance(event, StepAnalysed)}
    for (version, _, step), event in last.items():
        counts = {slot: f"{count.requests:,} ({count.errors:,} failed)" for slot, count in event.counts.items()}
        traffic = (counts.get("canary", "–"), counts.get("stable", "–"))
        lines.append((version, step, *traffic, str(event.number), event.verdict.outcome, event.sentence))
    heads = ("version", "step", "canary", "stable", "looks", "verdict", "because")
    return ReportTable(heads, lines, "Canary", [quote(f"rollouts/{run}/") for _, run, _ in last])


def decisions(events: Sequence[Event]) -> ReportTable:
    """Return what the watch decided, and why."""
    lines = [
        (_date(event.as_of), event.champion or "–", "yes" if event.start else "no", event.sentence)
        for event in events
        if isinstance(event, RetrainingDecided)
    ]
    return ReportTable(("data until", "champion", "retrain", "why"), lines, "Watch")


def why(model: str, ledger: Ledger, at: datetime) -> str:
    """Say what the watch had decided by that moment, why, and the signals that it saw, a line each."""
    until_then = [event for event in ledger.read(model, RetrainingDecided) if event.at <= at]
    if not until_then:
        return f"the watch of {model} had not looked once by {at:%Y-%m-%d %H:%M} UTC"
    last = until_then[-1]
    data = f"data until {_date(last.as_of)}" if last.as_of else "no data"
    lines = [
        f"{'training asked for' if last.start else 'nothing started'}: {last.sentence}",
        f"decided at {last.at:%Y-%m-%d %H:%M} UTC ({data}, champion {last.champion or 'none'}) by the run {last.run}",
    ]
    if at - last.at > LONGEST_PAUSE:
        lines.append(
            f"the watch did not look again before {at:%Y-%m-%d %H:%M} UTC: its DAG was paused, or the stack was down"
        )
    return "\n".join([*lines, *(f"  {s.state:<8} {s.name:<17} {s.sentence}" for s in last.signals)])


def reasons_not_released(model: str, ledger: Ledger) -> str:
    """Say why the newest challenger was not released."""
    not_released = [event for event in ledger.read(model, ChallengerJudged) if not event.released]
    return (
        "; ".join(not_released[-1].reasons) if not_released else "its training did not finish; see its run in Airflow"
    )


def _steps(number: str, events: Sequence[Event]) -> Iterator[str]:
    """Yield what became of a registered version, oldest first."""
    for event in events:
        match event:
            case VersionApproved(version=version) | VersionRejected(version=version) if version == number:
                yield f"{event.kind} by {event.by}"
            case ChampionPromoted(version=version) if version == number:
                yield "champion"
            case RolloutChanged(version=version, event="rolled back") if version == number:
                yield f"rolled back: {event.reason}"


def _date(at: datetime | None) -> str:
    return str(at and at.date())


def _auc(estimate: MetricEstimate | None) -> str:
    return f"{estimate.value:.4f} ±{(estimate.high - estimate.low) / 2:.4f}" if estimate else "–"
