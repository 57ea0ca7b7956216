"""How a model stands: its versions, rollouts and decisions as tables, for a terminal and for a page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from include.domain.windows import parse
from include.ports.ledger import Ledger
from include.stages.release import promotion

#: A watch that runs looks more often than this, whether there is news or not.
SILENT = timedelta(minutes=20)
CANDIDATES = ("challenger", "champion", "lightgbm", "logistic")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """`links` `[rows]` are the pages behind the rows, as seen from the model's page; empty where there are none."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...] = ()


def reign(model: str, ledger: Ledger, at: datetime) -> str:
    """Who was champion at that moment, since when, and why."""
    row = promotion.champion_on(model, at, ledger)
    if row is None:
        return f"{model} had no champion at {at:%Y-%m-%d %H:%M} UTC"
    since, approved = parse(row["at"]), row["approved_at"] and f"{parse(row['approved_at']):%Y-%m-%d %H:%M} UTC"
    return (
        f"version {row['version']} since {since:%Y-%m-%d %H:%M} UTC: {row['reason']}; verdict {row['verdict']}, "
        f"approved by {row['approved_by']} at {approved}, trained by run {row['run']}"
    )


def tables(model: str, ledger: Ledger, runs: Path) -> list[Table]:
    rows = ledger.read(model)
    return [versions(rows, runs / model), rollouts(rows), decisions(rows)]


def versions(rows: Sequence[Row], runs: Path) -> Table:
    """Each judged challenger: AUC of every candidate on the same test rows, the gates' verdict, what became of it."""
    numbers = {row["run"]: row["version"] for row in rows if row["kind"] == "registered"}
    lines, links = [], []
    for path in evaluations(runs):
        record = json.loads(path.read_text(encoding="utf-8"))
        verdict = json.loads(path.with_name("verdict.json").read_text(encoding="utf-8"))
        number = numbers.get(record["run"])
        aucs = [_interval(record["metrics"].get(name, {}).get("auc")) for name in CANDIDATES]
        tested = f"{record['windows']['test'][0]} to {record['windows']['test'][-1]}"
        lines.append((number or "–", tested, *aucs, verdict["outcome"], _fate(number, rows, verdict)))
        links.append(quote(f"runs/{path.with_name('card.html').relative_to(runs)}"))
    heads = ("version", "tested on", *(f"{c} AUC" for c in CANDIDATES), "gates", "outcome")
    return Table("Model versions", heads, tuple(lines), tuple(links))


def evaluations(runs: Path) -> list[Path]:
    """The judged evaluations, oldest first."""
    paths = runs.glob("*/evaluation/evaluation.json")
    return sorted((p for p in paths if p.with_name("verdict.json").exists()), key=lambda p: p.stat().st_mtime)


def rollouts(rows: Sequence[Row]) -> Table:
    """The last look of each step: how much traffic each slot had by then, and what the judge said."""
    lines = []
    last = {(row["version"], row["run"], row["step"]): row for row in rows if row["kind"] == "look"}
    for (version, _, step), row in last.items():
        counts = {slot: f"{n:,} ({e:,} failed)" for slot, (n, e, _) in row["counts"].items()}
        arms = (counts.get("canary", "–"), counts.get("stable", "–"))
        lines.append((version, step, *arms, str(row["number"]), row["verdict"]["outcome"], row["sentence"]))
    heads = ("version", "step", "canary", "stable", "looks", "verdict", "because")
    return Table("Canary", heads, tuple(lines), tuple(quote(f"rollouts/{run}/") for _, run, _ in last))


def decisions(rows: Sequence[Row]) -> Table:
    """What the watch decided, and why."""
    lines = [
        (str(row["as_of"])[:10], row["champion"] or "–", "yes" if row["start"] else "no", row["sentence"])
        for row in rows
        if row["kind"] == "decision"
    ]
    return Table("Watch", ("data until", "champion", "retrain", "why"), tuple(lines))


def why(model: str, ledger: Ledger, at: datetime) -> str:
    """What the watch had decided by that moment, why, and the signals that it saw: a line each."""
    rows = [row for row in ledger.read(model, "decision") if parse(row["at"]) <= at]
    if not rows:
        return f"the watch of {model} had not looked once by {at:%Y-%m-%d %H:%M} UTC"
    row, looked = rows[-1], parse(rows[-1]["at"])
    until = f"data until {row['as_of'][:10]}" if row["as_of"] else "no data"
    heads = [
        f"{'training asked for' if row['start'] else 'nothing started'}: {row['sentence']}",
        f"decided at {looked:%Y-%m-%d %H:%M} UTC ({until}, champion {row['champion'] or 'none'}) by the run {row['run']}",
    ]
    if at - looked > SILENT:
        heads.append(
            f"the watch did not look again before {at:%Y-%m-%d %H:%M} UTC: its DAG was paused, or the stack was down"
        )
    return "\n".join([*heads, *(f"  {s['state']:<8} {s['name']:<17} {s['sentence']}" for s in row["signals"])])


def held_back(model: str, ledger: Ledger) -> str:
    """Why the newest challenger was not released."""
    judged = [row for row in ledger.read(model, "judged") if not row["released"]]
    return "; ".join(judged[-1]["reasons"]) if judged else "its training did not finish; see its run in Airflow"


def _fate(number: str | None, rows: Sequence[Row], verdict: Row) -> str:
    if number is None:
        reasons = [c["sentence"] for c in verdict["checks"] if c["outcome"] != "pass"]
        return "held back: " + "; ".join(reasons)
    return " → ".join(_steps(number, rows))


def _steps(number: str, rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.get("version") != number:
            continue
        if row["kind"] in ("approved", "rejected"):
            yield f"{row['kind']} by {row['by']}"
        elif row["kind"] == "champion":
            yield "champion"
        elif row["kind"] == "rollout" and row["event"] == "rolled back":
            yield f"rolled back: {row['reason']}"


def _interval(auc: Mapping[str, float] | None) -> str:
    return f"{auc['value']:.4f} ±{(auc['high'] - auc['low']) / 2:.4f}" if auc else "–"
