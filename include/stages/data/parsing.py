"""The source's columns become typed ones; a row with a value that cannot be read is rejected with its column and the reason."""

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
from include.stages.data.timestamps import TIMESTAMP, to_timestamps

LABEL_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
#: Characters of an unreadable row that quarantine holds, and of its value that the reason quotes.
RAW_LENGTH, QUOTED_LENGTH = 2000, 80
QUARANTINE_SCHEMA = {"file": pl.String, "line": pl.Int64, "column": pl.String, "reason": pl.String, "raw": pl.String}


@dataclass(frozen=True)
class ParsedRows:
    """Typed rows in the landed schema, and the rejected ones in the quarantine's, with `time`, null where it is unreadable."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class _ColumnParser:
    """How a column is parsed: by `value`, which is null for a value that cannot be read, for the `reason` given.

    Where a value is `required`, a missing one cannot be read either.
    """

    value: pl.Expr
    reason: str
    required: bool = False

    def has_invalid(self, raw: pl.Series, value: pl.Series) -> bool:
        """Return whether any value cannot be read."""
        return value.null_count() > (0 if self.required else raw.null_count())

    def invalid(self, raw: pl.Series, value: pl.Series) -> pl.Series:
        """Return a mask of the values that cannot be read."""
        return value.is_null() & (True if self.required else raw.is_not_null())


def parse_rows(columns: Columns, nulls: tuple[str, ...], batch: Batch) -> ParsedRows:
    """Return every record of the batch either typed or rejected.

    Raises UserMistake for a column that is missing, extra, or of a type that cannot be read.
    """
    check_columns(columns, batch.file, batch.rows.column_names)
    names = landed_columns(columns)
    raw = _with_nulls(batch.rows.select(names), nulls)
    time_columns = [name for name in names if name in (columns.time, columns.known)]
    times = {name: to_timestamps(raw[name], columns.zone, columns.time_format) for name in time_columns}
    parsers = {name: _column_parser(columns, raw.schema, times, name) for name in names}
    values = raw.select(parser.value.alias(name) for name, parser in parsers.items())
    rows = values.with_columns(file=pl.lit(batch.file), line=pl.lit(pl.Series(batch.lines, dtype=pl.Int64)))
    rejects = _unreadable_records(batch)
    if failed := {name: parser for name, parser in parsers.items() if parser.has_invalid(raw[name], values[name])}:
        invalid = {name: parser.invalid(raw[name], rows[name]) for name, parser in failed.items()}
        any_invalid = reduce(or_, invalid.values())
        as_written = raw.filter(any_invalid)
        if batch.as_text:
            text = _with_nulls(batch.as_text(any_invalid.to_numpy()), nulls)
            as_written = as_written.with_columns(text.select(names))
        masks = {name: mask.filter(any_invalid) for name, mask in invalid.items()}
        explained = pl.concat([rows.filter(any_invalid), _reasons(as_written, failed, masks)], how="horizontal")
        rejects = pl.concat([rejects, explained.select(*QUARANTINE_SCHEMA, time=columns.time)])
        rows = rows.filter(~any_invalid)
    return ParsedRows(rows.with_columns(pl.col(pl.Float64).fill_nan(None)), rejects)


def with_added_columns(columns: Columns, batch: Batch, window: datetime) -> Batch:
    """Return the batch with the columns of `columns.added`: the start of the file's `window`, or each row's `place`.

    Places sort in the file's order. Raises UserMistake for a column that the source has itself.
    """
    if existing := [name for name in columns.added if name in batch.rows.column_names]:
        raise UserMistake(f"{batch.file}: has a column {', '.join(existing)}; take it out of columns.added")
    line = pl.lit(pl.Series(batch.lines, dtype=pl.Int64)).cast(pl.String).str.zfill(12)
    contents = {"window": pl.lit(window).cast(TIMESTAMP), "place": pl.format("{}:{}", pl.lit(batch.file), line)}
    added = {name: contents[content] for name, content in columns.added.items()}
    rows = pl.DataFrame(pl.from_arrow(batch.rows)).with_columns(**added)
    return replace(batch, rows=rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def landed_columns(columns: Columns) -> list[str]:
    """Return the source's columns that land, each once, in the spec's order."""
    names = [columns.time, *columns.keys, columns.label, *columns.outcomes, *columns.features]
    return list(dict.fromkeys([*names, *(name for name in (columns.known, columns.weight) if name)]))


def landed_schema(columns: Columns) -> dict[str, Any]:
    """Return the polars types of landed rows, in order: the source's columns, then `file` and `line`."""
    types: dict[str, Any] = dict.fromkeys(landed_columns(columns), pl.Float64)
    types |= dict.fromkeys([*columns.keys, *columns.categorical], pl.String)
    types |= {columns.time: TIMESTAMP, columns.label: pl.Int8}
    if columns.known:
        types[columns.known] = TIMESTAMP
    return {**types, "file": pl.String, "line": pl.Int64}


