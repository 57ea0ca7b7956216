"""From the source's columns to typed ones: a value that cannot be read costs its row, with the column and the reason."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from include.domain.errors import UserMistake
from include.ports import Batch
from include.spec import Columns
from include.stages.times import TIMESTAMP, as_timestamps

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
#: What is kept of an unreadable row, in characters.
RAW_LENGTH = 2000
REJECTS = {"file": pl.String, "line": pl.Int64, "column": pl.String, "reason": pl.String, "raw": pl.String}


@dataclass(frozen=True)
class Typed:
    """`rows`: the spec's columns, typed, with `file` and `line`; `rejects`: as in REJECTS, with the row's time where known."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class _Read:
    value: pl.Series
    bad: pl.Series  #: bool `[n]`
    reason: str  #: `{}` stands for the value


def cast(columns: Columns, nulls: tuple[str, ...], batch: Batch) -> Typed:
    """Every record of the batch is in `rows` or in `rejects`. Raises UserMistake for a missing, extra or unreadable column."""
    check_columns(columns, batch.file, batch.rows.column_names)
    raw = pl.DataFrame(pl.from_arrow(batch.rows))
    raw = raw.with_columns(pl.when(~pl.col(pl.String).is_in(nulls)).then(pl.col(pl.String)).name.keep())
    reads = {name: _reader(columns, name)(raw[name]) for name in wanted(columns)}
    place = [pl.lit(batch.file).alias("file"), pl.Series("line", batch.lines)]
    rows = pl.DataFrame([r.value.alias(name) for name, r in reads.items()]).with_columns(place)
    bad = pl.any_horizontal([r.bad for r in reads.values()])
    flags = pl.select(bad.alias("bad"))["bad"]
    if not flags.any():
        return Typed(rows, rejects_frame(batch))
    explained = _explain(raw.filter(flags), {n: _Read(r.value, r.bad.filter(flags), r.reason) for n, r in reads.items()})
    explained = explained.with_columns(rows.filter(flags).select("file", "line", pl.col(columns.time).alias("time")))
    return Typed(rows.filter(~flags), pl.concat([rejects_frame(batch), explained.select(*REJECTS, "time")]))


def wanted(columns: Columns) -> list[str]:
    """The source's columns that land, each once, in the spec's order."""
    names = [columns.time, *columns.keys, columns.label, *columns.outcomes, *columns.features]
    return list(dict.fromkeys([*names, columns.known] if columns.known else names))


def check_columns(columns: Columns, file: str, given: list[str]) -> None:
    """Raises UserMistake naming every column that is missing from the file or unknown to the spec."""
    missing = [name for name in wanted(columns) if name not in given]
    extra = [name for name in given if name not in (*wanted(columns), *columns.ignored)]
    if missing:
        hint = f"; its only column is {given[0]!r}: is the delimiter right?" if len(given) == 1 else ""
        raise UserMistake(f"{file}: no column {', '.join(missing)}{hint}")
    if extra:
        raise UserMistake(f"{file}: unknown column {', '.join(extra)}; name it in the spec, under columns.ignored if unused")


def rejects_frame(batch: Batch) -> pl.DataFrame:
    rows = [(r.file, r.line, r.column, r.reason, r.raw[:RAW_LENGTH], None) for r in batch.unreadable]
    return pl.DataFrame(rows, schema={**REJECTS, "time": TIMESTAMP}, orient="row")


def _explain(raw: pl.DataFrame, reads: dict[str, _Read]) -> pl.DataFrame:
    """For each of these faulty rows its first fault and the row itself as JSON."""
    column, reason = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for name, read in reversed(reads.items()):
        text = raw[name].cast(pl.String, strict=False).fill_null("(missing)").str.slice(0, 80)
        column = pl.when(read.bad).then(pl.lit(name)).otherwise(column)
        reason = pl.when(read.bad).then(pl.format(read.reason, text)).otherwise(reason)
    whole = pl.struct(pl.all().cast(pl.String, strict=False).str.slice(0, RAW_LENGTH)).struct.json_encode()
    return raw.select(column=column, reason=reason, raw=whole.str.slice(0, RAW_LENGTH))


def _reader(columns: Columns, name: str) -> Callable[[pl.Series], _Read]:
    if name in (columns.time, columns.known):
        return lambda raw: _time(raw, columns, required=name == columns.time)
    if name == columns.label:
        return _label
    if name in columns.keys:
        return _key
    return _category if name in columns.categorical else _number


def _time(raw: pl.Series, columns: Columns, *, required: bool) -> _Read:
    value = as_timestamps(raw, columns.zone, columns.time_format)
    bad = value.is_null() if required else value.is_null() & raw.is_not_null()
    return _Read(value, bad, f"not a time in {columns.zone}: {{}}")


def _label(raw: pl.Series) -> _Read:
    """0 and 1 as Int8; missing stays missing: not known yet."""
    text = _text(raw).str.to_lowercase()
    value = text.replace_strict(LABELS, default=None, return_dtype=pl.Int8)
    return _Read(value, value.is_null() & text.is_not_null(), "neither of 0 and 1: {}")


def _key(raw: pl.Series) -> _Read:
    value = _text(raw)
    return _Read(value, value.is_null(), "no key")


def _category(raw: pl.Series) -> _Read:
    value = _text(raw)
    return _Read(value, value.is_null() & False, "")


def _number(raw: pl.Series) -> _Read:
    """Float64; NaN is missing, as in a row that asks for a prediction; an infinite number is a fault of the source."""
    _refuse_nested(raw)
    given = raw.str.strip_chars() if raw.dtype == pl.String else raw
    value = given.cast(pl.Float64, strict=False)
    bad = (value.is_null() & raw.is_not_null()) | value.is_infinite().fill_null(value=False)
    return _Read(value.fill_nan(None), bad, "not a finite number: {}")


def _text(raw: pl.Series) -> pl.Series:
    """The spelling of `domain.encoding.as_text`: whole numbers without a point, `true` and `false` in small letters."""
    _refuse_nested(raw)
    if raw.dtype.is_float():
        whole = (raw == raw.floor()) & (raw.abs() < 2**63)
        texts = pl.when(whole).then(raw.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(raw.cast(pl.String))
        return pl.select(pl.when(raw.is_nan()).then(None).otherwise(texts).alias(raw.name))[raw.name]
    return raw.cast(pl.String, strict=False)


def _refuse_nested(raw: pl.Series) -> None:
    if raw.dtype.is_nested() or raw.dtype == pl.Object:
        raise UserMistake(f"column {raw.name} holds {raw.dtype}; a feature is a number or a text: flatten it at the source")
