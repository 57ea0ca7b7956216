"""Where rows, and what was done to their windows, are kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from include.domain.windows import Window


class Tables(Protocol):
    """Versioned tables, partitioned by window (column `window`: the window's label)."""

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        """Make these rows the whole content of their windows, all in one atomic write; the new table version.

        Writers of other windows do not disturb. Raises Conflict when somebody else wrote one of these windows meanwhile:
        since the call began, or since version `read_at` where the rows build on what was read there.
        """

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        """`replace` by what these windows hold in the newest version of the table `source`, in these of its columns; no row is
        read."""

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        """Add rows to whichever windows their column `window` names; False where `once` was added before.

        Raises Conflict when somebody else adds the same at this moment.
        """

    def read(self, table: str, windows: Sequence[Window], *, version: int | None = None,
             columns: Sequence[str] | None = None, coded: Sequence[str] = ()) -> pa.Table:  # fmt: skip
        """The windows' rows, at a version or the newest; the texts `coded` as dictionary arrays, which is how they lie on the
        disk. Raises UserMistake for a table that is not there."""

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        """The window's newest rows a bounded piece at a time, whatever its size. Raises UserMistake as `read`."""

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        """The Parquet files that hold them, for an engine that reads files itself."""

    def windows(self, table: str) -> list[str]:
        """Labels of the windows that hold rows, oldest first; empty when there is no table."""

    def contents(self, table: str) -> Mapping[str, str]:
        """What names the content of each of these windows: another text once it was replaced. Nothing is read."""

    def version(self, table: str) -> int | None:
        """The newest version; None when there is no table."""


class Records(Protocol):
    """Small JSON documents of what was done to a model's windows: `landed/<window>`, `validated/<window>`, …"""

    def write(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        """Atomically; an older one of that name is replaced."""

    def read(self, kind: str, name: str) -> dict[str, Any] | None: ...


class Engine(Protocol):
    """Runs an expression of Ibis over a table's windows."""

    def collect(self, tables: Tables, table: str, windows: Sequence[Window], of: Callable[[Any], Any]) -> pa.Table:
        """The rows of `of(table)`, in any order."""
