"""What happened to a model, from its records, as tables for a person."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from include.settings import Settings
from include.wiring import Parts

CANDIDATES = ("challenger", "champion", "lightgbm", "logistic")


@dataclass(frozen=True)
class Timed:
    """One run as it went: its tasks' own seconds, and the seconds on the wall while it was not waiting for a person."""

    dag: str
    tasks: Mapping[str, float]
    wall: float

    @property
    def overhead(self) -> float:
        """The share of the wall time that was no task's own work."""
        return 1 - min(sum(self.tasks.values()), self.wall) / self.wall if self.wall else 0.0


def show(settings: Settings, model: str, timed: Sequence[Timed], console: Console) -> None:
    """The versions on their test windows, the canaries, the decisions, the seconds, and where to look further."""
    rows = Parts(settings).ledger().read(model)
    for table in (versions(settings, model, rows), rollouts(rows), decisions(rows), seconds(timed)):
        console.print()
        console.print(table)


def versions(settings: Settings, model: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Each judged challenger: AUC of every candidate on the same test rows, the gates' verdict, what became of it."""
    table = Table("version", "tested on", *(f"{c} AUC" for c in CANDIDATES), "gates", "outcome", title="Model versions")
    numbers = {row["run"]: row["version"] for row in rows if row["kind"] == "registered"}
    for path in evaluations(settings, model):
        record = json.loads(path.read_text())
        verdict = json.loads(path.with_name("verdict.json").read_text())
        number = numbers.get(record["run"])
        aucs = [_interval(record["metrics"].get(name, {}).get("auc")) for name in CANDIDATES]
        tested = record["windows"]["test"]
        table.add_row(
            number or "–", f"{tested[0]} to {tested[-1]}", *aucs, verdict["outcome"], _fate(number, rows, verdict)
        )
    return table


def evaluations(settings: Settings, model: str) -> list[Path]:
    """The judged evaluations, oldest first."""
    paths = (settings.runs / model).glob("*/evaluation/evaluation.json")
    return sorted((p for p in paths if p.with_name("verdict.json").exists()), key=lambda p: p.stat().st_mtime)


def rollouts(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The last look of each step: how much traffic each slot had by then, and what the judge said."""
    table = Table("version", "step", "canary", "stable", "looks", "verdict", "because", title="Canary")
    last = {(row["version"], row["step"]): row for row in rows if row["kind"] == "look"}
    for (version, step), row in last.items():
        counts = {slot: f"{n:,} ({e:,} failed)" for slot, (n, e, _) in row["counts"].items()}
        table.add_row(version, step, counts.get("canary", "–"), counts.get("stable", "–"), str(row["number"]),
                      row["verdict"]["outcome"], row["sentence"])  # fmt: skip
    return table


def decisions(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What the watch decided, and why."""
    table = Table("data until", "champion", "retrain", "why", title="Watch")
    for row in rows:
        if row["kind"] == "decision":
            table.add_row(
                str(row["as_of"])[:10], row["champion"] or "–", "yes" if row["start"] else "no", row["sentence"]
            )
    return table


def seconds(timed: Sequence[Timed]) -> Table:
    """Each run's tasks, and how much time the orchestration added around them."""
    table = Table("run", "seconds per step", "wall", "around the work", title="Time")
    for run in timed:
        steps = ", ".join(f"{task} {taken:.1f}" for task, taken in run.tasks.items())
        table.add_row(run.dag, steps, f"{run.wall:.0f} s", f"{run.overhead:.0%}")
    return table


def last_decision(settings: Settings, model: str) -> str:
    """The watch's newest sentence."""
    row = Parts(settings).ledger().read(model, "decision")[-1]
    return f"the watch says {'yes' if row['start'] else 'no'}: {row['sentence']}"


def held_back(settings: Settings, model: str) -> str:
    """Why the newest challenger was not released."""
    judged = [row for row in Parts(settings).ledger().read(model, "judged") if not row["released"]]
    return "; ".join(judged[-1]["reasons"]) if judged else "its training did not finish; see its run in Airflow"


def _fate(number: str | None, rows: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]) -> str:
    if number is None:
        reasons = [c["sentence"] for c in verdict["checks"] if c["outcome"] != "pass"]
        return "held back: " + "; ".join(reasons)
    return " → ".join(_steps(number, rows))


def _steps(number: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
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
