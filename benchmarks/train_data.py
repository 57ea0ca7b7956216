"""Datasets for the trainer's benchmarks, in the files that the features stage writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
import polars as pl
import pyarrow as pa

from include.domain.encoding import FIRST_KNOWN, Encoding
from include.domain.windows import Window, label, parse
from include.local import clicks, flights
from include.ports import Reference
from include.spec import ModelSpec
from include.stages import aggregation, assembly, records

START = date(2024, 1, 1)


@dataclass
class Rows:
    """Tables in memory, as far as the stages ask: each a frame with a column `window`."""

    held: dict[str, pl.DataFrame]

    def version(self, _table: str) -> int:
        return 1

    def windows(self, table: str) -> list[str]:
        return sorted(self.held[table]["window"].unique())

    def read(self, table: str, windows: Sequence[Window], **_: object) -> pa.Table:
        return self.held[table].filter(pl.col("window").is_in([label(w.start) for w in windows])).to_arrow()


def by_window(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    return rows.with_columns(window=pl.col(time).dt.strftime("%Y-%m-%d"))


def year(spec: ModelSpec) -> Rows:
    """All flights with the spec's aggregates, each as of the moment at which its prediction is asked for."""
    rows = by_window(flights.recorded(flights.data_folder()), spec.columns.time)
    if spec.features.aggregates.groups:
        sums = aggregation.hourly_sums(spec, ibis.memtable(rows.to_arrow())).to_pyarrow()
        first, last = (
            Window(day, day + spec.window.length) for day in map(parse, (rows["window"][0], rows["window"][-1]))
        )
        known = aggregation.history(spec, Rows({"sums": pl.DataFrame(pl.from_arrow(sums))}), first, last)  # type: ignore[arg-type]
        rows = aggregation.with_aggregates(spec, rows, known)
    return Rows({"features": rows})


def flights_year(spec: ModelSpec, out: Path) -> Reference:
    """All flights of 2013: the last 36 days are the test, the 36 before validate, the rest trains."""
    wanted = spec.training.model_copy(update={"validate_windows": 36, "test_windows": 36})
    asked = spec.model_copy(update={"training": wanted})
    return assembly.assemble(asked, datetime(2014, 2, 1, tzinfo=UTC), year(spec), "bench", out)  # type: ignore[arg-type]


def clicks_stream(spec: ModelSpec, out: Path, *, table: int, rows: int) -> tuple[Reference, float]:
    """The click stream with an embedding table of `table` rows, `rows` to train on, a tenth each to validate and test.

    The table knows every category there is, as after a long history; also the best AUC possible on the test rows.
    """
    scale = table / sum(clicks.SIZES)
    stream = clicks.Clicks(schedule=(), sizes=[max(2, round(n * scale) - FIRST_KNOWN) for n in clicks.SIZES])
    days = {name: stream.day(START + timedelta(days=n), count) for n, (name, count) in enumerate(
        {"train": rows, "validate": rows // 10, "test": rows // 10}.items())}  # fmt: skip
    columns, known = spec.columns, days["train"].rows
    vocabulary = {field: {text: i for i, text in enumerate(texts, FIRST_KNOWN)} for field, texts in stream.names()}
    knots = {f: tuple(np.unique(np.nanquantile(known[f].to_numpy(), np.linspace(0, 1, 65)))) for f in columns.numeric}
    encoding = Encoding(columns.time, columns.zone, (), columns.categorical, columns.numeric, vocabulary, knots)
    return _written(spec, encoding, {name: day.rows for name, day in days.items()}, out), days["test"].best_auc


def _written(spec: ModelSpec, encoding: Encoding, splits: Mapping[str, pl.DataFrame], out: Path) -> Reference:
    out.mkdir(parents=True)
    (out / "encoding.json").write_text(json.dumps(encoding.to_dict()))
    (out / "examples.json").write_text("[]")
    for name, rows in splits.items():
        ids, numbers = assembly.encoded(encoding, rows)
        labels = rows[spec.columns.label].cast(pl.Float32).to_numpy()
        times = rows[spec.columns.time].dt.epoch("s").to_numpy()
        for part, values in {"ids": ids, "numbers": numbers, "labels": labels, "times": times}.items():
            np.save(out / f"{name}.{part}.npy", values)
    files = {p.name: {"bytes": p.stat().st_size, "sha256": records.reference(p).digest} for p in sorted(out.iterdir())}
    return records.write(out / "dataset.json", {
        "format": 1, "model": spec.name, "run": "bench", "table": "features", "table_version": 1,
        "windows": {name: [str(rows[spec.columns.time][0].date())] for name, rows in splits.items()},
        "columns": {**spec.columns.model_dump(mode="json", include={"time", "label", "keys", "categorical"}),
                    "numeric": list(spec.numeric)},
        "spec_digest": spec.digest, "files": files,
    })  # fmt: skip
