"""Each window's content, put together from what every file delivered for it, and its record."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.errors import Conflict
from include.domain.prefetch import side_by_side
from include.domain.windows import Window, window_of
from include.ports.tables import Records, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import REJECTS, schema
from include.stages.data.partitioning import LANDED, QUARANTINE
from include.stages.data.row_digest import content_digest, in_order
from include.stages.data.spill_buffer import Spool

#: How often the windows of one commit are put together before another run's writes are too many.
TRIES = 5
#: What is said of a file whose rows are in the table and whose record a run had not written yet.
UNRECORDED = {"digest": None, "late": False}


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


@dataclass(frozen=True)
class _Prepared:
    """A window ready to be written."""

    window: Window
    landed: LandedWindow
    files: Mapping[str, Any]
    rows: pa.Table | None  #: None where the table holds them already
    rejects: pa.Table | None


class Writer:
    """Writes the windows that lie in the spool.

    `delivered` are, by window, the files just read that hold rows of it; of all files `read` it keeps no other rows.
    The unreadable rows of the windows `asked` for are in the spool.
    """

    def __init__(
        self, spec: ModelSpec, spool: Spool, tables: Tables, records: Records, run: str, *,
        delivered: Mapping[str, Mapping[str, Any]], read: Set[str], asked: Set[str],
    ) -> None:  # fmt: skip
        self._spec, self._spool, self._tables, self._records, self._run = spec, spool, tables, records, run
        self._delivered, self._read, self._asked = delivered, read, asked

    def write(self, names: Sequence[str]) -> list[LandedWindow]:
        """Write these windows in one commit, then their records.

        Where another run wrote one of them meanwhile they are put together anew, on what it wrote; raises Conflict when
        that happens `TRIES` times.
        """
        for _ in range(TRIES):
            version, there = self._tables.version(LANDED), set(self._tables.windows(LANDED))
            prepared = list(side_by_side(partial(self._prepared, there=there, version=version), names))
            with suppress(Conflict):
                return self._written(prepared, version)
        raise Conflict(f"{names[0]} to {names[-1]}: other runs wrote there {TRIES} times meanwhile; run it again")

    def _prepared(self, name: str, there: Set[str], version: int | None) -> _Prepared:
        window = window_of(name, self._spec.window)
        before, delivered = self._records.read(LANDED, name) or {"files": {}}, self._delivered[name]
        replaced = self._read if self._spec.source.by_window else set(delivered)
        others = self._from_other_files(window, replaced, version) if name in there else self._no_rows()
        rows = pl.concat([others, self._spool.frame(LANDED, name, schema(self._spec.columns))])
        content = in_order(rows, self._once_each(rows))
        rejects = self._rejects(name) if name in self._asked else None
        bad = int(before.get("quarantined", 0)) if rejects is None else rejects.num_rows
        files = {file: before["files"].get(file, UNRECORDED) for file in others["file"].unique().sort()}
        files |= delivered
        late = pl.Series(content["file"]).is_in([f for f, facts in files.items() if facts["late"]]).sum()
        digest = content_digest(content)
        landed = LandedWindow(
            name,
            rows.height + bad,
            len(content),
            bad,
            rows.height - len(content),
            int(late),
            digest,
            before.get("table_version"),
        )
        _assert_balanced(landed)
        changed = digest != before.get("digest") or (len(content) and name not in there)
        return _Prepared(window, landed, files, content if changed else None, rejects)

    def _written(self, prepared: Sequence[_Prepared], version: int | None) -> list[LandedWindow]:
        rejects = {p.window: p.rejects for p in prepared if p.rejects is not None}
        there = set(self._tables.windows(QUARANTINE))
        self._replace(QUARANTINE, {w: r for w, r in rejects.items() if len(r) or w.label in there}, None)
        new = self._replace(LANDED, {p.window: p.rows for p in prepared if p.rows is not None}, version)
        return [self._recorded(p, new) for p in prepared]

    def _recorded(self, prepared: _Prepared, version: int | None) -> LandedWindow:
        landed = prepared.landed if prepared.rows is None else replace(prepared.landed, table_version=version)
        note = f"{landed.late} late rows" if landed.late else ""
        facts = {
            **asdict(landed),
            "files": prepared.files,
            "spec_digest": self._spec.digest,
            "run": self._run,
            "note": note,
        }
        self._records.write(LANDED, landed.window, facts)
        return landed

    def _from_other_files(self, window: Window, replaced: Set[str], version: int | None) -> pl.DataFrame:
        """The window's rows from all files but these, as they stand in the table."""
        files = set(self._tables.read(LANDED, [window], version=version, columns=["file"])["file"].unique().to_pylist())
        if not files - replaced:
            return self._no_rows()
        rows = pl.DataFrame(pl.from_arrow(self._tables.read(LANDED, [window], version=version)))
        columns = schema(self._spec.columns)
        new = [pl.lit(None).alias(name) for name in columns if name not in rows.columns]
        others = rows.filter(~pl.col("file").is_in(sorted(replaced))).with_columns(new)
        return others.select(pl.col(name).cast(kind) for name, kind in columns.items())

    def _no_rows(self) -> pl.DataFrame:
        return pl.DataFrame(schema=schema(self._spec.columns))

    def _once_each(self, rows: pl.DataFrame) -> pl.Series:
        """The place of one row a key, the one delivered last (by file name, then place), in order of time and key."""
        time, keys = self._spec.columns.time, list(self._spec.columns.keys)
        places = rows.select("file", "line", time, *(k for k in keys if k != time)).with_row_index("_at")
        twice = places.filter(pl.struct(keys).is_duplicated())
        if twice.height:
            last = twice.sort("file", "line").unique(keys, keep="last")
            places = places.join(twice.join(last, on="_at", how="anti"), on="_at", how="anti")
        return places.sort(time, *keys)["_at"]

    def _rejects(self, name: str) -> pa.Table:
        rejects = self._spool.frame(QUARANTINE, name, REJECTS).sort("file", "line")
        return rejects.to_arrow(compat_level=pl.CompatLevel.oldest())

    def _replace(self, table: str, content: Mapping[Window, pa.Table], read_at: int | None) -> int | None:
        if not content:
            return None
        signed = {w: rows.append_column("landed_by", pa.repeat(self._run, len(rows))) for w, rows in content.items()}
        return self._tables.replace(table, signed, self._run, read_at=read_at)


def _assert_balanced(landed: LandedWindow) -> None:
    accounted = landed.landed + landed.quarantined + landed.duplicates
    if landed.rows_in != accounted:
        raise AssertionError(f"{landed.window}: {landed.rows_in} rows came in and {accounted} are accounted for")
