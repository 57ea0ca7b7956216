"""Source over a Delta table, on disk or on S3: the newest version when its files are listed, whole.

The table is one file to landing. Its records count from the file that was added first, so those of a table that only
grows keep their numbers.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from include.adapters import s3
from include.adapters.sources.files import ROWS_PER_BATCH, list_paths
from include.domain.errors import UserMistake
from include.domain.prefetch import prefetch
from include.domain.windows import Window
from include.ports.sources import Batch, SourceFile
from include.spec.data import SourceSpec


class DeltaSource:
    """Implements `ports.sources.Source` over Delta tables; a relative path starts at `home`, `connection` is as in s3."""

    def __init__(self, source: SourceSpec, home: Path, connection: Mapping[str, str]) -> None:
        self._source, self._home, self._connection = source, home, dict(connection)
        self._tables: dict[str, DeltaTable] = {}

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        """Return each table at its newest version; see Source."""
        return [self._describe(path, window) for path, window in list_paths(self._source, windows, self._open)]

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        """Yield the rows of the version that `files` returned; see Source."""
        del numbers  # a table has types
        try:
            yield from prefetch(_batches(file.name, self._tables[file.name]))
        except DeltaError as error:  # deletion vectors, column mapping
            raise UserMistake(f"{file.name}: {error}; write the table without") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise s3.plain_error(file.name, error) from None

    def _open(self, path: str) -> list[str]:
        """Open the table; return its path, or nothing where there is no table."""
        uri = path if "://" in path else str(self._home / path)
        try:
            self._tables[path] = DeltaTable(uri, storage_options=self._connection or None)
        except TableNotFoundError:
            return []
        except (OSError, DeltaError) as error:
            raise s3.plain_error(path, error) from None
        return [path]

    def _describe(self, path: str, window: Window | None) -> SourceFile:
        """Return the table as a file; its digest is of the version and the names of its files, which Delta never reuses."""
        table = self._tables[path]
        files = _added_files(table)
        digest = hashlib.sha256("\n".join([str(table.version()), *(file["path"] for file in files)]).encode())
        return SourceFile(path, sum(file["size_bytes"] for file in files), digest.hexdigest(), window)


def _batches(name: str, table: DeltaTable) -> Iterator[Batch]:
    dataset = table.to_pyarrow_dataset()
    fragments = {fragment.path: fragment for fragment in dataset.get_fragments()}
    count = 0
    for file in _added_files(table):
        fragment = fragments[unquote(file["path"])]
        for rows in fragment.to_batches(schema=dataset.schema, batch_size=ROWS_PER_BATCH, batch_readahead=1):
            yield Batch(name, np.arange(count + 1, count + 1 + rows.num_rows), pa.Table.from_batches([rows]))
            count += rows.num_rows


def _added_files(table: DeltaTable) -> list[dict[str, Any]]:
    """Return `path`, `size_bytes` and `modification_time` of the table's files, oldest first."""
    files = pa.table(table.get_add_actions()).select(["path", "size_bytes", "modification_time"]).to_pylist()
    return sorted(files, key=lambda file: (file["modification_time"], file["path"]))
