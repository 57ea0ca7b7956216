"""Plant drift in `clicks` and measure on which drifted day the watch fires, from the sketches to its decision."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.monitoring.simulated_production import FIRST_DAY, FIRST_SERVED_DAY, SimulatedProduction
from include.adapters.tables.ledger import FileLedger
from include.domain.monitoring.signal import SignalState
from include.local.clicks import PlannedDrift
from include.stages.monitoring.snapshot import Snapshot

SEEDS = 6
#: Numbers of days that the champion answers before anything drifts (a cool-down), and of drifted days that are measured.
QUIET, DAYS = 7, 8
FIRST_DRIFTED_DAY = FIRST_SERVED_DAY + QUIET
DRIFT_DATE = FIRST_DAY + timedelta(days=FIRST_DRIFTED_DAY)
#: The planned drift of the inputs by its name, and the number of the drifted day by which `feature_drift` must fire.
INPUTS = {
    "gradual": (PlannedDrift(DRIFT_DATE, days=6), 2),
    "sudden": (PlannedDrift(DRIFT_DATE, size=0.5), 1),
    "one_feature": (PlannedDrift(DRIFT_DATE, size=0.2, field="i5"), 2),
}
CONCEPT = PlannedDrift(DRIFT_DATE, "concept", size=0.8)
#: A season that is no drift: every weekend differs, in the champion's training days and since.
SEASON = PlannedDrift(FIRST_DAY, size=0.5, weekdays=(5, 6))
#: The signals that need labels, and those that need none and so cannot show a concept that changes while the inputs stay.
LABELLED, BLIND = ("logloss", "auc"), ("estimated_auc", "feature_drift", "prediction_drift")
#: The number of a day that never comes.
NEVER = 10**9


def first_fires(production: SimulatedProduction, name: str, *drift: PlannedDrift, days: int = DAYS) -> dict[str, int]:
    """Return by signal the first drifted day on which it fires, counted from 1; `asked` is the first that starts a training."""
    first: dict[str, int] = {}
    production.ledger = FileLedger(production.folder / name)  # no request of another drift cools this one down
    for number in range(1, days + 1):
        production.serve_days([FIRST_DRIFTED_DAY + number - 1], *drift)
        snapshot = production.take_snapshot(FIRST_DRIFTED_DAY + number - 1)
        for signal in snapshot.signals:
            if signal.state is SignalState.FIRE:
                first.setdefault(signal.name, number)
        if production.starts_training(snapshot, f"{name} {number}"):
            first.setdefault("asked", number)
    return first


def cbpe_error(snapshot: Snapshot) -> float:
    """Return |estimated − realised AUC|; the value of either signal is its fall from the AUC of the test windows."""
    estimated, realised = snapshot["estimated_auc"].value, snapshot["auc"].value
    return abs(estimated - realised) if estimated is not None and realised is not None else float("nan")


def measure_seed(seed: int) -> tuple[dict[str, dict[str, int]], list[float]]:
    """Return the first fires by kind of drift, and the errors of the estimated AUC on windows whose concept has not drifted."""
    fires, errors = {}, []
    with TemporaryDirectory() as folder:
        production = SimulatedProduction(Path(folder) / "plain", seed)
        production.serve_days(range(FIRST_SERVED_DAY, FIRST_DRIFTED_DAY))
        errors.append(cbpe_error(production.take_snapshot(FIRST_DRIFTED_DAY - 1)))
        for name, (drift, bound) in INPUTS.items():
            fires[name] = first_fires(production, name, drift, days=bound)
            errors.append(cbpe_error(production.take_snapshot(FIRST_DRIFTED_DAY + bound - 1)))
        fires["concept"] = first_fires(production, "concept", CONCEPT)
        weekly = SimulatedProduction(Path(folder) / "weekly", seed, SEASON)
        weekly.serve_days(range(FIRST_SERVED_DAY, FIRST_DRIFTED_DAY))
        fires["seasonal"] = first_fires(weekly, "seasonal")
    return fires, errors


def section() -> tuple[dict[str, Any], dict[str, bool]]:
    """Return the figures, and which of their bounds hold."""
    by_seed = [measure_seed(seed) for seed in range(SEEDS)]
    errors = [error for _, each in by_seed for error in each]
    first = {
        name: {signal: [fires[name].get(signal, NEVER) for fires, _ in by_seed] for signal in signals}
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
    return {"first_fire_by_seed": _null_for_never(first), "cbpe_auc_error": spread}, holds


def _null_for_never(first: dict[str, dict[str, list[int]]]) -> dict[str, dict[str, list[int | None]]]:
    """Return the same with None, which is null in JSON, in place of `NEVER`."""
    return {
        name: {signal: [None if day == NEVER else day for day in days] for signal, days in each.items()}
        for name, each in first.items()
    }
