"""Rows that wait by table and window until all files are read: in memory while they are few, in temporary files beyond that."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa

#: Bytes of rows in memory beyond which they are written to files.
MEMORY_BUDGET = 512 << 20


class SpillBuffer:
    """Collects rows by table and window. It is a context manager, which removes its temporary files at the end."""

    def __init__(self, memory_budget: int = MEMORY_BUDGET) -> None:
        self._memory_budget, self._bytes_in_memory = memory_budget, 0
        self._frames: dict[tuple[str, str], list[pl.DataFrame]] = defaultdict(list)
        self._files: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._row_counts: dict[tuple[str, str], int] = defaultdict(int)

    def __enter__(self) -> "SpillBuffer":
        self._folder = TemporaryDirectory(prefix="perennial-")
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, table: str, window: str, rows: pl.DataFrame) -> None:
        """Add rows to a window of a table; all of memory is written to files when the budget is exceeded."""
        self._frames[table, window].append(rows)
        self._row_counts[table, window] += rows.height
        self._bytes_in_memory += int(rows.estimated_size())
        if self._bytes_in_memory > self._memory_budget:
            self._spill()

    def windows(self, table: str) -> list[str]:
        """Return the labels of the windows of a table to which rows were added, oldest first."""
        return sorted(window for name, window in self._row_counts if name == table)

    def row_count(self, table: str, window: str) -> int:
        """Return how many rows were added to a window of a table."""
        return self._row_counts.get((table, window), 0)

    def read(self, table: str, window: str, schema: Mapping[str, Any]) -> pl.DataFrame:
        """Return the rows of a window in the order in which they were added; none, of this schema, where there are none."""
        files = self._files.get((table, window), [])
        frames = [_memory_mapped(file) for file in files] + self._frames.get((table, window), [])
        return pl.concat([pl.DataFrame(schema=schema), *frames])

    def _spill(self) -> None:
        for (table, window), frames in self._frames.items():
            path = Path(self._folder.name) / f"{table}-{window}-{len(self._files[table, window])}.arrow"
            pl.concat(frames).write_ipc(path)  # not compressed: that would take as long as the parsing
            self._files[table, window].append(path)
        self._frames.clear()
        self._bytes_in_memory = 0


def _memory_mapped(path: Path) -> pl.DataFrame:
    """Return the file's rows without copying them; polars' own reader goes through every text."""
    return pl.DataFrame(pl.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all()))
