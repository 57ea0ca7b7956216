"""Assembly: labelled windows into the arrays that the trainer maps: split by time, encoded as the train windows teach."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.domain.features.encoding import Encoding, fit
from include.domain.windows import Window, window_label, window_of
from include.ports.tables import Tables
from include.spec.data import Columns, Features
from include.spec.model_spec import ModelSpec

FORMAT = 1
EXAMPLES = 64
FEATURES, SUMS = "features", "sums"


@dataclass(frozen=True)
class Splits:
    """Windows by name of the split, each oldest first."""

    train: tuple[Window, ...]
    validate: tuple[Window, ...]
    test: tuple[Window, ...]

    def items(self) -> list[tuple[str, tuple[Window, ...]]]:
        return [("train", self.train), ("validate", self.validate), ("test", self.test)]


def assemble(spec: ModelSpec, as_of: datetime, tables: Tables, run: str, out: Path) -> Reference:
    """The dataset of all windows whose labels are due at `as_of`, in the folder `out`; the reference to `dataset.json`.

    A finished dataset that is already there is returned as it is. Raises UserMistake when there are too few windows.
    """
    path = out / "dataset.json"
    with suppress(Corrupt):
        if path.exists() and _whole(path):
            return store.reference(path)
    version = tables.version(FEATURES)
    splits = split(spec, as_of, tables.windows(FEATURES))
    out.mkdir(parents=True, exist_ok=True)
    train = labelled(spec.columns, tables, splits.train, version)
    encoding = _fitted(spec, train)
    (out / "encoding.json").write_text(json.dumps(encoding.to_dict()), encoding="utf-8")
    facts: dict[str, dict[str, int]] = {"rows": {}, "positives": {}}
    notes = list(constant(encoding))
    for name, windows in splits.items():
        rows = train if name == "train" else labelled(spec.columns, tables, windows, version)
        labels = _write(spec, encoding, rows, out, name)
        notes += absent(spec, encoding, rows)
        facts["rows"][name], facts["positives"][name] = len(labels), int(labels.sum())
        if name == "validate":
            (out / "examples.json").write_text(json.dumps(_examples(spec, rows)), encoding="utf-8")
    return store.write(path, {
        "format": FORMAT, "model": spec.name, "run": run, "as_of": as_of.isoformat(),
        "table": FEATURES, "table_version": version, "sums_version": tables.version(SUMS),
        "windows": {name: [w.label for w in windows] for name, windows in splits.items()}, **facts, "notes": notes,
        "columns": {**spec.columns.model_dump(mode="json", include={"time", "label", "keys", "categorical"}),
                    "numeric": list(spec.numeric),
                    "aggregates": spec.features.model_dump(mode="json")["aggregates"]},
        "spec": spec.model_dump(mode="json"), "spec_digest": spec.digest,
        "files": {p.name: _facts(p) for p in sorted(out.iterdir()) if p.name in _files()},
    })  # fmt: skip


def split(spec: ModelSpec, as_of: datetime, there: Sequence[str]) -> Splits:
    """Test is the newest windows whose labels are due, validate those before, train the rest. Raises UserMistake."""
    windows = [window_of(name, spec.window) for name in there]
    due = [w for w in windows if w.end + spec.label_delay <= as_of]
    asked = spec.training
    held = asked.validate_windows + asked.test_windows
    if len(due) <= held:
        raise UserMistake(
            f"{spec.name}: {len(due)} windows have labels that are due at {as_of:%Y-%m-%d %H:%M}; {held} are held out for "
            f"validation and test, and training needs at least one more: land more, or lower training.*_windows"
        )
    train = due[:-held][-(asked.windows or len(due)) :]
    return Splits(tuple(train), tuple(due[-held : -asked.test_windows]), tuple(due[-asked.test_windows :]))


def labelled(columns: Columns, tables: Tables, windows: Sequence[Window], version: int | None) -> pl.DataFrame:
    """The windows' rows with a label, in order of time and key."""
    rows = pl.DataFrame(pl.from_arrow(tables.read(FEATURES, windows, version=version)))
    return rows.filter(pl.col(columns.label).is_not_null()).sort(columns.time, *columns.keys)


def _fitted(spec: ModelSpec, rows: pl.DataFrame) -> Encoding:
    columns, asked = spec.columns, spec.features
    known = {c: rows[c] if asked.transforms else _frequent(rows[c], asked) for c in columns.categorical}
    values: dict[str, Any] = {c: v.to_list() for c, v in ({columns.time: rows[columns.time]} | known).items()}
    return fit(
        values | {c: rows[c].to_numpy() for c in spec.numeric},
        time=columns.time, zone=columns.zone, time_parts=asked.time_parts, categorical=columns.categorical,
        numeric=columns.numeric, min_frequency=asked.min_frequency, transforms=asked.transforms,
        looked_up=asked.aggregates.features, max_ids=asked.max_ids,
    )  # fmt: skip


