"""Rows set aside by (kind, window) until all are read: in memory while they are few, in files when they are many."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa

BUDGET = 512 << 20


class Spool:
    """A context manager: its files go when it is left. `budget` is in bytes of memory."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget, self._held = budget, 0
        self._frames: dict[tuple[str, str], list[pl.DataFrame]] = defaultdict(list)
        self._files: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._heights: dict[tuple[str, str], int] = defaultdict(int)

    def __enter__(self) -> "Spool":
        self._folder = TemporaryDirectory(prefix="perennial-")
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def add(self, kind: str, window: str, rows: pl.DataFrame) -> None:
        self._frames[kind, window].append(rows)
        self._heights[kind, window] += rows.height
        self._held += int(rows.estimated_size())
        if self._held > self._budget:
            self._spill()

    def windows(self, kind: str) -> list[str]:
        return sorted(window for known, window in self._heights if known == kind)

    def height(self, kind: str, window: str) -> int:
        return self._heights.get((kind, window), 0)

    def frame(self, kind: str, window: str, schema: Mapping[str, Any]) -> pl.DataFrame:
        """All that was added, in that order; no rows where nothing was."""
        files = self._files.get((kind, window), [])
        frames = [_mapped(f) for f in files] + self._frames.get((kind, window), [])
        return pl.concat([pl.DataFrame(schema=schema), *frames])

    def _spill(self) -> None:
        for (kind, window), frames in self._frames.items():
            path = Path(self._folder.name) / f"{kind}-{window}-{len(self._files[kind, window])}.arrow"
            pl.concat(frames).write_ipc(path)  # as it is: packing and unpacking would take as long as the parsing
            self._files[kind, window].append(path)
        self._frames.clear()
        self._held = 0


def _mapped(path: Path) -> pl.DataFrame:
    """The file's rows where they lie; polars' own reader goes through every text."""
    return pl.DataFrame(pl.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all()))
