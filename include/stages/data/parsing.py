"""From the source's columns to typed ones: a value that cannot be read costs its row, with the column and the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.errors import UserMistake
from include.ports.sources import Batch
from include.spec.data import Columns
from include.stages.data.timestamps import TIMESTAMP, as_timestamps

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
#: What is kept of an unreadable row, in characters.
RAW_LENGTH = 2000
SHOWN = 80
REJECTS = {"file": pl.String, "line": pl.Int64, "column": pl.String, "reason": pl.String, "raw": pl.String}


@dataclass(frozen=True)
class Typed:
    """`rows`: the spec's columns, typed, with `file` and `line`; `rejects`: as in REJECTS, with the row's time where known."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class _Reading:
    """How a column is read: a value that comes out null though something was there is faulty, for the `reason` that it follows;
    where a value is `required`, nothing there is faulty too."""

    value: pl.Expr
    reason: str
    required: bool = False

    def faults(self, raw: pl.Series, value: pl.Series) -> bool:
        return value.null_count() > (0 if self.required else raw.null_count())


def cast(columns: Columns, nulls: tuple[str, ...], batch: Batch) -> Typed:
    """Every record of the batch is in `rows` or in `rejects`. Raises UserMistake for a missing, extra or unreadable column."""
    check_columns(columns, batch.file, batch.rows.column_names)
    names = wanted(columns)
    raw = _without_nulls(batch.rows.select(names), nulls)
    times = {
        n: as_timestamps(raw[n], columns.zone, columns.time_format) for n in names if n in (columns.time, columns.known)
    }
    readings = {name: _reading(columns, raw.schema, times, name) for name in names}
    values = raw.select(r.value.alias(name) for name, r in readings.items())
    faulty = {name: r for name, r in readings.items() if r.faults(raw[name], values[name])}
    rows = values.with_columns(file=pl.lit(batch.file), line=pl.lit(pl.Series(batch.lines, dtype=pl.Int64)))
    rejects = _unreadable(batch)
    if faulty:
        bad = {
            name: rows[name].is_null() & (True if r.required else raw[name].is_not_null()) for name, r in faulty.items()
        }
        any_bad = reduce(or_, bad.values())
        told = raw.filter(any_bad)
        if batch.as_text:
            told = told.with_columns(_without_nulls(batch.as_text(any_bad.to_numpy()), nulls).select(names))
        why = _explained(told, faulty, {name: own.filter(any_bad) for name, own in bad.items()})
        explained = pl.concat([rows.filter(any_bad), why], how="horizontal")
        rows, rejects = rows.filter(~any_bad), pl.concat([rejects, explained.select(*REJECTS, time=columns.time)])
    return Typed(rows.with_columns(pl.col(pl.Float64).fill_nan(None)), rejects)


