"""The dataset of a training: labelled windows split by time, as arrays that the trainer maps into memory.

The encoding is fitted on the train windows alone, so nothing of the later windows leaks into it.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts, write_atomically
from include.artifacts.dataset_manifest import DatasetColumns, DatasetManifest, SplitCounts, SplitWindows
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.domain.features.encoding import Encoding, fit
from include.domain.windows import Window, window_label, window_of
from include.ports.tables import FEATURES, SUMS, Tables
from include.spec.data import Columns, Features
from include.spec.model_spec import ModelSpec

#: Rows of the validate windows that the model server is warmed up with.
EXAMPLES = 64
FILES = {
    *(
        f"{split}.{array}.npy"
        for split in ("train", "validate", "test")
        for array in ("ids", "numbers", "labels", "times")
    ),
    "train.weights.npy",
    "encoding.json",
    "examples.json",
}


@dataclass(frozen=True)
class Splits:
    """The windows of each split, oldest first."""

    train: tuple[Window, ...]
    validate: tuple[Window, ...]
    test: tuple[Window, ...]

    def items(self) -> list[tuple[str, tuple[Window, ...]]]:
        """Return the splits with their names, oldest first."""
        return [("train", self.train), ("validate", self.validate), ("test", self.test)]

    @property
    def labels(self) -> SplitWindows:
        """The windows by their labels."""
        return SplitWindows(**{name: tuple(window.label for window in windows) for name, windows in self.items()})


def assemble(spec: ModelSpec, as_of: datetime, tables: Tables, run: str, folder: Path) -> Reference:
    """Write the dataset of all windows whose labels are due at `as_of`, and return the reference to its `dataset.json`.

    A finished dataset that is already in the folder is returned as it is. Raises UserMistake when there are too few windows.
    """
    path = folder / "dataset.json"
    with suppress(Corrupt):
        if path.exists() and _is_whole(path):
            return store.reference_to(path)
    version = tables.version(FEATURES)
    splits = split(spec, as_of, tables.windows(FEATURES))
    folder.mkdir(parents=True, exist_ok=True)
    train = labelled_rows(spec.columns, tables, splits.train, version)
    encoding = fit_encoding(spec, train)
    write_atomically(folder / "encoding.json", json.dumps(encoding.to_dict()))
    counts: dict[str, int] = {}
    positives: dict[str, int] = {}
    notes = list(notes_on_constant_fields(encoding))
    for name, windows in splits.items():
        rows = train if name == "train" else labelled_rows(spec.columns, tables, windows, version)
        labels = _write_arrays(spec, encoding, rows, folder, name)
        notes += notes_on_missing_features(spec, encoding, rows)
        counts[name], positives[name] = len(labels), int(labels.sum())
        if name == "validate":
            write_atomically(folder / "examples.json", json.dumps(example_rows(spec, rows)))
    manifest = DatasetManifest(
        model=spec.name,
        run=run,
        as_of=as_of.isoformat(),
        table=FEATURES,
        table_version=version,
        sums_version=tables.version(SUMS),
        windows=splits.labels,
        rows=SplitCounts(**counts),
        positives=SplitCounts(**positives),
        notes=tuple(notes),
        columns=columns_of(spec),
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        files={p.name: file_facts(p) for p in sorted(folder.iterdir()) if p.name in FILES},
    )
    return store.write(path, manifest)


def columns_of(spec: ModelSpec) -> DatasetColumns:
    """Return the columns of the features table that a model of this spec is made of."""
    columns = spec.columns
    return DatasetColumns(
        columns.time, columns.label, columns.keys, columns.categorical, spec.numeric, spec.features.aggregates
    )


def split(spec: ModelSpec, as_of: datetime, window_labels: Sequence[str]) -> Splits:
    """Split the windows whose labels are due at `as_of`: the newest for testing, those before for validation, the rest to train.

    Raises UserMistake when no window is left to train on.
    """
    windows = [window_of(label, spec.window) for label in window_labels]
    due = [w for w in windows if w.end + spec.label_delay <= as_of]
    settings = spec.training
    held_out = settings.validate_windows + settings.test_windows
    if len(due) <= held_out:
        raise UserMistake(
            f"{spec.name}: {len(due)} windows have labels that are due at {as_of:%Y-%m-%d %H:%M}; {held_out} are held out "
            f"for validation and test, and training needs at least one more: land more, or lower training.*_windows"
        )
    train = due[:-held_out][-(settings.windows or len(due)) :]
    test_windows = settings.test_windows
    return Splits(tuple(train), tuple(due[-held_out:-test_windows]), tuple(due[-test_windows:]))


def labelled_rows(columns: Columns, tables: Tables, windows: Sequence[Window], version: int | None) -> pl.DataFrame:
    """Return the windows' rows that have a label, in order of time and key."""
    rows = pl.DataFrame(pl.from_arrow(tables.read(FEATURES, windows, version=version)))
    return rows.filter(pl.col(columns.label).is_not_null()).sort(columns.time, *columns.keys)


def notes_on_constant_fields(encoding: Encoding) -> Iterator[str]:
    """Yield a note on each categorical field that cannot tell one row from another."""
    for field in encoding.categorical:
        values = len(encoding.vocabulary[field])
        if values < 2:
            yield f"{field} has {values} value(s) that train rows hold often enough; it teaches nothing: leave it out"