def check_columns(columns: Columns, file: str, names: list[str]) -> None:
    """Raise UserMistake naming every column that the file lacks, or that it has and the spec does not name."""
    expected = landed_columns(columns)
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in (*expected, *columns.ignored)]
    if missing:
        hint = f"; its only column is {names[0]!r}: is the delimiter right?" if len(names) == 1 else ""
        raise UserMistake(f"{file}: no column {', '.join(missing)}{hint}")
    if extra:
        advice = "name it in the spec, under columns.ignored if unused"
        raise UserMistake(f"{file}: unknown column {', '.join(extra)}; {advice}")


def _unreadable_records(batch: Batch) -> pl.DataFrame:
    rows = [(r.file, r.line, r.column, r.reason, r.raw[:RAW_LENGTH], None) for r in batch.unreadable]
    return pl.DataFrame(rows, schema={**QUARANTINE_SCHEMA, "time": TIMESTAMP}, orient="row")


def _with_nulls(rows: pa.Table, nulls: tuple[str, ...]) -> pl.DataFrame:
    """Return the rows with null for NaN and for the texts that mean a missing value."""
    return pl.DataFrame(pl.from_arrow(rows.combine_chunks())).with_columns(  # polars takes long over many chunks
        pl.when(~pl.col(pl.String).is_in(nulls)).then(pl.col(pl.String)).name.keep(),
        pl.col(pl.Float32, pl.Float64).fill_nan(None),
    )


def _reasons(raw: pl.DataFrame, parsers: Mapping[str, _ColumnParser], invalid: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Return `column`, `reason` and `raw` of rejected rows: the first column that cannot be read, why, and the row as JSON.

    `invalid` has for each parsed column a mask of the rows whose value there cannot be read.
    """
    column, reason = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for name, parser in reversed(list(parsers.items())):
        text = pl.col(name).cast(pl.String, strict=False).fill_null("(missing)").str.slice(0, QUOTED_LENGTH)
        is_invalid = pl.lit(invalid[name])
        column = pl.when(is_invalid).then(pl.lit(name)).otherwise(column)
        reason = pl.when(is_invalid).then(pl.format(f"{parser.reason}: {{}}", text)).otherwise(reason)
    values = pl.all().cast(pl.String, strict=False).str.slice(0, RAW_LENGTH)
    row = pl.struct(values).struct.json_encode().str.slice(0, RAW_LENGTH)
    return raw.select(column=column, reason=reason, raw=row)


def _column_parser(columns: Columns, schema: pl.Schema, times: Mapping[str, pl.Series], name: str) -> _ColumnParser:
    raw, dtype = pl.col(name), schema[name]
    if dtype.is_nested() or dtype == pl.Object:
        raise UserMistake(f"column {name} holds {dtype}; a feature is a number or a text: flatten it at the source")
    if name in times:
        return _ColumnParser(pl.lit(times[name]), f"not a time in {columns.zone}", required=name == columns.time)
    if name == columns.label:
        label = _text(raw, dtype).str.to_lowercase().replace_strict(LABEL_VALUES, default=None, return_dtype=pl.Int8)
        return _ColumnParser(label, "neither of 0 and 1")
    if name in columns.keys:
        return _ColumnParser(_text(raw, dtype), "no key", required=True)
    if name in columns.categorical:
        return _ColumnParser(_text(raw, dtype), "no text")
    number = _number(raw, dtype)
    if name == columns.weight:
        return _ColumnParser(pl.when(number >= 0).then(number), "not a weight of at least 0")
    return _ColumnParser(number, "not a finite number")


def _number(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return the values as Float64. NaN is missing, as in a row that asks for a prediction; an infinite number is an error."""
    value = (raw.str.strip_chars() if dtype == pl.String else raw).cast(pl.Float64, strict=False)
    return pl.when(value.is_infinite()).then(None).otherwise(value)


def _text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return the values as `domain.categories.as_text` spells them: whole numbers without a point, `true` and `false`."""
    if not dtype.is_float():
        return raw.cast(pl.String, strict=False)
    is_whole = (raw == raw.floor()) & (raw.abs() < 2**63)
    return pl.when(is_whole).then(raw.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(raw.cast(pl.String))
