"""Source over a Delta table, on disk or on S3: the newest version when its files are asked for, whole.

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
from include.adapters.sources.files import ROWS, delivered
from include.domain.errors import UserMistake
from include.domain.prefetch import prefetch
from include.domain.windows import Window
from include.ports.sources import Batch, SourceFile
from include.spec.data import SourceSpec


class DeltaSource:
    """`home` is where a relative path starts; `given` as in s3."""

    def __init__(self, source: SourceSpec, home: Path, given: Mapping[str, str]) -> None:
        self._source, self._home, self._given = source, home, dict(given)
        self._opened: dict[str, DeltaTable] = {}

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        return [self._described(path, window) for path, window in delivered(self._source, windows, self._found)]

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        del numbers  # a table has types
        try:
            yield from prefetch(_batches(file.name, self._opened[file.name]))
        except DeltaError as fault:  # deletion vectors, column mapping
            raise UserMistake(f"{file.name}: {fault}; write the table without") from None
        except (OSError, pa.ArrowInvalid) as fault:
            raise s3.plain_error(file.name, fault) from None

    def _found(self, path: str) -> list[str]:
        place = path if "://" in path else str(self._home / path)
        try:
            self._opened[path] = DeltaTable(place, storage_options=self._given or None)
        except TableNotFoundError:
            return []
        except (OSError, DeltaError) as fault:
            raise s3.plain_error(path, fault) from None
        return [path]

    def _described(self, path: str, window: Window | None) -> SourceFile:
        """The digest is of the version and the names of its files, which Delta never writes twice."""
        table = self._opened[path]
        added = _added(table)
        digest = hashlib.sha256("\n".join([str(table.version()), *(file["path"] for file in added)]).encode())
        return SourceFile(path, sum(file["size_bytes"] for file in added), digest.hexdigest(), window)


def _batches(name: str, table: DeltaTable) -> Iterator[Batch]:
    dataset = table.to_pyarrow_dataset()
    fragments = {fragment.path: fragment for fragment in dataset.get_fragments()}
    done = 0
    for file in _added(table):
        fragment = fragments[unquote(file["path"])]
        for piece in fragment.to_batches(schema=dataset.schema, batch_size=ROWS, batch_readahead=1):
            yield Batch(name, np.arange(done + 1, done + 1 + piece.num_rows), pa.Table.from_batches([piece]))
            done += piece.num_rows


def _added(table: DeltaTable) -> list[dict[str, Any]]:
    """The table's files, oldest first."""
    files = pa.table(table.get_add_actions()).select(["path", "size_bytes", "modification_time"]).to_pylist()
    return sorted(files, key=lambda file: (file["modification_time"], file["path"]))
