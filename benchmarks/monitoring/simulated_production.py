"""Simulate `clicks` in production: days that drift as planned, and the answers of a LightGBM champion trained before them.

Tables, prediction log and ledger are the real ones, and so is the stage `monitoring`, from the windows' sketches to the
decision. Landing, validation and the servers are left out: rows and answers go straight into the tables.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from include.adapters.serving.segments import PREDICTIONS, SCHEMAS, LogSegments
from include.adapters.serving.signals import ProductionSignals
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.ledger import FileLedger
from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import SplitWindows
from include.domain.features.encoding import fit
from include.domain.windows import Grain, Window
from include.local.clicks import SIZES, Clicks, PlannedDrift
from include.ports.registry import Version
from include.spec.loading import find
from include.stages.monitoring import monitoring
from include.stages.monitoring.services import MonitoringServices
from include.stages.monitoring.snapshot import Snapshot
from include.stages.training.dataset import encode_rows
from include.trainer.trees.boosting import PARAMETERS, features
from tests.fakes import FakeRegistry
from tests.records import evaluation_record, model_manifest

#: The first day of the stream, a Monday.
FIRST_DAY = date(2024, 1, 1)
#: Numbers of days that the champion is trained, validated and tested on; it answers from the next day on.
TRAIN, VALIDATE, TEST = 28, 3, 7
FIRST_SERVED_DAY = TRAIN + VALIDATE + TEST
TREES = 80
SPEC = find("clicks")
#: Sizes of the categories: the large ones have fewer values than in the shipped stream, for speed.
CATEGORY_SIZES = tuple(min(size, 1000) for size in SIZES)


class SimulatedProduction:
    """A champion and its days with `rows` impressions each; `schedule` is the drift that its training days have too."""

    def __init__(self, folder: Path, seed: int, *schedule: PlannedDrift, rows: int = 2000) -> None:
        self.folder, self.seed, self.schedule, self.rows = folder, seed, schedule, rows
        self.tables, self.ledger = DeltaTables(folder / "tables"), FileLedger(folder / "ledger")
        self.signals = ProductionSignals("", LogSegments(folder / "log"), lambda _: self.tables)
        days = [self.day(day) for day in range(FIRST_SERVED_DAY)]
        self._land(dict(enumerate(days)))
        self._train(pl.concat(days[:TRAIN]))
        champion = self._write_run(pl.concat(days[-TEST:]))
        registry = FakeRegistry([champion], {"champion": champion.number})
        self.services = MonitoringServices(self.tables, self.signals, registry, self.ledger)

    def day(self, day: int, *planted: PlannedDrift) -> pl.DataFrame:
        """Return the impressions of that day with the planted drift."""
        stream = Clicks(self.seed, (*self.schedule, *planted), CATEGORY_SIZES)
        return stream.day(FIRST_DAY + timedelta(days=day), self.rows).rows

    def serve_days(self, days: Sequence[int], *planted: PlannedDrift) -> None:
        """Land the days and log the champion's answer to each of their rows, in place of what was there of them."""
        rows_by_day = {day: self.day(day, *planted) for day in days}
        self._land(rows_by_day)
        self.tables.replace(
            PREDICTIONS, {window(day): self._prediction_log(rows) for day, rows in rows_by_day.items()}, "bench"
        )

    def take_snapshot(self, day: int) -> Snapshot:
        """Return every signal at the end of that day."""
        return monitoring.take_snapshot(SPEC, self.services, as_of=window(day).end)

    def starts_training(self, snapshot: Snapshot, run: str) -> bool:
        """Record the watch's decision, and return whether it starts a training."""
        return monitoring.decide_and_record(SPEC, snapshot, self.ledger, run=run).start

    def _land(self, days: Mapping[int, pl.DataFrame]) -> None:
        content = {window(day): rows.to_arrow() for day, rows in days.items()}
        for name in ("landed", "features"):
            self.tables.replace(name, content, "bench")

    def _train(self, rows: pl.DataFrame) -> None:
        columns, settings = SPEC.columns, SPEC.features
        self.encoding = fit(
            {name: rows[name].to_list() for name in columns.features},
            time=columns.time,
            zone=columns.zone,
            time_parts=(),
            categorical=columns.categorical,
            numeric=columns.numeric,
            min_frequency=settings.min_frequency,
        )
        data = lightgbm.Dataset(
            self._inputs(rows), rows["click"].to_numpy(), categorical_feature=list(range(len(columns.categorical)))
        )
        self.model = lightgbm.train({**PARAMETERS, "seed": self.seed, "num_threads": 1}, data, TREES)

    def _write_run(self, test: pl.DataFrame) -> Version:
        """Write the files of a training run that the watch reads, and return the version that the registry holds."""
        out, names = self.folder / "run", [window(day).label for day in range(FIRST_SERVED_DAY)]
        store.write(out / "lightgbm" / "encoding.json", self.encoding.to_dict())
        (out / "evaluation").mkdir()
        np.savez(
            out / "evaluation" / "scores.npz",
            labels=test["click"].to_numpy(),
            challenger=self._scores(test),
            times=test["time"].dt.epoch("s").to_numpy(),
        )
        gains = self.model.feature_importance("gain")
        importance = dict(zip(SPEC.columns.features, (gains / gains.sum()).tolist(), strict=True))
        evaluation = store.write(
            out / "evaluation" / "evaluation.json",
            evaluation_record(
                files={"scores.npz": file_facts(out / "evaluation" / "scores.npz")}, importance=importance
            ),
        )
        manifest = model_manifest(
            windows=SplitWindows(tuple(names[:TRAIN]), tuple(names[TRAIN:-TEST]), tuple(names[-TEST:])),
            files={"encoding.json": file_facts(out / "lightgbm" / "encoding.json")},
        )
        return Version(
            SPEC.name,
            "1",
            store.write(out / "lightgbm" / "manifest.json", manifest),
            {"evaluation": evaluation.digest},
        )

    def _inputs(self, rows: pl.DataFrame) -> NDArray[np.float32]:
        return features(*encode_rows(self.encoding, rows))

    def _scores(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        return np.asarray(self.model.predict(self._inputs(rows)))

    def _prediction_log(self, rows: pl.DataFrame) -> pa.Table:
        """Return the lines of the prediction log with the champion's answers to these rows."""
        constants = {"version": "1", "slot": "stable", "mode": None, "ms": 1.0, "segment": "stable/bench"}
        by_row = {
            "id": rows["id"],
            "at": rows["time"].dt.epoch("s"),
            "time": rows["time"],
            "key": rows["id"],
            "score": self._scores(rows),
            "features": rows.select(SPEC.columns.features).write_ndjson().splitlines(),
        }
        lines = pl.DataFrame(by_row).with_columns(**{name: pl.lit(value) for name, value in constants.items()})
        return lines.select(SCHEMAS[PREDICTIONS].names).to_arrow().cast(SCHEMAS[PREDICTIONS])


def window(day: int) -> Window:
    """Return the window of that day, counted from `FIRST_DAY`."""
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC) + timedelta(days=day)
    return Grain.DAY.window_at(start)
