"""The Parquet files of a Delta table's windows, written by pyarrow in half the time that `write_deltalake` takes."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction

#: What is copied at once; delta-rs's stream refuses what does not fit into a buffer.
CHUNK = 1 << 20


def write(uri: str, storage: Mapping[str, str] | None, parts: Mapping[str, pa.Table]) -> list[AddAction]:
    """A file for each window that has rows; nobody sees it before its action is committed. Raises OSError."""
    store = _store(uri, storage)
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda part: _file(store, *part), [p for p in parts.items() if len(p[1])]))


def copy(
    source: str, uri: str, storage: Mapping[str, str] | None, files: Iterable[Mapping[str, Any]]
) -> list[AddAction]:
    """These files of another table (as its add actions tell of them) as they are. Raises OSError."""
    there, store = _store(source, storage), _store(uri, storage)

    def copied(file: Mapping[str, Any]) -> AddAction:
        with there.open_input_stream(file["path"]) as content:
            return _kept(
                store, file["partition.window"], file["num_records"], lambda at: copyfileobj(content, at, CHUNK)
            )

    with ThreadPoolExecutor() as threads:
        return list(threads.map(copied, files))


def schema(parts: Iterable[pa.Table]) -> pa.Schema:
    """The columns of the table that holds these rows: the partition column among them, texts of one kind."""
    fields = [[f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in p.schema] for p in parts]
    return pa.unify_schemas([pa.schema(each) for each in fields]).append(pa.field("window", pa.string()))


def _store(uri: str, storage: Mapping[str, str] | None) -> pafs.FileSystem:
    if "://" not in uri:
        Path(uri).mkdir(parents=True, exist_ok=True)
    return pafs.PyFileSystem(DeltaStorageHandler(uri, dict(storage) if storage else None))


def _file(store: pafs.FileSystem, window: str, rows: pa.Table) -> AddAction:
    """Without statistics, which take a third of the time: nobody looks for less than a window."""
    write = partial(pq.write_table, rows, store_schema=False, write_statistics=False)
    return _kept(store, window, len(rows), write)


def _kept(store: pafs.FileSystem, window: str, rows: int, write: Callable[[pa.NativeFile], None]) -> AddAction:
    path = f"window={window}/{uuid4()}.parquet"
    try:
        with store.open_output_stream(path, buffer_size=2 * CHUNK) as stream:
            write(stream)
            size = stream.tell()
    except OSError:
        with suppress(OSError):
            store.delete_file(path)
        raise
    stats = json.dumps({"numRecords": rows})
    return AddAction(path, size, {"window": window}, int(time.time() * 1000), data_change=True, stats=stats)
