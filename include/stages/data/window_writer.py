"""The rows of each window, assembled from what every file delivered for it, and their record."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import polars as pl
import pyarrow as pa

from include.artifacts.window_records import DeliveredFile, LandedWindow, LandingCounts
from include.domain.errors import Conflict
from include.domain.prefetch import map_ahead
from include.domain.windows import Window, window_of
from include.ports.tables import LANDED, QUARANTINE, Records, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import QUARANTINE_SCHEMA, landed_schema
from include.stages.data.row_digest import content_digest
from include.stages.data.row_order import take_rows
from include.stages.data.spill_buffer import SpillBuffer

#: How often the windows of one commit are assembled, while other runs write to them, before this is a conflict.
MAX_ATTEMPTS = 5
#: Stands for a file whose rows are in the table although no record names it: a run was killed between the two.
UNRECORDED = DeliveredFile(digest=None, late=False)


@dataclass(frozen=True)
class Delivery:
    """What a run's files delivered.

    `requested` are the labels of the windows that the run lands, `files` the names of all files read, and `by_window` has
    by window label and file name the files just read that hold rows of the window.
    """

    requested: Set[str]
    files: Set[str]
    by_window: Mapping[str, Mapping[str, DeliveredFile]]


@dataclass(frozen=True)
class _WindowContent:
    """A window ready to be committed: its record, its rows, and its unreadable rows.

    `rows` is None where the table holds them already, `rejects` is None for a window that the run was not asked for.
    """

    window: Window
    record: LandedWindow
    rows: pa.Table | None
    rejects: pa.Table | None


class WindowWriter:
    """Writes windows whose new rows, and unreadable rows, lie in the buffer."""

    def __init__(
        self, spec: ModelSpec, buffer: SpillBuffer, tables: Tables, records: Records, run: str, delivery: Delivery
    ) -> None:
        self._spec, self._buffer, self._tables, self._records, self._run = spec, buffer, tables, records, run
        self._delivery = delivery
        self._schema = landed_schema(spec.columns)

    def write(self, labels: Sequence[str]) -> list[LandingCounts]:
        """Write these windows in one commit, then their records, and return what became of their rows.

        Where another run wrote one of them meanwhile they are assembled again, on what it wrote; raises Conflict when that
        happens `MAX_ATTEMPTS` times.
        """
        for _ in range(MAX_ATTEMPTS):
            version, existing = self._tables.version(LANDED), set(self._tables.windows(LANDED))
            contents = list(map_ahead(partial(self._assemble, existing=existing, version=version), labels))
            with suppress(Conflict):
                return self._commit(contents, version)
        span = f"{labels[0]} to {labels[-1]}"
        raise Conflict(f"{span}: other runs wrote there {MAX_ATTEMPTS} times meanwhile; run it again")

    def _assemble(self, label: str, existing: Set[str], version: int | None) -> _WindowContent:
        """Put a window together from the rows of other files, as they stand in the table, and those just read."""
        window, before = window_of(label, self._spec.window), self._records.read(LandedWindow, label)
        delivered = self._delivery.by_window[label]
        replaced = self._delivery.files if self._spec.source.by_window else set(delivered)
        others = self._rows_of_other_files(window, replaced, version) if label in existing else self._no_rows()
        rows = pl.concat([others, self._buffer.read(LANDED, label, self._schema)])
        content = take_rows(rows, self._unique_rows(rows))
        rejects = self._unreadable_rows(label) if label in self._delivery.requested else None
        quarantined = before.quarantined if before else 0
        files = before.files if before else {}
        files = {name: files.get(name, UNRECORDED) for name in others["file"].unique().sort()} | dict(delivered)
        record = LandedWindow(
            window=label,
            rows_in=rows.height + (quarantined if rejects is None else rejects.num_rows),
            landed=len(content),
            quarantined=quarantined if rejects is None else rejects.num_rows,
            duplicates=rows.height - len(content),
            late=_count_late(content, files),
            digest=content_digest(content),
            table_version=before.table_version if before else None,
            files=files,
            spec_digest=self._spec.digest,
            run=self._run,
        )
        _assert_balanced(record)
        changed = before is None or record.digest != before.digest or (record.landed > 0 and label not in existing)
        return _WindowContent(window, record, content if changed else None, rejects)

    def _commit(self, contents: Sequence[_WindowContent], version: int | None) -> list[LandingCounts]:
        """Write rows and records. Raises Conflict when the windows changed since that version of the table."""
        existing = set(self._tables.windows(QUARANTINE))
        rejects = {content.window: content.rejects for content in contents if content.rejects is not None}
        self._replace(QUARANTINE, {w: rows for w, rows in rejects.items() if len(rows) or w.label in existing}, None)
        rows = {content.window: content.rows for content in contents if content.rows is not None}
        new_version = self._replace(LANDED, rows, version)
        records = [self._dated(content, new_version) for content in contents]
        for record in records:
            self._records.write(record.window, record)
        return [record.counts for record in records]

    def _dated(self, content: _WindowContent, new_version: int | None) -> LandedWindow:
        """Return the record with the version of the table that holds the rows, and with its note."""
        record = content.record
        note = f"{record.late} late rows" if record.late else ""
        version = record.table_version if content.rows is None else new_version
        return replace(record, table_version=version, note=note)

    def _rows_of_other_files(self, window: Window, replaced: Set[str], version: int | None) -> pl.DataFrame:
        """Return the window's rows of all files but the replaced ones, as they stand in the table."""
        files = set(self._tables.read(LANDED, [window], version=version, columns=["file"])["file"].unique().to_pylist())
        if not files - replaced:
            return self._no_rows()
        rows = pl.DataFrame(pl.from_arrow(self._tables.read(LANDED, [window], version=version)))
        new_columns = [pl.lit(None).alias(name) for name in self._schema if name not in rows.columns]
        others = rows.filter(~pl.col("file").is_in(sorted(replaced))).with_columns(new_columns)
        return others.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())

    def _no_rows(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._schema)

    def _unique_rows(self, rows: pl.DataFrame) -> pl.Series:
        """Return the indices of one row a key, in order of time and key: the one delivered last, by file name, then line."""
        time, keys = self._spec.columns.time, list(self._spec.columns.keys)
        index = rows.select("file", "line", time, *(key for key in keys if key != time)).with_row_index("_index")
        repeated = index.filter(pl.struct(keys).is_duplicated())
        if repeated.height:
            last = repeated.sort("file", "line").unique(keys, keep="last")
            index = index.join(repeated.join(last, on="_index", how="anti"), on="_index", how="anti")
        return index.sort(time, *keys)["_index"]

    def _unreadable_rows(self, label: str) -> pa.Table:
        rows = self._buffer.read(QUARANTINE, label, QUARANTINE_SCHEMA).sort("file", "line")
        return rows.to_arrow(compat_level=pl.CompatLevel.oldest())

    def _replace(self, table: str, content: Mapping[Window, pa.Table], read_at: int | None) -> int | None:
        """Replace the windows in the table by these rows with their run; None where there are no windows."""
        if not content:
            return None
        with_run = {w: rows.append_column("landed_by", pa.repeat(self._run, len(rows))) for w, rows in content.items()}
        return self._tables.replace(table, with_run, self._run, read_at=read_at)


def _count_late(content: pa.Table, files: Mapping[str, DeliveredFile]) -> int:
    late_files = [name for name, file in files.items() if file.late]
    return int(pl.Series(content["file"]).is_in(late_files).sum())


def _assert_balanced(window: LandingCounts) -> None:
    accounted = window.landed + window.quarantined + window.duplicates
    if window.rows_in != accounted:
        raise AssertionError(f"{window.window}: {window.rows_in} rows came in and {accounted} are accounted for")
