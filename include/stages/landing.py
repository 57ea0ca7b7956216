"""Landing: the source's rows of some windows, typed, into the table `landed`; what cannot be read, into `quarantine`.

A window holds what every file delivered for it: reading a file again replaces that file's rows and no other's. So a late
row, which comes with a later window's file, goes to its own window and stays there however often either is landed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.errors import UserMistake
from include.domain.windows import Window, label, parse
from include.ports import Records, Source, SourceFile, Tables
from include.spec import ModelSpec
from include.stages.casting import REJECTS, schema
from include.stages.content import content_digest
from include.stages.sorting import LANDED, QUARANTINE, Sorter
from include.stages.spool import Spool

#: What a run landed, by its id: its windows, late ones among them.
LANDINGS = "landings"


@dataclass(frozen=True)
class LandedWindow:
    """Of `rows_in` rows, `landed + quarantined + duplicates` in all; `late` of them came with another window's file."""

    window: str
    rows_in: int
    landed: int
    quarantined: int
    duplicates: int
    late: int
    digest: str
    table_version: int | None

    def __post_init__(self) -> None:
        assert self.rows_in == self.landed + self.quarantined + self.duplicates, self


@dataclass(frozen=True)
class LandingReport:
    windows: tuple[LandedWindow, ...]
    read: int  #: records of the files, those of windows not asked for among them

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
    """Land these windows, and the late rows of others that came with them.

    Raises UserMistake when more rows than the spec allows cannot be read, naming the three commonest reasons, and what
    the source raises; nothing is written then. Raises Conflict when another run wrote one of the windows meanwhile.
    """
    asked = {label(w.start): w for w in windows}
    with Spool() as spool:
        sorter = Sorter(spec, asked, records, spool)
        files = source.files(windows)
        for file in files:
            sorter.sort_in(file, source.read(file))
        _refuse_too_many(spec, spool, sorter.read)
        names = sorted({*asked, *spool.windows(LANDED)})
        writer = _Writer(spec, asked, files, tables, records, run)
        report = LandingReport(tuple(writer.write(name, spool) for name in names), sorter.read)
    records.write(LANDINGS, run, {"windows": [asdict(w) for w in report.windows], "read": report.read})
    return report


def touched(spec: ModelSpec, windows: Sequence[Window], records: Records, run: str) -> list[Window]:
    """These windows and those to which the run landed late rows, oldest first."""
    record = records.read(LANDINGS, run) or {"windows": []}
    starts = {parse(landed["window"]) for landed in record["windows"]} | {w.start for w in windows}
    return [Window(start, start + spec.window.length) for start in sorted(starts)]


