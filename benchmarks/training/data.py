"""Write datasets for the trainer's benchmarks, in the files that the training stage writes."""

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
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import DatasetManifest, SplitCounts, SplitWindows
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
class InMemoryTables:
    """Tables in memory, each a frame with a column `window`, with the methods that the stages call."""

    frames: dict[str, pl.DataFrame]

    def version(self, _table: str) -> int:
        return 1

    def windows(self, table: str) -> list[str]:
        return sorted(self.frames[table]["window"].unique())

    def read(self, table: str, windows: Sequence[Window], **_: object) -> pa.Table:
        return self.frames[table].filter(pl.col("window").is_in([w.label for w in windows])).to_arrow()


def by_window(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    """Return the rows with the label of their day's window as the column `window`."""
    return rows.with_columns(window=pl.col(time).dt.strftime("%Y-%m-%d"))


def flights_features(spec: ModelSpec) -> InMemoryTables:
    """Return all flights with the spec's aggregates, each as of the time of its prediction."""
    rows = by_window(flights.recorded(flights.data_folder()), spec.columns.time)
    if spec.features.aggregates.groups:
        sums = aggregation.hourly_sums(spec, ibis.memtable(rows.to_arrow())).to_pyarrow()
        first, last = (window_of(rows["window"][row], spec.window) for row in (0, -1))
        tables = InMemoryTables({"sums": pl.DataFrame(pl.from_arrow(sums))})
        histories = aggregation.read_histories(spec, tables, first, last)  # type: ignore[arg-type]
        rows = aggregation.with_aggregates(spec, rows, histories)
    return InMemoryTables({"features": rows})


def flights_year(spec: ModelSpec, out: Path) -> Reference:
    """Write all flights of 2013 as a dataset: the last 36 days test, the 36 before validate, the rest trains."""
    settings = replace(spec.training, validate_windows=36, test_windows=36)
    bench_spec = spec.model_copy(update={"training": settings})
    return dataset.assemble(bench_spec, datetime(2014, 2, 1, tzinfo=UTC), flights_features(spec), "bench", out)  # type: ignore[arg-type]


def clicks_stream(spec: ModelSpec, out: Path, *, table: int, rows: int) -> tuple[Reference, float]:
    """Write the click stream as a dataset, and return it with the best AUC that is possible on the test rows.

    The embedding table has `table` rows, one for every category there is, as after a long history. `rows` train, and a tenth
    of that number each validates and tests.
    """
    scale = table / sum(clicks.SIZES)
    stream = clicks.Clicks(schedule=(), sizes=[max(2, round(n * scale) - FIRST_ID) for n in clicks.SIZES])
    counts, columns = {"train": rows, "validate": rows // 10, "test": rows // 10}, spec.columns
    sample = next(stream.pieces(START, rows)).rows
    vocabulary = {field: {text: i for i, text in enumerate(texts, FIRST_ID)} for field, texts in stream.names()}
    knots = {f: tuple(np.unique(np.nanquantile(sample[f].to_numpy(), np.linspace(0, 1, 65)))) for f in columns.numeric}
    encoding = Encoding(columns.time, columns.zone, (), columns.categorical, columns.numeric, vocabulary, knots)
    out.mkdir(parents=True)
    (out / "encoding.json").write_text(json.dumps(encoding.to_dict()))
    (out / "examples.json").write_text("[]")
    days = {name: START + timedelta(days=n) for n, name in enumerate(counts)}
    for name, count in counts.items():
        outcomes = _write_split(spec, encoding, stream.pieces(days[name], count), count, out / name)
    return _write_manifest(spec, days, out), clicks.area(*outcomes)


def _write_split(
    spec: ModelSpec, encoding: Encoding, pieces: Iterable[clicks.Piece], rows: int, out: Path
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Write a split's arrays `<out>.<part>.npy`, and return the true probabilities and the clicks, `[rows]` each."""
    widths = {"ids": (len(spec.columns.categorical),), "numbers": (len(spec.numeric),), "labels": (), "times": ()}
    kinds = {"ids": np.int32, "numbers": np.float32, "labels": np.float32, "times": np.int64}
    files = {
        part: np.lib.format.open_memmap(out.with_name(f"{out.name}.{part}.npy"), "w+", kinds[part], (rows, *width))
        for part, width in widths.items()
    }
    outcomes, start = [], 0
    for piece in pieces:
        frame = piece.rows
        ids, numbers = dataset.encode_rows(encoding, frame)
        times = frame[spec.columns.time].dt.epoch("s").to_numpy()
        for part, values in {
            "ids": ids,
            "numbers": numbers,
            "labels": piece.truth_and_clicks[1],
            "times": times,
        }.items():
            files[part][start : start + len(frame)] = values
        start += len(frame)
        outcomes.append(piece.truth_and_clicks)
    return np.concatenate([truth for truth, _ in outcomes]), np.concatenate([clicked for _, clicked in outcomes])


def _write_manifest(spec: ModelSpec, days: Mapping[str, date], out: Path) -> Reference:
    """Write the dataset's manifest beside its files, and return the reference to it."""
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
