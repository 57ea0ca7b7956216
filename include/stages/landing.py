"""Landing: the source's rows of some windows, typed, into the `landed` table; what cannot be read, into `quarantine`.

A window holds what every file delivered for it: reading a file again replaces that file's rows and no other's. So a late
row, which comes in a later window's file, goes to its own window and stays there however often either is landed again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.errors import UserMistake
from include.domain.windows import Window, label, parse
from include.ports import Records, Source, SourceFile, Tables
from include.spec import ModelSpec
from include.stages.casting import REJECTS, cast
from include.stages.content import digest
from include.stages.spool import Spool

LANDED, QUARANTINE = "landed", "quarantine"


@dataclass(frozen=True)
class LandedWindow:
    """Rows of one window: `landed + quarantined + duplicates == rows_in`, of which `late` came in a later window's file."""

    window: str
    rows_in: int
    landed: int
    quarantined: int
    duplicates: int
    late: int
    digest: str
    table_version: int | None


@dataclass(frozen=True)
class LandingReport:
    windows: tuple[LandedWindow, ...]
    read: int  #: records of the files, those of other windows among them

    @property
    def landed(self) -> int:
        return sum(w.landed for w in self.windows)

    @property
    def quarantined(self) -> int:
        return sum(w.quarantined for w in self.windows)

    @property
    def duplicates(self) -> int:
        return sum(w.duplicates for w in self.windows)


def land(
    spec: ModelSpec, windows: Sequence[Window], source: Source, tables: Tables, records: Records, run: str
) -> LandingReport:
    """Land these windows, and the late rows for others that come with them.

    Raises UserMistake when more rows than the spec allows cannot be read, naming the three commonest reasons, and what the
    source raises; nothing is written then.
    """
    files = source.files(windows)
    with Spool() as spool:
        read = sum(_sort_in(spec, windows, source, file, records, spool) for file in files)
        _refuse_too_many(spec, spool, read)
        taken = sorted({*(label(w.start) for w in windows), *spool.keys(LANDED)})
        landed = tuple(_write(spec, name, files, tables, records, spool, run) for name in taken)
    return LandingReport(landed, read)


def _sort_in(
    spec: ModelSpec, windows: Sequence[Window], source: Source, file: SourceFile, records: Records, spool: Spool
) -> int:
    """The file's rows into the spool, each under its window; how many there were."""
    read = 0
    asked = {label(w.start) for w in windows}
    own = label(file.window.start) if file.window else min(asked)
    taken: dict[str, bool] = {}
    for batch in source.read(file):
        typed = cast(spec.columns, spec.source.nulls, batch)
        rows, rejects = typed.rows, typed.rejects
        read += rows.height + rejects.height
        if file.window:
            rows, early = _early(spec, rows, file.window)
            rejects = pl.concat([rejects, early])
        for name, part in _by_window(spec, rows, spec.columns.time):
            if name not in taken:
                taken[name] = name in asked or _late_news(name, file, records, asked)
            if taken[name]:
                spool.add(LANDED, name, part)
        for name, part in _by_window(spec, rejects.with_columns(pl.col("time").fill_null(parse(own))), "time"):
            if file.window or name in asked:
                spool.add(QUARANTINE, own if file.window else name, part.drop("time"))
    return read


def _late_news(name: str, file: SourceFile, records: Records, asked: set[str]) -> bool:
    """Whether rows of another window than those asked for are taken.

    A window's own file is read with that window alone, so its late rows are taken whenever it is. Other files are read
    by every run: rows of a window landed before are taken when the file was not there or was another one then.
    """
    if file.window:
        return True
    record = records.read(LANDED, name)
    return record is not None and name < max(asked) and record["files"].get(file.name) != file.digest


def _early(spec: ModelSpec, rows: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows before the end of the file's window; those after it, as rejects: nobody can know the future."""
    time = pl.col(spec.columns.time)
    after = rows.filter(time >= window.end)
    reason = pl.format("time {} is after the file's window", time.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
    raw = pl.struct(pl.exclude("file", "line").cast(pl.String, strict=False)).struct.json_encode()
    rejects = after.select(
        "file", "line", column=pl.lit(spec.columns.time), reason=reason, raw=raw, time=pl.lit(window.start, time_type())
    )
    return (rows.filter(time < window.end) if after.height else rows), rejects


def time_type() -> pl.Datetime:
    return pl.Datetime("us", "UTC")


def _by_window(spec: ModelSpec, rows: pl.DataFrame, time: str) -> list[tuple[str, pl.DataFrame]]:
    if not rows.height:
        return []
    starts = rows.with_columns(start_=pl.col(time).dt.truncate("1h" if spec.window == "hour" else "1d"))
    parts = starts.partition_by("start_", as_dict=True, include_key=False)
    return [(label(start), part) for (start,), part in parts.items()]


def _refuse_too_many(spec: ModelSpec, spool: Spool, read: int) -> None:
    bad = sum(spool.height(QUARANTINE, name) for name in spool.keys(QUARANTINE))
    if not bad or bad <= spec.validation.max_quarantined * read:
        return
    reasons: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for name in spool.keys(QUARANTINE):
        for row in spool.frame(QUARANTINE, name).iter_rows(named=True):
            kind = (row["column"], row["reason"].partition(": ")[0])
            reasons[kind] += 1
            example.setdefault(kind, f"{row['file']} line {row['line']}: {row['reason']}")
    worst = [f"  {n} × {column or 'record'}: {example[column, kind]}" for (column, kind), n in reasons.most_common(3)]
    share = f"{bad} of {read} rows ({bad / read:.1%}) cannot be read, more than {spec.validation.max_quarantined:.1%}"
    raise UserMistake("\n".join([f"{spec.name}: {share}; nothing was landed. Commonest:", *worst]))
