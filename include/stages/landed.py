"""One window's content, put together from what every file delivered for it, and its record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.windows import Window, label, parse
from include.ports import Records, Tables
from include.spec import ModelSpec
from include.stages.casting import REJECTS, schema
from include.stages.content import content_digest
from include.stages.sorting import LANDED, QUARANTINE
from include.stages.spool import Spool


@dataclass(frozen=True)
class LandedWindow:
    """Of `rows_in` rows, `landed + quarantined + duplicates` in all; `late` of the landed came with another window's file."""

    window: str
    rows_in: int
    landed: int
    quarantined: int
    duplicates: int
    late: int
    digest: str
    table_version: int | None


class Writer:
    """Writes the windows that lie in the spool."""

    def __init__(self, spec: ModelSpec, spool: Spool, tables: Tables, records: Records, run: str) -> None:
        self._spec, self._spool, self._tables, self._records, self._run = spec, spool, tables, records, run
        self._there = {table: set(tables.windows(table)) for table in (LANDED, QUARANTINE)}

    def write(self, name: str, delivered: Mapping[str, Any], read: set[str], *, own: bool) -> LandedWindow:
        """Write the window and its record; `own` where it was asked for, and so its unreadable rows are in the spool.

        `delivered` are the files just read that hold rows of it; of all files `read` it keeps no other rows.
        """
        window = Window(parse(name), parse(name) + self._spec.window.length)
        before = self._records.read(LANDED, name) or {"files": {}}
        replaced = read if self._spec.source.by_window else set(delivered)
        others, read_at = self._from_other_files(window, before["files"].keys() - replaced)
        rows = pl.concat([others, self._spool.frame(LANDED, name, schema(self._spec.columns))])
        kept = self._once_each(rows)
        bad = self._quarantine(window) if own else int(before.get("quarantined", 0))
        still = set(others["file"].unique())
        files = {**{f: facts for f, facts in before["files"].items() if f in still}, **delivered}
        late = kept["file"].is_in([f for f, facts in files.items() if facts["late"]]).sum()
        digest, version = content_digest(_arrow(kept)), before.get("table_version")
        if digest != before.get("digest") or (kept.height and name not in self._there[LANDED]):
            version = self._replace(LANDED, window, kept, read_at)
        total = rows.height + bad
        landed = LandedWindow(name, total, kept.height, bad, rows.height - kept.height, int(late), digest, version)
        _assert_balanced(landed)
        note = f"{landed.late} late rows" if landed.late else ""
        facts = {**asdict(landed), "files": files, "spec_digest": self._spec.digest, "run": self._run, "note": note}
        self._records.write(LANDED, name, facts)
        return landed

    def _from_other_files(self, window: Window, files: set[str]) -> tuple[pl.DataFrame, int | None]:
        """The window's rows from these files as they stand, and the table version they were read at."""
        columns = schema(self._spec.columns)
        if not files or label(window.start) not in self._there[LANDED]:
            return pl.DataFrame(schema=columns), None
        version = self._tables.version(LANDED)
        rows = pl.DataFrame(pl.from_arrow(self._tables.read(LANDED, [window], version=version)))
        new = [pl.lit(None).alias(name) for name in columns if name not in rows.columns]
        others = rows.filter(pl.col("file").is_in(sorted(files))).with_columns(new)
        return others.select(pl.col(name).cast(kind) for name, kind in columns.items()), version

    def _once_each(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One row a key, the one delivered last (by file name, then place), in order of time and key."""
        keys = list(self._spec.columns.keys)
        last = rows.sort("file", "line").unique(keys, keep="last", maintain_order=True)
        return last.sort(self._spec.columns.time, *keys)

    def _quarantine(self, window: Window) -> int:
        name = label(window.start)
        rows = self._spool.frame(QUARANTINE, name, REJECTS).sort("file", "line")
        if rows.height or name in self._there[QUARANTINE]:
            self._replace(QUARANTINE, window, rows, None)
        return rows.height

    def _replace(self, table: str, window: Window, rows: pl.DataFrame, read_at: int | None) -> int:
        signed = rows.with_columns(landed_by=pl.lit(self._run))
        return self._tables.replace(table, window, _arrow(signed), self._run, read_at=read_at)


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


def _assert_balanced(landed: LandedWindow) -> None:
    accounted = landed.landed + landed.quarantined + landed.duplicates
    if landed.rows_in != accounted:
        raise AssertionError(f"{landed.window}: {landed.rows_in} rows came in and {accounted} are accounted for")