def with_added(columns: Columns, batch: Batch, window: datetime) -> Batch:
    """The batch with the columns that its source lacks: the file's `window` and the row's `place`, which keeps the file's order.

    Raises UserMistake for one that it has.
    """
    if twice := [name for name in columns.added if name in batch.rows.column_names]:
        raise UserMistake(f"{batch.file}: has a column {', '.join(twice)}; take it out of columns.added")
    line = pl.lit(pl.Series(batch.lines, dtype=pl.Int64)).cast(pl.String).str.zfill(12)
    made = {"window": pl.lit(window).cast(TIMESTAMP), "place": pl.format("{}:{}", pl.lit(batch.file), line)}
    rows = pl.DataFrame(pl.from_arrow(batch.rows)).with_columns(**{n: made[what] for n, what in columns.added.items()})
    return replace(batch, rows=rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def wanted(columns: Columns) -> list[str]:
    """The source's columns that land, each once, in the spec's order."""
    names = [columns.time, *columns.keys, columns.label, *columns.outcomes, *columns.features]
    return list(dict.fromkeys([*names, *(c for c in (columns.known, columns.weight) if c)]))


def schema(columns: Columns) -> dict[str, Any]:
    """The polars types of landed rows, in order."""
    types: dict[str, Any] = dict.fromkeys(wanted(columns), pl.Float64)
    types |= dict.fromkeys([*columns.keys, *columns.categorical], pl.String)
    types |= {columns.time: TIMESTAMP, columns.label: pl.Int8}
    if columns.known:
        types[columns.known] = TIMESTAMP
    return {**types, "file": pl.String, "line": pl.Int64}


def check_columns(columns: Columns, file: str, given: list[str]) -> None:
    """Raises UserMistake naming every column that is missing from the file or unknown to the spec."""
    missing = [name for name in wanted(columns) if name not in given]
    extra = [name for name in given if name not in (*wanted(columns), *columns.ignored)]
    if missing:
        hint = f"; its only column is {given[0]!r}: is the delimiter right?" if len(given) == 1 else ""
        raise UserMistake(f"{file}: no column {', '.join(missing)}{hint}")
    if extra:
        raise UserMistake(
            f"{file}: unknown column {', '.join(extra)}; name it in the spec, under columns.ignored if unused"
        )


def _unreadable(batch: Batch) -> pl.DataFrame:
    rows = [(r.file, r.line, r.column, r.reason, r.raw[:RAW_LENGTH], None) for r in batch.unreadable]
    return pl.DataFrame(rows, schema={**REJECTS, "time": TIMESTAMP}, orient="row")


def _without_nulls(rows: pa.Table, nulls: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows.combine_chunks())).with_columns(  # polars takes long over many chunks
        pl.when(~pl.col(pl.String).is_in(nulls)).then(pl.col(pl.String)).name.keep(),
        pl.col(pl.Float32, pl.Float64).fill_nan(None),
    )


def _explained(raw: pl.DataFrame, faulty: Mapping[str, _Reading], bad: Mapping[str, pl.Series]) -> pl.DataFrame:
    """For each of these rows its first fault (`bad` marks all of a column's) and the row itself as JSON."""
    column, reason = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for name, reading in reversed(list(faulty.items())):
        text = pl.col(name).cast(pl.String, strict=False).fill_null("(missing)").str.slice(0, SHOWN)
        own = pl.lit(bad[name])
        column = pl.when(own).then(pl.lit(name)).otherwise(column)
        reason = pl.when(own).then(pl.format(f"{reading.reason}: {{}}", text)).otherwise(reason)
    short = pl.all().cast(pl.String, strict=False).str.slice(0, RAW_LENGTH)
    whole = pl.struct(short).struct.json_encode().str.slice(0, RAW_LENGTH)
    return raw.select(column=column, reason=reason, raw=whole)


def _reading(columns: Columns, types: pl.Schema, times: Mapping[str, pl.Series], name: str) -> _Reading:
    raw, kind = pl.col(name), types[name]
    if kind.is_nested() or kind == pl.Object:
        raise UserMistake(f"column {name} holds {kind}; a feature is a number or a text: flatten it at the source")
    if name in times:
        return _Reading(pl.lit(times[name]), f"not a time in {columns.zone}", required=name == columns.time)
    if name == columns.label:
        value = _text(raw, kind).str.to_lowercase().replace_strict(LABELS, default=None, return_dtype=pl.Int8)
        return _Reading(value, "neither of 0 and 1")
    if name in columns.keys:
        return _Reading(_text(raw, kind), "no key", required=True)
    if name in columns.categorical:
        return _Reading(_text(raw, kind), "no text")
    number = _number(raw, kind)
    if name == columns.weight:
        return _Reading(pl.when(number >= 0).then(number), "not a weight of at least 0")
    return _Reading(number, "not a finite number")


def _number(raw: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Float64; NaN is missing, as in a row that asks for a prediction; an infinite number is a fault of the source."""
    value = (raw.str.strip_chars() if kind == pl.String else raw).cast(pl.Float64, strict=False)
    return pl.when(value.is_infinite()).then(None).otherwise(value)


def _text(raw: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """The spelling of `domain.encoding.as_text`: whole numbers without a point, `true` and `false` in small letters."""
    if not kind.is_float():
        return raw.cast(pl.String, strict=False)
    whole = (raw == raw.floor()) & (raw.abs() < 2**63)
    return pl.when(whole).then(raw.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(raw.cast(pl.String))
