"""Tables over Delta Lake: a window is a partition, a write replaces windows in one commit that names its run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow.dataset import ParquetReadOptions

from include.adapters.tables import delta_files
from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.windows import Window

#: Each commit of another writer costs a try, and a try costs milliseconds: the files are written by then.
TRIES = 100


class DeltaTables:
    """`root` (a folder or an `s3://` URI) holds one model's tables; `storage` are delta-rs's options for it."""

    def __init__(self, root: Path | str, storage: Mapping[str, str] | None = None) -> None:
        self._root, self._storage = str(root), dict(storage or {}) or None
        self._opened: dict[str, DeltaTable] = {}

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        parts = {window.label: _without_window(rows) for window, rows in content.items()}
        files = partial(delta_files.write, f"{self._root}/{table}", self._storage, parts)
        return self._replaced(table, list(parts), delta_files.schema(parts.values()), files, run, read_at)

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        held, names = self._existing(source, None), [window.label for window in windows]
        whole = pa.schema(held.schema().to_arrow())
        there = [file for file in _actions(held) if file["partition.window"] in names]
        files = partial(delta_files.copy, f"{self._root}/{source}", f"{self._root}/{table}", self._storage, there)
        return self._replaced(table, names, pa.schema([whole.field(name) for name in (*columns, "window")]), files, run)

    def _replaced(self, table: str, names: list[str], schema: pa.Schema, written: Callable[[], list[AddAction]], run: str,
                  read_at: int | None = None) -> int:  # fmt: skip
        commit = CommitProperties(custom_metadata={"run": run, "windows": ", ".join(names)}, max_commit_retries=0)
        known = self._newest(table) if read_at is None else self._open(table, read_at)
        before = _files(known, names) if known is not None else []
        try:
            files = written()
            if known is None and self._created(table, schema, files, commit):
                return 0
            return self._committed(table, before, names, schema, files, commit)
        except (OSError, DeltaError) as fault:
            raise Unavailable(f"{self._root}/{table}: cannot write {_told(names)}: {fault}") from None

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
        self,
        table: str,
        windows: Sequence[Window],
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        dictionary_columns: Sequence[str] = (),
    ) -> pa.Table:
        how = ParquetReadOptions(dictionary_columns=set(dictionary_columns))
        dataset = self._existing(table, version).to_pyarrow_dataset(parquet_read_options=how)
        names = list(columns) if columns is not None else None
        return dataset.to_table(columns=names, filter=pa.compute.field("window").isin([w.label for w in windows]))

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        dataset = self._existing(table, None).to_pyarrow_dataset()
        chosen = pa.compute.field("window") == window.label
        scanner = dataset.scanner(filter=chosen, batch_readahead=1, fragment_readahead=1)
        return (pa.Table.from_batches([batch]) for batch in scanner.to_batches() if len(batch))

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        return _files(self._existing(table, version), [w.label for w in windows])

    def windows(self, table: str) -> list[str]:
        known = self._newest(table)
        return sorted(p["window"] for p in known.partitions()) if known is not None else []

    def contents(self, table: str) -> dict[str, str]:
        known = self._newest(table)
        found: dict[str, list[str]] = {}
        for file in _actions(known) if known is not None else ():
            found.setdefault(file["partition.window"], []).append(file["path"])
        return {window: " ".join(sorted(paths)) for window, paths in found.items()}

    def version(self, table: str) -> int | None:
        known = self._newest(table)
        return known.version() if known is not None else None

    def _created(self, table: str, schema: pa.Schema, files: list[AddAction], commit: CommitProperties) -> bool:
        """Whether the table began with these files; somebody else was faster otherwise."""
        try:
            create_table_with_add_actions(
                f"{self._root}/{table}", Schema.from_arrow(schema), files, mode="error", partition_by=["window"],
                storage_options=self._storage, commit_properties=commit,
            )  # fmt: skip
        except DeltaError:
            if self._newest(table) is None:
                raise
            return False
        return True

    def _committed(self, table: str, before: list[str], names: list[str], schema: pa.Schema, files: list[AddAction],
                   commit: CommitProperties) -> int:  # fmt: skip
        """Compare and set: onto the newest version, where the windows' files are still those `before`."""
        for _ in range(TRIES):
            newest = self._existing(table, None)
            if _files(newest, names) != before:
                raise Conflict(f"{_told(names)}: another run wrote there at the same time; run it again")
            whole = _merged(table, newest, schema)
            at = newest.version()
            with suppress(CommitFailedError):
                newest.create_write_transaction(
                    [*files],
                    "overwrite",
                    Schema.from_arrow(whole),
                    ["window"],
                    [("window", "in", names)],
                    commit_properties=commit,
                )
                return at + 1
        raise Unavailable(f"{table}: others wrote {TRIES} times while {_told(names)} was committed; try again")

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


def _actions(known: DeltaTable) -> list[dict[str, Any]]:
    """Of each of its files `path`, `partition.window`, `num_records` and `size_bytes`."""
    return list(pa.table(known.get_add_actions(flatten=True)).to_pylist())


def _without_window(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["window"]) if "window" in rows.column_names else rows


def _merged(table: str, known: DeltaTable, schema: pa.Schema) -> pa.Schema:
    """The table's columns and the new ones."""
    try:
        return pa.unify_schemas([pa.schema(known.schema().to_arrow()), schema])
    except (pa.ArrowTypeError, pa.ArrowInvalid) as fault:
        raise UserMistake(
            f"{table}: a column changed its type ({fault}); give it another name at the source, or remove the table"
        ) from None


def _told(names: list[str]) -> str:
    return f"window {names[0]}" if len(names) == 1 else f"{len(names)} windows from {names[0]} to {names[-1]}"
