"""A scenario of production to watch: tables, a champion, its logged predictions and a ledger, fakes but for its files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.adapters.serving.segments import FEEDBACK, PREDICTIONS, SCHEMAS
from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import SplitWindows
from include.artifacts.store import Reference
from include.domain.features.encoding import fit
from include.domain.monitoring.retraining import RetrainingDecision
from include.domain.rollout.variants import RequestCounts
from include.domain.windows import Window, window_label
from include.ports.registry import Version
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import monitoring
from include.stages.monitoring.services import MonitoringServices
from include.stages.monitoring.snapshot import Snapshot
from tests.fakes import FakeLedger, FakeRegistry
from tests.memory import MemoryTables
from tests.records import evaluation_record, model_manifest

START = datetime(2013, 1, 7, tzinfo=UTC)
ROWS = 300
#: The time at which every event of the ledger is stamped.
NOW = datetime(2013, 3, 1, tzinfo=UTC)
SPEC = ModelSpec.model_validate(
    {
        "name": "flights",
        "description": "late?",
        "source": {"path": "x"},
        "columns": {"time": "at", "label": "late", "keys": ["id"], "numeric": ["temp"], "categorical": ["dest"]},
        "schedule": {"start": START},
    }
)
Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class LoggedTraffic:
    """What live traffic shows: the rows of the prediction log, and nothing else."""

    log: pa.Table = field(default_factory=SCHEMAS[PREDICTIONS].empty_table)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        return self.log

    def feedback(self, model: str) -> pa.Table:
        return SCHEMAS[FEEDBACK].empty_table()

    def revision(self, model: str) -> str:
        return str(len(self.log))

    def request_counts(self, model: str, slow_ms: float) -> Mapping[str, RequestCounts]:
        return {}


def window(day: int) -> Window:
    start = START + timedelta(days=day)
    return Window(start, start + timedelta(days=1))


class WatchScenario:
    """Days of flights and what version 1, trained on the first four weeks, predicted for those after its test weeks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables, self.traffic = folder, MemoryTables(), LoggedTraffic()
        self.registry, self.ledger = FakeRegistry(), FakeLedger(clock=lambda: NOW)
        self.services = MonitoringServices(self.tables, self.traffic, self.registry, self.ledger)
        for day in range(42):
            self.land(day)
        self.promote(self.train("1", 0))

    def day(self, day: int) -> dict[str, Any]:
        """Return the columns of a day; `chance` is the true probability, and the score of a perfect model."""
        random = np.random.default_rng(day)
        temp, dest = random.normal(size=ROWS), random.integers(0, 5, ROWS)
        chance = 1 / (1 + np.exp(1.5 - temp - 0.5 * dest))
        at = [START + timedelta(days=day, minutes=4 * i) for i in range(ROWS)]
        return {
            "id": [f"{day}-{i}" for i in range(ROWS)],
            "at": at,
            "temp": temp,
            "dest": [f"d{d}" for d in dest],
            "late": (random.random(ROWS) < chance).astype(float),
            "chance": chance,
        }

    def land(self, day: int, change: Change = dict) -> None:
        rows = pa.table({k: v for k, v in change(self.day(day)).items() if k != "chance"})
        for table in ("landed", "features"):
            self.tables.replace(table, {window(day): rows}, "r")

    def serve(self, day: int, version: str = "1", change: Change = dict) -> None:
        """The version answers each row of the day, as changed."""
        columns = change(self.day(day))
        features = [json.dumps({"temp": t, "dest": d}) for t, d in zip(columns["temp"], columns["dest"], strict=True)]
        count = len(columns["id"])
        rows = {
            "id": columns["id"],
            "at": [float(day)] * count,
            "time": columns["at"],
            "version": [version] * count,
            "slot": ["stable"] * count,
            "mode": [None] * count,
            "key": columns["id"],
            "score": columns["chance"],
            "ms": [1.0] * count,
            "features": features,
            "segment": ["s"] * count,
        }
        self.traffic.log = pa.concat_tables([self.traffic.log, pa.table(rows, schema=SCHEMAS[PREDICTIONS])])

    def live(self, days: Sequence[int], land: Change = dict, serve: Change = dict) -> None:
        """Serve each of the days and land it, each as changed."""
        for day in days:
            self.land(day, land)
            self.serve(day, change=serve)

    def promote(self, version: Version) -> None:
        """Make the version the champion."""
        self.registry.versions.append(version)
        self.registry.aliases["champion"] = version.number

    def train(self, number: str, first: int, importance: Mapping[str, float] = {"temp": 0.6, "dest": 0.4}) -> Version:
        """Return a version trained on 28 days from day `first` on, validated on 7, tested on 7."""
        folder = self.folder / f"run{number}"
        merged = self._merged(range(first, first + 28), ("temp", "dest"))
        encoding = fit(
            merged, time="at", zone="UTC", time_parts=(), categorical=("dest",), numeric=("temp",), min_frequency=5
        )
        store.write(folder / "dcn" / "encoding.json", encoding.to_dict())
        labels = [window_label(START + timedelta(days=d)) for d in range(first, first + 42)]
        manifest = model_manifest(
            windows=SplitWindows(tuple(labels[:28]), tuple(labels[28:35]), tuple(labels[35:])),
            files={"encoding.json": file_facts(folder / "dcn" / "encoding.json")},
        )
        evaluation = self._evaluate(folder / "evaluation", range(first + 35, first + 42), importance)
        artifact = store.write(folder / "dcn" / "manifest.json", manifest)
        return Version("flights", number, artifact, {"evaluation": evaluation.digest})

    def _evaluate(self, folder: Path, days: Sequence[int], importance: Mapping[str, float]) -> Reference:
        test = self._merged(days, ("late", "chance", "at"))
        times = [int(at.timestamp()) for at in test["at"]]
        folder.mkdir()
        np.savez(folder / "scores.npz", labels=test["late"], challenger=test["chance"], times=times)
        files = {"scores.npz": file_facts(folder / "scores.npz")}
        return store.write(folder / "evaluation.json", evaluation_record(files=files, importance=importance))

    def _merged(self, days: Sequence[int], names: Sequence[str]) -> dict[str, list[Any]]:
        columns = [self.day(day) for day in days]
        return {name: [value for day in columns for value in day[name]] for name in names}

    def take_snapshot(self) -> Snapshot:
        return monitoring.take_snapshot(SPEC, self.services)

    def decide(self, run: str = "watch-1", **context: Any) -> RetrainingDecision:
        return monitoring.decide_and_record(SPEC, self.take_snapshot(), self.ledger, run=run, **context)


def reversed_truth(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the day with the opposite labels: concept drift."""
    return {**columns, "late": 1 - columns["late"]}


def hotter(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the day with higher temperatures: feature drift."""
    return {**columns, "temp": columns["temp"] + 1.5}