class _Writer:
    def __init__(
        self, spec: ModelSpec, asked: Mapping[str, Window], files: Sequence[SourceFile], tables: Tables,
        records: Records, run: str,
    ) -> None:  # fmt: skip
        self._spec, self._asked, self._tables, self._records, self._run = spec, asked, tables, records, run
        self._files = {file.name: file for file in files}
        self._there = {table: set(tables.windows(table)) for table in (LANDED, QUARANTINE)}

    def write(self, name: str, spool: Spool) -> LandedWindow:
        """Put the window together from the files just read and what other files delivered before, and write it."""
        window = Window(parse(name), parse(name) + self._spec.window.length)
        before = self._records.read(LANDED, name) or {}
        others, read_at = self._from_other_files(window, before)
        rows = pl.concat([others, spool.frame(LANDED, name, schema(self._spec.columns))])
        kept = self._once_each(rows)
        bad = self._quarantine(window, spool) if name in self._asked else int(before.get("quarantined", 0))
        digest, version = content_digest(_arrow(kept)), before.get("table_version")
        if digest != before.get("digest") or (kept.height and name not in self._there[LANDED]):
            version = self._replace(LANDED, window, kept, read_at)
        landed = LandedWindow(name, rows.height + bad, kept.height, bad, rows.height - kept.height,
                              self._late(window, kept), digest, version)  # fmt: skip
        files = {**self._files_of(window, kept), **{f: d for f, d in before.get("files", {}).items()
                                                    if f not in self._files and f in others["file"]}}  # fmt: skip
        note = f"{landed.late} late rows" if landed.late else ""
        facts = {**asdict(landed), "files": files, "spec_digest": self._spec.digest, "run": self._run, "note": note}
        self._records.write(LANDED, name, facts)
        return landed

    def _from_other_files(self, window: Window, before: Mapping[str, Any]) -> tuple[pl.DataFrame, int | None]:
        """The window's rows from files that were not read now, and the table version they were read at."""
        columns = schema(self._spec.columns)
        known = label(window.start) in self._there[LANDED] and (not before or set(before["files"]) - set(self._files))
        if not known:
            return pl.DataFrame(schema=columns), None
        version = self._tables.version(LANDED)
        rows = pl.DataFrame(pl.from_arrow(self._tables.read(LANDED, [window], version=version)))
        for name in columns.keys() - set(rows.columns):
            rows = rows.with_columns(pl.lit(None).alias(name))
        others = rows.filter(~pl.col("file").is_in(list(self._files)))
        return others.select(pl.col(name).cast(kind) for name, kind in columns.items()), version

    def _once_each(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One row a key, the one delivered last (by file name, then place), in order of time and key."""
        keys = list(self._spec.columns.keys)
        last = rows.sort("file", "line").unique(keys, keep="last", maintain_order=True)
        return last.sort(self._spec.columns.time, *keys)

    def _quarantine(self, window: Window, spool: Spool) -> int:
        name = label(window.start)
        rows = spool.frame(QUARANTINE, name, REJECTS).sort("file", "line")
        if rows.height or name in self._there[QUARANTINE]:
            self._replace(QUARANTINE, window, rows, None)
        return rows.height

    def _replace(self, table: str, window: Window, rows: pl.DataFrame, read_at: int | None) -> int:
        signed = rows.with_columns(landed_by=pl.lit(self._run))
        return self._tables.replace(table, window, _arrow(signed), self._run, read_at=read_at)

    def _late(self, window: Window, kept: pl.DataFrame) -> int:
        """Rows that came with another window's file, or after the window itself had landed."""
        if label(window.start) not in self._asked and not self._spec.source.by_window:
            return kept.filter(pl.col("file").is_in(list(self._files))).height
        own = [f.name for f in self._files.values() if f.window in (None, window)]
        return kept.filter(~pl.col("file").is_in(own)).height if self._spec.source.by_window else 0

    def _files_of(self, window: Window, kept: pl.DataFrame) -> dict[str, str]:
        """The files just read that may hold rows of the window, with their digests."""
        delivered = set(kept["file"].unique())
        return {f.name: f.digest for f in self._files.values() if f.window in (None, window) or f.name in delivered}


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def _refuse_too_many(spec: ModelSpec, spool: Spool, read: int) -> None:
    bad = sum(spool.height(QUARANTINE, name) for name in spool.windows(QUARANTINE))
    if bad <= spec.validation.max_quarantined * read:
        return
    rejects = pl.concat(spool.frame(QUARANTINE, name, REJECTS) for name in spool.windows(QUARANTINE))
    kinds = rejects.with_columns(kind=pl.col("reason").str.split(": ").list.first()).group_by("column", "kind").agg(
        pl.len(), pl.first("file", "line", "reason")).sort("len", "column", "kind", descending=[True, False, False])  # fmt: skip
    worst = [f"  {r['len']} × {r['column'] or 'record'}: {r['reason']} ({r['file']} line {r['line']})"
             for r in kinds.head(3).iter_rows(named=True)]  # fmt: skip
    share = f"{bad} of {read} rows ({bad / read:.1%}) cannot be read, more than {spec.validation.max_quarantined:.1%}"
    raise UserMistake("\n".join([f"{spec.name}: {share}; nothing was landed. Commonest:", *worst]))
