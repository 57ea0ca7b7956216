"""Tables over Delta Lake: a window is a partition, a write replaces windows in one commit that names its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.windows import Window, label

#: A first write that adds columns makes every other writer of that moment start again.
TRIES = 5


class DeltaTables:
    """`root` (a folder or an `s3://` URI) holds one model's tables; `storage` are delta-rs's options for it."""

    def __init__(self, root: Path | str, storage: Mapping[str, str] | None = None) -> None:
        self._root, self._storage = str(root), dict(storage or {}) or None
        self._opened: dict[str, DeltaTable] = {}

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        names = [label(window.start) for window in content]
        rows = pa.concat_tables([_of_window(part, name) for name, part in zip(names, content.values(), strict=True)])
        known = self._newest(table) if read_at is None else self._open(table, read_at)
        if known is None and (known := self._created(table, names, rows, run)) is None:
            return 0
        before = _files(known, names)
        for _ in range(TRIES):
            try:
                return self._overwrite(known, names, rows, run)
            except CommitFailedError as fault:
                known = self._existing(table, None)
                if _files(known, names) != before:
                    raise Conflict(f"{_told(names)}: another run wrote there at the same time; run it again") from fault
        raise Unavailable(
            f"{table}: others changed its columns {TRIES} times while {_told(names)} was written; try again"
        )

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        known = self._newest(table)
        if known is not None and known.transaction_version(once) is not None:
            return False
        commit = CommitProperties(custom_metadata={"run": run}, app_transactions=[Transaction(once, 1)])
        how: dict[str, Any] = {
            "partition_by": ["window"],
            "commit_properties": commit,
            "storage_options": self._storage,
        }
        try:
            # Onto the very version that was looked at, so that another writer of the same is noticed.
            if known is None:
                write_deltalake(f"{self._root}/{table}", rows, mode="error", **how)
            else:
                write_deltalake(known, rows, mode="append", schema_mode="merge", **how)
        except (CommitFailedError, FileExistsError) as fault:
            raise Conflict(f"{table}: another run adds to it at the same time; run it again") from fault
        except (OSError, DeltaError) as fault:
            raise Unavailable(f"{self._root}/{table}: cannot add {once}: {fault}") from None
        return True

    def read(
        self, table: str, windows: Sequence[Window], *, version: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        dataset = self._existing(table, version).to_pyarrow_dataset()
        names = list(columns) if columns is not None else None
        return dataset.to_table(
            columns=names, filter=pa.compute.field("window").isin([label(w.start) for w in windows])
        )

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        return _files(self._existing(table, version), [label(w.start) for w in windows])

    def windows(self, table: str) -> list[str]:
        known = self._newest(table)
        return sorted(p["window"] for p in known.partitions()) if known is not None else []

    def version(self, table: str) -> int | None:
        known = self._newest(table)
        return known.version() if known is not None else None

    def _created(self, table: str, names: list[str], rows: pa.Table, run: str) -> DeltaTable | None:
        """None when the table began with these rows; the table of whoever was faster otherwise."""
        try:
            self._write(f"{self._root}/{table}", names, rows, run, mode="error", partition_by=["window"])
        except (Unavailable, CommitFailedError):
            if (known := self._newest(table)) is None:
                raise
            return known
        return None

    def _overwrite(self, known: DeltaTable, names: list[str], rows: pa.Table, run: str) -> int:
        there = [field.name for field in known.schema().fields]
        for column in (n for n in there if n not in rows.column_names):
            rows = rows.append_column(column, pa.nulls(len(rows), _type(known, column)))
        merge = "merge" if set(rows.column_names) - set(there) else None
        predicate = f"window IN ({', '.join(repr(name) for name in names)})"
        self._write(known, names, rows, run, mode="overwrite", predicate=predicate, schema_mode=merge)
        return known.version()

    def _write(self, table: DeltaTable | str, names: list[str], rows: pa.Table, run: str, **how: Any) -> None:
        commit = CommitProperties(custom_metadata={"run": run, "windows": ", ".join(names)})
        try:
            write_deltalake(table, rows, commit_properties=commit, storage_options=self._storage, **how)
        except CommitFailedError:
            raise
        except (OSError, DeltaError) as fault:
            raise Unavailable(f"{self._root}: cannot write {_told(names)}: {fault}") from None

    def _existing(self, table: str, version: int | None) -> DeltaTable:
        known = self._newest(table) if version is None else self._open(table, version)
        if known is None:
            raise UserMistake(f"{self._root}/{table}: there is no such table yet; run the data DAG for some windows")
        return known

    def _newest(self, table: str) -> DeltaTable | None:
        """The table as it is now; opened once, because reading a whole log again for every window takes longer."""
        known = self._opened.get(table)
        if known is not None:
            known.update_incremental()
        elif (known := self._open(table, None)) is not None:
            self._opened[table] = known
        return known

    def _open(self, table: str, version: int | None) -> DeltaTable | None:
        try:
            return DeltaTable(f"{self._root}/{table}", version=version, storage_options=self._storage)
        except TableNotFoundError:
            return None
        except DeltaError as fault:
            raise UserMistake(f"{self._root}/{table}: cannot be opened at version {version}: {fault}") from None


def _files(known: DeltaTable, names: list[str]) -> list[str]:
    return sorted(known.file_uris(file_pruning_predicate=[("window", "in", names)]))


def _told(names: list[str]) -> str:
    return f"window {names[0]}" if len(names) == 1 else f"{len(names)} windows from {names[0]} to {names[-1]}"


def _of_window(rows: pa.Table, name: str) -> pa.Table:
    """The rows with the partition column."""
    known = rows.drop_columns(["window"]) if "window" in rows.column_names else rows
    return known.append_column("window", pa.array([name], pa.string()).take(pa.array([0] * len(rows), pa.int64())))


def _type(known: DeltaTable, column: str) -> pa.DataType:
    return pa.schema(known.schema().to_arrow()).field(column).type
