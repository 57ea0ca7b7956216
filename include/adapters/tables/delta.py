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

#: Each commit of another writer costs an attempt, which takes milliseconds: the files are written by then.
MAX_ATTEMPTS = 100


class DeltaTables:
    """Implements `ports.tables.Tables` in `root`, a folder or an `s3://` URI; `storage` are delta-rs's options for it."""

    def __init__(self, root: Path | str, storage: Mapping[str, str] | None = None) -> None:
        self._root, self._storage = str(root), dict(storage or {}) or None
        self._opened: dict[str, DeltaTable] = {}

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        """Replace whole windows in one commit; see Tables."""
        parts = {window.label: _without_window(rows) for window, rows in content.items()}
        write = partial(delta_files.write, f"{self._root}/{table}", self._storage, parts)
        return self._replace(table, list(parts), delta_files.schema(parts.values()), write, run, read_at)

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        """Replace whole windows by copies of the files of another table; see Tables."""
        source_table, labels = self._existing(source, None), [window.label for window in windows]
        schema = pa.schema(source_table.schema().to_arrow())
        files = [file for file in _add_actions(source_table) if file["partition.window"] in labels]
        copy = partial(delta_files.copy, f"{self._root}/{source}", f"{self._root}/{table}", self._storage, files)
        projected = pa.schema([schema.field(name) for name in (*columns, "window")])
        return self._replace(table, labels, projected, copy, run)

    def _replace(
        self,
        table: str,
        labels: list[str],
        schema: pa.Schema,
        write_files: Callable[[], list[AddAction]],
        run: str,
        read_at: int | None = None,
    ) -> int:
        commit = CommitProperties(custom_metadata={"run": run, "windows": ", ".join(labels)}, max_commit_retries=0)
        base = self._newest(table) if read_at is None else self._open(table, read_at)
        before = _files(base, labels) if base is not None else []
        try:
            files = write_files()
            if base is None and self._create(table, schema, files, commit):
                return 0
            return self._commit(table, before, labels, schema, files, commit)
        except (OSError, DeltaError) as error:
            raise Unavailable(f"{self._root}/{table}: cannot write {_span(labels)}: {error}") from None

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        """Add rows once; see Tables."""
        newest = self._newest(table)
        if newest is not None and newest.transaction_version(once) is not None:
            return False
        commit = CommitProperties(custom_metadata={"run": run}, app_transactions=[Transaction(once, 1)])
        options: dict[str, Any] = {
            "partition_by": ["window"],
            "commit_properties": commit,
            "storage_options": self._storage,
        }
        try:
            # Onto the very version that was checked, so that another writer of the same is noticed.
            if newest is None:
                write_deltalake(f"{self._root}/{table}", rows, mode="error", **options)
            else:
                write_deltalake(newest, rows, mode="append", schema_mode="merge", **options)
        except (CommitFailedError, FileExistsError) as error:
            raise Conflict(f"{table}: another run adds to it at the same time; run it again") from error
        except (OSError, DeltaError) as error:
            raise Unavailable(f"{self._root}/{table}: cannot add {once}: {error}") from None
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
        """Return the windows' rows; see Tables."""
        options = ParquetReadOptions(dictionary_columns=set(dictionary_columns))
        dataset = self._existing(table, version).to_pyarrow_dataset(parquet_read_options=options)
        names = list(columns) if columns is not None else None
        labels = pa.array(
            [w.label for w in windows], pa.string()
        )  # an empty list alone has no type that fits the column
        return dataset.to_table(columns=names, filter=pa.compute.field("window").isin(labels))

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        """Return an iterator over the window's rows in batches; see Tables."""
        dataset = self._existing(table, None).to_pyarrow_dataset()
        in_window = pa.compute.field("window") == window.label
        scanner = dataset.scanner(filter=in_window, batch_readahead=1, fragment_readahead=1)
        return (pa.Table.from_batches([batch]) for batch in scanner.to_batches() if len(batch))

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        """Return the windows' Parquet files; see Tables."""
        return _files(self._existing(table, version), [window.label for window in windows])

    def windows(self, table: str) -> list[str]:
        """Return the labels of the windows that hold rows; see Tables."""
        newest = self._newest(table)
        return sorted(partition["window"] for partition in newest.partitions()) if newest is not None else []

    def contents(self, table: str) -> dict[str, str]:
        """Return the names of each window's files, which Delta never reuses; see Tables."""
        newest = self._newest(table)
        paths: dict[str, list[str]] = {}
        for file in _add_actions(newest) if newest is not None else ():
            paths.setdefault(file["partition.window"], []).append(file["path"])
        return {label: " ".join(sorted(own)) for label, own in paths.items()}

    def version(self, table: str) -> int | None:
        """Return the newest version; None when there is no table."""
        newest = self._newest(table)
        return newest.version() if newest is not None else None

    def _create(self, table: str, schema: pa.Schema, files: list[AddAction], commit: CommitProperties) -> bool:
        """Create the table with these files; return False where another run has created it meanwhile."""
        try:
            create_table_with_add_actions(
                f"{self._root}/{table}",
                Schema.from_arrow(schema),
                files,
                mode="error",
                partition_by=["window"],
                storage_options=self._storage,
                commit_properties=commit,
            )
        except DeltaError:
            if self._newest(table) is None:
                raise
            return False
        return True

    def _commit(
        self,
        table: str,
        before: list[str],
        labels: list[str],
        schema: pa.Schema,
        files: list[AddAction],
        commit: CommitProperties,
    ) -> int:
        """Compare and set: commit onto the newest version if the windows' files are still those `before`."""
        for _ in range(MAX_ATTEMPTS):
            newest = self._existing(table, None)
            if _files(newest, labels) != before:
                raise Conflict(f"{_span(labels)}: another run wrote there at the same time; run it again")
            merged_schema = _merge_schemas(table, newest, schema)
            version = newest.version()
            with suppress(CommitFailedError):
                newest.create_write_transaction(
                    [*files],
                    "overwrite",
                    Schema.from_arrow(merged_schema),
                    ["window"],
                    [("window", "in", labels)],
                    commit_properties=commit,
                )
                return version + 1
        raise Unavailable(f"{table}: others wrote {MAX_ATTEMPTS} times while {_span(labels)} was committed; try again")

    def _existing(self, table: str, version: int | None) -> DeltaTable:
        """Return the table at a version or the newest. Raises UserMistake when there is none."""
        opened = self._newest(table) if version is None else self._open(table, version)
        if opened is None:
            raise UserMistake(f"{self._root}/{table}: there is no such table yet; run the data DAG for some windows")
        return opened

    def _newest(self, table: str) -> DeltaTable | None:
        """Return the table as it is now; it is opened once, because reading its whole log again takes longer."""
        opened = self._opened.get(table)
        if opened is not None:
            opened.update_incremental()
        elif (opened := self._open(table, None)) is not None:
            self._opened[table] = opened
        return opened

    def _open(self, table: str, version: int | None) -> DeltaTable | None:
        try:
            return DeltaTable(f"{self._root}/{table}", version=version, storage_options=self._storage)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise UserMistake(f"{self._root}/{table}: cannot be opened at version {version}: {error}") from None


def _files(table: DeltaTable, labels: list[str]) -> list[str]:
    return sorted(table.file_uris(file_pruning_predicate=[("window", "in", labels)]))


def _add_actions(table: DeltaTable) -> list[dict[str, Any]]:
    """Return `path`, `partition.window`, `num_records` and `size_bytes` of each file of the table."""
    return list(pa.table(table.get_add_actions(flatten=True)).to_pylist())


def _without_window(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["window"]) if "window" in rows.column_names else rows


def _merge_schemas(name: str, table: DeltaTable, schema: pa.Schema) -> pa.Schema:
    """Return the table's columns and the new ones. Raises UserMistake for a column that changed its type."""
    try:
        return pa.unify_schemas([pa.schema(table.schema().to_arrow()), schema])
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        advice = "give it another name at the source, or remove the table"
        raise UserMistake(f"{name}: a column changed its type ({error}); {advice}") from None


def _span(labels: list[str]) -> str:
    return f"window {labels[0]}" if len(labels) == 1 else f"{len(labels)} windows from {labels[0]} to {labels[-1]}"
