"""A rollout's evidence for people: its looks as confidence sequences against the margins, step by step, and its story."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from include.artifacts.files import write_atomically
from include.domain.windows import parse
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.reports import html, plots
from include.reports.plots import Line
from include.stages.rollout.state import State

Row = Mapping[str, Any]
#: Margins shown to each side of 0; the first looks of a step know next to nothing, and their intervals are cut there.
VIEW = 5
HEADS = ("step", "slot", "requests", "errors", "slow", "looks", "verdict")


def attach(state: State, ledger: Ledger, registry: Registry, folder: Path) -> None:
    """Write the pages of a rollout that has ended and attach them to the tracking run of the version's training."""
    pages = write(state.model, state.run, ledger, folder)
    if run_id := registry.version(state.model, state.version).tags.get("mlflow_run_id"):
        registry.attach(run_id, pages, f"rollout/{state.run}")


def write(model: str, run: str, ledger: Ledger, folder: Path) -> list[Path]:
    """Write `rollout.html` and a plot per guard into `folder`/`model`-`run`/; their paths."""
    pages = {"rollout.html": page(model, run, ledger), **pictures(looks_of(model, run, ledger))}
    out = folder / f"{model}-{run}"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        write_atomically(out / name, text)
    return [out / name for name in pages]


def page(model: str, run: str, ledger: Ledger) -> str:
    """The rollout as HTML, also while it runs: what happened, the traffic of each step, and a plot per guard."""
    story = [row for row in ledger.read(model, "rollout") if row.get("run") == run]
    story += [{**row, "event": "shadow"} for row in ledger.read(model, "agreement") if row["run"] == run]
    said = [row for row in ledger.read(model, "word") if row.get("run") == run]
    looks = looks_of(model, run, ledger)
    told = "".join(f"<li>{escape(line)}</li>" for line in _story(story, said, looks))
    body = [f"<p>{escape(run)}</p><ul>{told}</ul>", *pictures(looks).values(), html.table(HEADS, _traffic(looks))]
    version = story[0]["version"] if story else "?"
    return html.document(f"{model}: rollout of version {version}", "".join(body))


def looks_of(model: str, run: str, ledger: Ledger) -> list[dict[str, Any]]:
    return [row for row in ledger.read(model, "look") if row["run"] == run]


def pictures(looks: Sequence[Row]) -> dict[str, str]:
    """SVG by file name, one per guard that was ever estimated."""
    guards = list(dict.fromkeys(c["name"] for look in looks for c in look["verdict"]["checks"] if c["interval"]))
    return {f"{guard}.svg": _sequence(guard, looks) for guard in guards}


def _sequence(guard: str, looks: Sequence[Row]) -> str:
    began = parse(looks[0]["at"])
    lines, bound = [], None
    for step, rows in groupby(looks, key=lambda look: look["step"]):
        seen = [(look, check) for look in rows for check in _estimated(look, guard)]
        if not seen:
            continue
        bound = seen[-1][1]["bound"]
        minutes = [(parse(look["at"]) - began).total_seconds() / 60 for look, _ in seen]
        low, high = ([check["interval"][end] for _, check in seen] for end in (0, 1))
        lines.append(Line(step, minutes, [check["value"] for _, check in seen], low, high))
    axes = ("minutes since the first look", "worse by")
    up = (-VIEW * bound, VIEW * bound) if bound else None
    return plots.chart(f"{guard}, dashed: its margin", axes, lines, level=bound, up=up)


def _estimated(look: Row, guard: str) -> list[Row]:
    checks = look["verdict"]["checks"]
    return [c for c in checks if c["name"] == guard and c["interval"] and c["value"] is not None]


def _story(story: Sequence[Row], said: Sequence[Row], looks: Sequence[Row]) -> list[str]:
    lines = [f"{_at(row)}: {row['event']} (version {row['version']}){_because(row)}" for row in story]
    words = [f"{_at(row)}: {row['by']} says {row['word']}{_because(row)}" for row in said]
    decided = [f"{_at(row)}: {row['decision']}: {row['sentence']}" for row in looks if row["decision"] != "wait"]
    return sorted([*lines, *words, *decided])


def _at(row: Row) -> str:
    return f"{parse(row['at']):%Y-%m-%d %H:%M:%S}"


def _traffic(looks: Sequence[Row]) -> list[list[str]]:
    last = {row["step"]: row for row in looks}
    return [
        [step, slot, *(f"{n:,}" for n in counts), f"{row['number']:,}", row["verdict"]["outcome"]]
        for step, row in last.items()
        for slot, counts in row["counts"].items()
    ]


def _because(row: Row) -> str:
    said = row.get("reason") or row.get("sentence")
    return f": {said}" if said else ""