def notes_on_missing_features(spec: ModelSpec, encoding: Encoding, rows: pl.DataFrame) -> Iterator[str]:
    """Yield a note on each feature that is missing in every row of a window."""
    per_window = rows.group_by(pl.col(spec.columns.time).dt.truncate(spec.window.interval))
    fields = [f for f in (*encoding.categorical, *encoding.numeric) if f in rows.columns]
    is_missing = per_window.agg(pl.col(fields).null_count() == pl.len()).sort(spec.columns.time)
    for field in fields:
        windows = is_missing.filter(pl.col(field))[spec.columns.time].to_list()
        if windows:
            more = f" and {len(windows) - 1} more windows" if len(windows) > 1 else ""
            yield f"{field} is missing in every row of {window_label(windows[0])}{more}; was it delivered?"


def encode_rows(encoding: Encoding, rows: pl.DataFrame) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the ids `[n, categorical]` and numbers `[n, numeric]` of the rows, as `Encoding.encode` gives them.

    Each distinct text or hour is encoded once instead of once a row.
    """
    ids = np.zeros((rows.height, len(encoding.categorical)), dtype=np.int32)
    hourly = rows.with_columns(pl.col(encoding.time).dt.truncate("1h"))
    for i, field in enumerate(encoding.categorical):
        sources = list(encoding.source_columns(field))
        values = (hourly if field in encoding.time_parts else rows).select(sources)
        distinct = values.unique(maintain_order=True)
        distinct_ids, _ = encoding.encode(distinct.to_dict(as_series=False))
        lookup = distinct.with_columns(pl.Series("", distinct_ids[:, i].astype(np.int32)))
        joined = values.join(lookup, on=sources, how="left", nulls_equal=True, maintain_order="left")
        ids[:, i] = joined[""].to_numpy()
    numeric = list(dict.fromkeys(column for field in encoding.numeric for column in encoding.source_columns(field)))
    columns: dict[str, Any] = {c: rows[c].to_numpy() for c in numeric}
    _, numbers = encoding.encode(columns or {"": [None] * rows.height})
    return ids, numbers


def example_rows(spec: ModelSpec, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return raw rows as a caller of the model server sends them, spread over the given ones."""
    columns = spec.columns
    names = list(dict.fromkeys([*columns.keys, columns.time, *columns.categorical, *columns.numeric]))
    examples = rows.select(names).gather_every(max(1, rows.height // EXAMPLES)).head(EXAMPLES)
    return [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in examples.to_dicts()]


def fit_encoding(spec: ModelSpec, rows: pl.DataFrame) -> Encoding:
    """Return the encoding that these rows, of the train windows, teach."""
    columns, settings = spec.columns, spec.features
    texts = {c: rows[c] if settings.transforms else _without_rare(rows[c], settings) for c in columns.categorical}
    values: dict[str, Any] = {c: v.to_list() for c, v in ({columns.time: rows[columns.time]} | texts).items()}
    return fit(
        values | {c: rows[c].to_numpy() for c in spec.numeric},
        time=columns.time,
        zone=columns.zone,
        time_parts=settings.time_parts,
        categorical=columns.categorical,
        numeric=columns.numeric,
        min_frequency=settings.min_frequency,
        transforms=settings.transforms,
        aggregates=settings.aggregates.features,
        max_ids=settings.max_ids,
    )


def _without_rare(values: pl.Series, settings: Features) -> pl.Series:
    """Return the values with null for those too rare to become ids, so that millions of them become no Python objects."""
    counts = values.drop_nulls().value_counts(name="times").filter(pl.col("times") >= settings.min_frequency)
    if settings.max_ids is not None and counts.height > settings.max_ids:
        counts = counts.filter(pl.col("times") >= counts["times"].top_k(settings.max_ids).min())
    is_frequent = values.is_in(counts[values.name].implode())
    return pl.select(pl.when(is_frequent).then(values)).to_series().alias(values.name)


def _write_arrays(
    spec: ModelSpec, encoding: Encoding, rows: pl.DataFrame, folder: Path, split_name: str
) -> NDArray[np.float32]:
    """Write the arrays of one split, a file each, and return its labels `[n]`."""
    ids, numbers = encode_rows(encoding, rows)
    labels = rows[spec.columns.label].cast(pl.Float32).to_numpy()
    times = rows[spec.columns.time].dt.epoch("s").to_numpy()
    arrays = {"ids": ids, "numbers": numbers, "labels": labels, "times": times.astype(np.int64)}
    if spec.columns.weight and split_name == "train":
        arrays["weights"] = _weights(spec.columns.weight, rows)
    for name, values in arrays.items():
        np.save(folder / f"{split_name}.{name}.npy", np.ascontiguousarray(values), allow_pickle=False)
    return labels


def _weights(column: str, rows: pl.DataFrame) -> NDArray[np.float32]:
    """Return what each row counts for, with mean 1, so that weights leave the learning rate alone."""
    weights = rows[column].cast(pl.Float64).fill_null(1.0).to_numpy()
    if not weights.sum() > 0:
        raise UserMistake(f"columns.weight: {column} is 0 in all train rows; nothing would be learnt")
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def _is_whole(path: Path) -> bool:
    """Return whether every file of the dataset is there as its manifest lists it."""
    files = store.load(path, DatasetManifest).files
    return all(
        (path.parent / name).is_file() and file_facts(path.parent / name) == recorded
        for name, recorded in files.items()
    )
