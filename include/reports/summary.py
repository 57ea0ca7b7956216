"""How a model stands: its versions, rollouts and decisions as tables, for a terminal and for a page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from include.stages.release import promotion

#: A watch that runs looks more often than this, whether there is news or not.
SILENT = timedelta(minutes=20)
CANDIDATES = ("challenger", "champion", "lightgbm", "logistic")


@dataclass(frozen=True)
class Table:
    """`links` `[rows]` are the pages behind the rows, as seen from the model's page; empty where there are none."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...] = ()


def reign(model: str, ledger: Ledger, at: datetime) -> str:
    """Who was champion at that moment, since when, and why."""
    champion = promotion.champion_on(model, at, ledger)
    if champion is None:
        return f"{model} had no champion at {at:%Y-%m-%d %H:%M} UTC"
    approved = champion.approved_at and f"{parse_utc(champion.approved_at):%Y-%m-%d %H:%M} UTC"
    return (
        f"version {champion.version} since {champion.at:%Y-%m-%d %H:%M} UTC: {champion.reason}; verdict "
        f"{champion.verdict}, approved by {champion.approved_by} at {approved}, trained by run {champion.run}"
    )


def tables(model: str, ledger: Ledger, runs: Path) -> list[Table]:
    events = ledger.read_all(model)
    return [versions(events, runs / model), rollouts(events), decisions(events)]


def versions(events: Sequence[Event], runs: Path) -> Table:
    """Each judged challenger: AUC of every candidate on the same test rows, the gates' verdict, what became of it."""
    numbers = {event.run: event.version for event in events if isinstance(event, VersionRegistered)}
    lines, links = [], []
    for path in evaluations(runs):
        record = json.loads(path.read_text(encoding="utf-8"))
        verdict = json.loads(path.with_name("verdict.json").read_text(encoding="utf-8"))
        number = numbers.get(record["run"])
        aucs = [_interval(record["metrics"].get(name, {}).get("auc")) for name in CANDIDATES]
        tested = f"{record['windows']['test'][0]} to {record['windows']['test'][-1]}"
        lines.append((number or "–", tested, *aucs, verdict["outcome"], _fate(number, events, verdict)))
        links.append(quote(f"runs/{path.with_name('card.html').relative_to(runs)}"))
    heads = ("version", "tested on", *(f"{c} AUC" for c in CANDIDATES), "gates", "outcome")
    return Table("Model versions", heads, tuple(lines), tuple(links))


def evaluations(runs: Path) -> list[Path]:
    """The judged evaluations, oldest first."""
    paths = runs.glob("*/evaluation/evaluation.json")
    return sorted((p for p in paths if p.with_name("verdict.json").exists()), key=lambda p: p.stat().st_mtime)


def rollouts(events: Sequence[Event]) -> Table:
    """The last look of each step: how much traffic each slot had by then, and what the judge said."""
    lines = []
    last = {(event.version, event.run, event.step): event for event in events if isinstance(event, StepAnalysed)}
    for (version, _, step), event in last.items():
        counts = {slot: f"{count.requests:,} ({count.errors:,} failed)" for slot, count in event.counts.items()}
        arms = (counts.get("canary", "–"), counts.get("stable", "–"))
        lines.append((version, step, *arms, str(event.number), event.verdict.outcome, event.sentence))
    heads = ("version", "step", "canary", "stable", "looks", "verdict", "because")
    return Table("Canary", heads, tuple(lines), tuple(quote(f"rollouts/{run}/") for _, run, _ in last))


def decisions(events: Sequence[Event]) -> Table:
    """What the watch decided, and why."""
    lines = [
        (_date(event.as_of), event.champion or "–", "yes" if event.start else "no", event.sentence)
        for event in events
        if isinstance(event, RetrainingDecided)
    ]
    return Table("Watch", ("data until", "champion", "retrain", "why"), tuple(lines))


def why(model: str, ledger: Ledger, at: datetime) -> str:
    """What the watch had decided by that moment, why, and the signals that it saw: a line each."""
    decisions = [event for event in ledger.read(model, RetrainingDecided) if event.at <= at]
    if not decisions:
        return f"the watch of {model} had not looked once by {at:%Y-%m-%d %H:%M} UTC"
    last = decisions[-1]
    until = f"data until {_date(last.as_of)}" if last.as_of else "no data"
    heads = [
        f"{'training asked for' if last.start else 'nothing started'}: {last.sentence}",
        f"decided at {last.at:%Y-%m-%d %H:%M} UTC ({until}, champion {last.champion or 'none'}) by the run {last.run}",
    ]
    if at - last.at > SILENT:
        heads.append(
            f"the watch did not look again before {at:%Y-%m-%d %H:%M} UTC: its DAG was paused, or the stack was down"
        )
    return "\n".join([*heads, *(f"  {s.state:<8} {s.name:<17} {s.sentence}" for s in last.signals)])


def held_back(model: str, ledger: Ledger) -> str:
    """Why the newest challenger was not released."""
    rejected = [event for event in ledger.read(model, ChallengerJudged) if not event.released]
    return "; ".join(rejected[-1].reasons) if rejected else "its training did not finish; see its run in Airflow"


def _fate(number: str | None, events: Sequence[Event], verdict: Mapping[str, Any]) -> str:
    if number is None:
        reasons = [c["sentence"] for c in verdict["checks"] if c["outcome"] != "pass"]
        return "held back: " + "; ".join(reasons)
    return " → ".join(_steps(number, events))


def _steps(number: str, events: Sequence[Event]) -> Iterator[str]:
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


def _interval(auc: Mapping[str, float] | None) -> str:
    return f"{auc['value']:.4f} ±{(auc['high'] - auc['low']) / 2:.4f}" if auc else "–"
