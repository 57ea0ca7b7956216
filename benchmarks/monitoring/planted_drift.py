"""Drift planted in `clicks`, seen by the watch from sketches to decision: on the how many-th drifted day does it fire?"""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.monitoring.world import ENDS, FIRST, World
from include.adapters.tables.ledger import FileLedger
from include.domain.monitoring.signal import SignalState
from include.local.clicks import PlannedDrift
from include.stages.monitoring.snapshot import Snapshot

SEEDS = 6
#: Days that the champion answers before anything drifts (a cool-down), and drifted days that are looked at.
QUIET, DAYS = 7, 8
BEGIN = ENDS + QUIET
DATE = FIRST + timedelta(days=BEGIN)
#: By name: the drift, and the day by which `feature_drift` must fire.
INPUTS = {
    "gradual": (PlannedDrift(DATE, days=6), 2),
    "sudden": (PlannedDrift(DATE, size=0.5), 1),
    "one_feature": (PlannedDrift(DATE, size=0.2, field="i5"), 2),
}
CONCEPT = PlannedDrift(DATE, "concept", size=0.8)
#: Every weekend, of the champion's days and since.
SEASON = PlannedDrift(FIRST, size=0.5, weekdays=(5, 6))
#: What labels show, and what nothing but labels can show of a concept that turned while the inputs stayed.
LABELLED, BLIND = ("logloss", "auc"), ("estimated_auc", "feature_drift", "prediction_drift")
NEVER = 10**9


def planted(world: World, name: str, *drift: PlannedDrift, days: int = DAYS) -> dict[str, int]:
    """By signal: the first of the drifted days on which it fires; `asked`: on which a training is asked for."""
    first: dict[str, int] = {}
    world.ledger = FileLedger(world.folder / name)  # no request of another drift cools this one down
    for number in range(1, days + 1):
        world.live([BEGIN + number - 1], *drift)
        snapshot = world.take_snapshot(BEGIN + number - 1)
        for signal in snapshot.signals:
            if signal.state is SignalState.FIRE:
                first.setdefault(signal.name, number)
        if world.asks(snapshot, f"{name} {number}"):
            first.setdefault("asked", number)
    return first


def cbpe_error(snapshot: Snapshot) -> float:
    """Return |estimated − realised AUC|; the value of either signal is its fall from the AUC of the test windows."""
    estimated, realised = snapshot["estimated_auc"].value, snapshot["auc"].value
    return abs(estimated - realised) if estimated is not None and realised is not None else float("nan")


def one(seed: int) -> tuple[dict[str, dict[str, int]], list[float]]:
    """What fired when for each kind of drift, and the estimate's errors on windows whose concept had not drifted."""
    found, errors = {}, []
    with TemporaryDirectory() as folder:
        world = World(Path(folder) / "plain", seed)
        world.live(range(ENDS, BEGIN))
        errors.append(cbpe_error(world.take_snapshot(BEGIN - 1)))
        for name, (drift, bound) in INPUTS.items():
            found[name] = planted(world, name, drift, days=bound)
            errors.append(cbpe_error(world.take_snapshot(BEGIN + bound - 1)))
        found["concept"] = planted(world, "concept", CONCEPT)
        weekly = World(Path(folder) / "weekly", seed, SEASON)
        weekly.live(range(ENDS, BEGIN))
        found["seasonal"] = planted(weekly, "seasonal")
    return found, errors


def section() -> tuple[dict[str, Any], dict[str, bool]]:
    """The figures, and which bounds hold."""
    worlds = [one(seed) for seed in range(SEEDS)]
    errors = [error for _, each in worlds for error in each]
    first = {
        name: {signal: [found[name].get(signal, NEVER) for found, _ in worlds] for signal in signals}
        for name, signals in {
            **dict.fromkeys(INPUTS, ("feature_drift", "asked")),
            "seasonal": ("feature_drift", "prediction_drift", "asked"),
            "concept": (*LABELLED, *BLIND, "asked"),
        }.items()
    }
    holds = {name: max(first[name]["feature_drift"]) <= bound for name, (_, bound) in INPUTS.items()}
    holds |= {
        "seasonal": not any(min(days) < NEVER for days in first["seasonal"].values()),
        "concept_seen": max(map(min, zip(*(first["concept"][name] for name in LABELLED), strict=True))) <= DAYS,
        "concept_invisible_to_estimate": not any(min(first["concept"][name]) < NEVER for name in BLIND),
        "cbpe": float(np.quantile(errors, 0.95)) <= 0.02,
    }
    spread = {"median": round(float(np.median(errors)), 4), "p95": round(float(np.quantile(errors, 0.95)), 4)}
    return {"first_fire_by_seed": _shown(first), "cbpe_auc_error": spread}, holds


def _shown(first: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, list[int | None]]]:
    """JSON's null for never."""
    return {
        name: {signal: [None if day == NEVER else day for day in days] for signal, days in each.items()}
        for name, each in first.items()
    }
