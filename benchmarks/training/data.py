"""Datasets for the trainer's benchmarks, in the files that the features stage writes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest, SplitCounts, SplitWindows
from include.artifacts.files import file_facts
from include.artifacts.store import Reference
from include.domain.features.encoding import FIRST_ID, Encoding
from include.domain.windows import Window, window_of
from include.local import clicks, flights
from include.ports.tables import FEATURES
from include.spec.model_spec import ModelSpec
from include.stages.features import aggregation
from include.stages.training import dataset

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
        return self.held[table].filter(pl.col("window").is_in([w.label for w in windows])).to_arrow()


def by_window(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    return rows.with_columns(window=pl.col(time).dt.strftime("%Y-%m-%d"))


def year(spec: ModelSpec) -> Rows:
    """All flights with the spec's aggregates, each as of the moment at which its prediction is asked for."""
    rows = by_window(flights.recorded(flights.data_folder()), spec.columns.time)
    if spec.features.aggregates.groups:
        sums = aggregation.hourly_sums(spec, ibis.memtable(rows.to_arrow())).to_pyarrow()
        first, last = (window_of(rows["window"][row], spec.window) for row in (0, -1))
        histories = aggregation.read_histories(spec, Rows({"sums": pl.DataFrame(pl.from_arrow(sums))}), first, last)  # type: ignore[arg-type]
        rows = aggregation.with_aggregates(spec, rows, histories)
    return Rows({"features": rows})


def flights_year(spec: ModelSpec, out: Path) -> Reference:
    """All flights of 2013: the last 36 days are the test, the 36 before validate, the rest trains."""
    training_section = replace(spec.training, validate_windows=36, test_windows=36)
    changed = spec.model_copy(update={"training": training_section})
    return dataset.assemble(changed, datetime(2014, 2, 1, tzinfo=UTC), year(spec), "bench", out)  # type: ignore[arg-type]


def clicks_stream(spec: ModelSpec, out: Path, *, table: int, rows: int) -> tuple[Reference, float]:
    """The click stream with an embedding table of `table` rows, `rows` to train on, a tenth each to validate and test.

    The table knows every category there is, as after a long history; also the best AUC possible on the test rows.
    """
    scale = table / sum(clicks.SIZES)
    stream = clicks.Clicks(schedule=(), sizes=[max(2, round(n * scale) - FIRST_ID) for n in clicks.SIZES])
    counts, columns = {"train": rows, "validate": rows // 10, "test": rows // 10}, spec.columns
    first_day = next(stream.pieces(START, rows)).rows
    vocabulary = {field: {text: i for i, text in enumerate(texts, FIRST_ID)} for field, texts in stream.names()}
    knots = {
        f: tuple(np.unique(np.nanquantile(first_day[f].to_numpy(), np.linspace(0, 1, 65)))) for f in columns.numeric
    }
    encoding = Encoding(columns.time, columns.zone, (), columns.categorical, columns.numeric, vocabulary, knots)
    out.mkdir(parents=True)
    (out / "encoding.json").write_text(json.dumps(encoding.to_dict()))
    (out / "examples.json").write_text("[]")
    days = {name: START + timedelta(days=n) for n, name in enumerate(counts)}
    for name, count in counts.items():
        scored = _write(spec, encoding, stream.pieces(days[name], count), count, out / name)
    return _recorded(spec, days, out), clicks.area(*scored)


def _write(
    spec: ModelSpec, encoding: Encoding, pieces: Iterable[clicks.Piece], rows: int, out: Path
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """A split's arrays `<out>.<part>.npy`, piece by piece; the true probabilities and the clicks."""
    widths = {"ids": (len(spec.columns.categorical),), "numbers": (len(spec.numeric),), "labels": (), "times": ()}
    kinds = {"ids": np.int32, "numbers": np.float32, "labels": np.float32, "times": np.int64}
    files = {
        part: np.lib.format.open_memmap(out.with_name(f"{out.name}.{part}.npy"), "w+", kinds[part], (rows, *width))
        for part, width in widths.items()
    }
    scored, done = [], 0
    for piece in pieces:
        rows_of_piece = piece.rows
        ids, numbers = dataset.encode_rows(encoding, rows_of_piece)
        times = rows_of_piece[spec.columns.time].dt.epoch("s").to_numpy()
        for part, values in {
            "ids": ids,
            "numbers": numbers,
            "labels": piece.truth_and_clicks[1],
            "times": times,
        }.items():
            files[part][done : done + len(rows_of_piece)] = values
        done += len(rows_of_piece)
        scored.append(piece.truth_and_clicks)
    return np.concatenate([truth for truth, _ in scored]), np.concatenate([clicked for _, clicked in scored])


def _recorded(spec: ModelSpec, days: Mapping[str, date], out: Path) -> Reference:
    labels = {name: np.load(out / f"{name}.labels.npy", mmap_mode="r") for name in days}
    manifest = DatasetManifest(
        model=spec.name,
        run="bench",
        as_of=str(max(days.values())),
        table=FEATURES,
        table_version=1,
        sums_version=None,
        windows=SplitWindows(**{name: (str(day),) for name, day in days.items()}),
        rows=SplitCounts(**{name: len(values) for name, values in labels.items()}),
        positives=SplitCounts(**{name: int(values.sum()) for name, values in labels.items()}),
        columns=dataset.columns_of(spec),
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        files={p.name: file_facts(p) for p in sorted(out.iterdir())},
    )
    return store.write(out / "dataset.json", manifest)