def _frequent(values: pl.Series, asked: Features) -> pl.Series:
    """Without those too rare to become ids: of millions of them none shall become an object of Python."""
    counts = values.drop_nulls().value_counts(name="times").filter(pl.col("times") >= asked.min_frequency)
    if asked.max_ids is not None and counts.height > asked.max_ids:
        counts = counts.filter(pl.col("times") >= counts["times"].top_k(asked.max_ids).min())
    kept = values.is_in(counts[values.name].implode())
    return pl.select(pl.when(kept).then(values)).to_series().alias(values.name)


def _write(spec: ModelSpec, encoding: Encoding, rows: pl.DataFrame, out: Path, name: str) -> NDArray[np.float32]:
    ids, numbers = encoded(encoding, rows)
    labels = rows[spec.columns.label].cast(pl.Float32).to_numpy()
    times = rows[spec.columns.time].dt.epoch("s").to_numpy()
    parts = {"ids": ids, "numbers": numbers, "labels": labels, "times": times.astype(np.int64)}
    if spec.columns.weight and name == "train":
        parts["weights"] = _weights(spec.columns.weight, rows)
    for part, values in parts.items():
        np.save(out / f"{name}.{part}.npy", np.ascontiguousarray(values), allow_pickle=False)
    return labels


def _weights(column: str, rows: pl.DataFrame) -> NDArray[np.float32]:
    """What each row counts for, with mean 1, so that they leave the learning rate alone."""
    given = rows[column].cast(pl.Float64).fill_null(1.0).to_numpy()
    if not given.sum() > 0:
        raise UserMistake(f"columns.weight: {column} is 0 in all train rows; nothing would be learnt")
    return np.asarray(given / given.mean(), dtype=np.float32)


def constant(encoding: Encoding) -> Iterator[str]:
    """A note on each categorical field that cannot tell one row from another."""
    for field in encoding.categorical:
        known = len(encoding.vocabulary[field])
        if known < 2:
            yield f"{field} has {known} value(s) that train rows hold often enough; it teaches nothing: leave it out"


def absent(spec: ModelSpec, encoding: Encoding, rows: pl.DataFrame) -> Iterator[str]:
    """A note on each feature that is missing in every row of a window."""
    per_window = rows.group_by(pl.col(spec.columns.time).dt.truncate(spec.window.interval))
    named = [f for f in (*encoding.categorical, *encoding.numeric) if f in rows.columns]
    missing = per_window.agg(pl.col(named).null_count() == pl.len()).sort(spec.columns.time)
    for field in named:
        windows = missing.filter(pl.col(field))[spec.columns.time].to_list()
        if windows:
            more = f" and {len(windows) - 1} more windows" if len(windows) > 1 else ""
            yield f"{field} is missing in every row of {window_label(windows[0])}{more}; was it delivered?"


def encoded(encoding: Encoding, rows: pl.DataFrame) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`Encoding.encode` of the rows, asked once for each distinct text or hour instead of once a row."""
    ids = np.zeros((rows.height, len(encoding.categorical)), dtype=np.int32)
    hourly = rows.with_columns(pl.col(encoding.time).dt.truncate("1h"))
    for i, field in enumerate(encoding.categorical):
        sources = list(encoding.sources(field))
        of = (hourly if field in encoding.time_parts else rows).select(sources)
        distinct = of.unique(maintain_order=True)
        known, _ = encoding.encode(distinct.to_dict(as_series=False))
        ranks = distinct.with_columns(pl.Series("", known[:, i].astype(np.int32)))
        ids[:, i] = of.join(ranks, on=sources, how="left", nulls_equal=True, maintain_order="left")[""].to_numpy()
    numeric = list(dict.fromkeys(column for field in encoding.numeric for column in encoding.sources(field)))
    columns: dict[str, Any] = {c: rows[c].to_numpy() for c in numeric}
    _, numbers = encoding.encode(columns or {"": [None] * rows.height})
    return ids, numbers


def _examples(spec: ModelSpec, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Raw rows as a caller sends them, spread over the split."""
    columns = spec.columns
    names = list(dict.fromkeys([*columns.keys, columns.time, *columns.categorical, *columns.numeric]))
    picked = rows.select(names).gather_every(max(1, rows.height // EXAMPLES)).head(EXAMPLES)
    return [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in picked.to_dicts()]


def _files() -> set[str]:
    arrays = {f"{s}.{p}.npy" for s in ("train", "validate", "test") for p in ("ids", "numbers", "labels", "times")}
    return arrays | {"train.weights.npy", "encoding.json", "examples.json"}


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": store.reference(path).digest}


def _whole(path: Path) -> bool:
    """Whether every file of the dataset is there as recorded."""
    record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return all((path.parent / n).is_file() and _facts(path.parent / n) == facts for n, facts in record["files"].items())
