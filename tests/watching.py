"""A small world to watch: tables, a champion, its logged predictions and a ledger, all fakes but the champion's files."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.adapters.serving.segments import PREDICTIONS, SCHEMAS
from include.artifacts import store
from include.artifacts.dataset_manifest import SplitWindows
from include.artifacts.files import file_facts
from include.domain.features.encoding import fit
from include.domain.monitoring.retraining import RetrainingDecision
from include.domain.windows import Window, window_label
from include.ports.registry import Version
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import monitoring
from include.stages.monitoring.monitoring import Look
from tests.fakes import FakeLedger
from tests.memory import MemoryTables
from tests.records import evaluation_record, model_manifest

START = datetime(2013, 1, 7, tzinfo=UTC)
ROWS = 300
SPEC = ModelSpec.model_validate(
    {
        "name": "flights", "description": "late?", "source": {"path": "x"},
        "columns": {"time": "at", "label": "late", "keys": ["id"], "numeric": ["temp"], "categorical": ["dest"]},
        "schedule": {"start": START},
    }
)  # fmt: skip
Change = Callable[[dict[str, Any]], dict[str, Any]]


class Registry:
    def __init__(self, champion: Version | None) -> None:
        self.champion = champion

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        return self.champion


def window(day: int) -> Window:
    start = START + timedelta(days=day)
    return Window(start, start + timedelta(days=1))


class World:
    """Days of flights and what version 1, trained on the first four weeks, predicted for those after its test weeks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables, self.log = folder, MemoryTables(), SCHEMAS[PREDICTIONS].empty_table()
        for day in range(42):
            self.land(day)
        self.registry = Registry(self.train("1", 0))
        self.ledger = FakeLedger(clock=lambda: datetime(2013, 3, 1, tzinfo=UTC))

    def day(self, day: int) -> dict[str, Any]:
        """Columns of a day, `chance` the truth and what a perfect model says."""
        random = np.random.default_rng(day)
        temp, dest = random.normal(size=ROWS), random.integers(0, 5, ROWS)
        chance = 1 / (1 + np.exp(1.5 - temp - 0.5 * dest))
        at = [START + timedelta(days=day, minutes=4 * i) for i in range(ROWS)]
        return {"id": [f"{day}-{i}" for i in range(ROWS)], "at": at, "temp": temp, "dest": [f"d{d}" for d in dest],
                "late": (random.random(ROWS) < chance).astype(float), "chance": chance}  # fmt: skip

    def land(self, day: int, change: Change = dict) -> None:
        rows = pa.table({k: v for k, v in change(self.day(day)).items() if k != "chance"})
        for table in ("landed", "features"):
            self.tables.replace(table, {window(day): rows}, "r")

    def serve(self, day: int, version: str = "1", spoil: Change = dict) -> None:
        columns = spoil(self.day(day))
        features = [json.dumps({"temp": t, "dest": d}) for t, d in zip(columns["temp"], columns["dest"], strict=True)]
        count = len(columns["id"])
        rows = {"id": columns["id"], "at": [float(day)] * count, "time": columns["at"], "version": [version] * count,
                "slot": ["stable"] * count, "mode": [None] * count, "key": columns["id"], "score": columns["chance"],
                "ms": [1.0] * count, "features": features, "segment": ["s"] * count}  # fmt: skip
        self.log = pa.concat_tables([self.log, pa.table(rows, schema=SCHEMAS[PREDICTIONS])])

    def live(self, days: Sequence[int], land: Change = dict, serve: Change = dict) -> None:
        for day in days:
            self.land(day, land)
            self.serve(day, spoil=serve)

    def train(self, number: str, first: int, importance: Mapping[str, float] = {"temp": 0.6, "dest": 0.4}) -> Version:
        """A version trained on 28 days, validated on 7, tested on 7."""
        folder = self.folder / f"run{number}"
        train, test = (
            [self.day(d) for d in days] for days in (range(first, first + 28), range(first + 35, first + 42))
        )
        merged = {c: np.concatenate([np.asarray(d[c]) for d in train]).tolist() for c in ("temp", "dest")}
        encoding = fit(
            merged, time="at", zone="UTC", time_parts=(), categorical=("dest",), numeric=("temp",), min_frequency=5
        )
        store.write(folder / "dcn" / "encoding.json", encoding.to_dict())
        (folder / "evaluation").mkdir()
        np.savez(
            folder / "evaluation" / "scores.npz", labels=np.concatenate([d["late"] for d in test]),
            challenger=np.concatenate([d["chance"] for d in test]),
            times=np.concatenate([[int(t.timestamp()) for t in d["at"]] for d in test]),
        )  # fmt: skip
        evaluation = store.write(
            folder / "evaluation" / "evaluation.json",
            evaluation_record(
                files={"scores.npz": file_facts(folder / "evaluation" / "scores.npz")}, importance=importance
            ),
        )
        labels = [window_label(START + timedelta(days=d)) for d in range(first, first + 42)]
        manifest = model_manifest(
            windows=SplitWindows(tuple(labels[:28]), tuple(labels[28:35]), tuple(labels[35:])),
            files={"encoding.json": file_facts(folder / "dcn" / "encoding.json")},
        )
        return Version(
            "flights",
            number,
            store.write(folder / "dcn" / "manifest.json", manifest),
            {"evaluation": evaluation.digest},
        )

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        return self.log

    def stamp(self, model: str) -> str:
        return str(len(self.log))

    def counts(self, model: str, slow_ms: float) -> Mapping[str, Any]:
        return {}

    def look(self) -> Look:
        return monitoring.sense(SPEC, tables=self.tables, signals=self, registry=self.registry)  # type: ignore[arg-type]

    def decide(self, run: str = "watch-1", **situation: Any) -> RetrainingDecision:
        return monitoring.decide_and_record(SPEC, self.look(), self.ledger, run=run, **situation)


def reversed_truth(columns: dict[str, Any]) -> dict[str, Any]:
    return {**columns, "late": 1 - columns["late"]}


def hotter(columns: dict[str, Any]) -> dict[str, Any]:
    return {**columns, "temp": columns["temp"] + 1.5}
