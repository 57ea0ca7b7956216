"""Tables of rows by window, the records of what was done to the windows, and the engines that compute over them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from include.artifacts.window_records import R, WindowRecord
from include.domain.windows import Window

#: The tables of a model: typed rows of the source, rows that cannot be read, sums by entity and hour, and what models see.
LANDED, QUARANTINE, SUMS, FEATURES = "landed", "quarantine", "sums", "features"


class Tables(Protocol):
    """Versioned tables, partitioned by window (column `window`: the window's label)."""

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        """Make these rows the whole content of their windows, all in one atomic write, and return the new table version.

        Writers of other windows do not disturb. Raises Conflict when another run wrote one of these windows meanwhile:
        since the call began, or since version `read_at` where the rows were made from what was read there.
        """

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        """Replace these windows of `table` by some columns of the newest version of the table `source`.

        No row is read. Returns the new version of `table`; raises Conflict as `replace`.
        """

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        """Add rows to the windows that their column `window` names; return False where `once` was added before.

        Raises Conflict when another run adds the same at this moment.
        """

    def read(
        self,
        table: str,
        windows: Sequence[Window],
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        dictionary_columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return the windows' rows, at a version or the newest.

        The text columns `dictionary_columns` are returned as dictionary arrays, which is how they lie on the disk. Raises
        UserMistake for a table that does not exist.
        """

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        """Yield the window's newest rows a bounded piece at a time. Raises UserMistake for a table that does not exist."""

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        """Return the Parquet files that hold the windows' rows, for an engine that reads files itself."""

    def windows(self, table: str) -> list[str]:
        """Return the labels of the windows that hold rows, oldest first; none when there is no table."""

    def contents(self, table: str) -> Mapping[str, str]:
        """Return by window label a text that changes when the window's content is replaced. No row is read."""

    def version(self, table: str) -> int | None:
        """Return the newest version; None when there is no table."""


class Records(Protocol):
    """The records of one model's windows, by their class and a name: a window's label, or a run's id."""

    def write(self, name: str, record: WindowRecord) -> None:
        """Write the record atomically in the place of an older one of that class and name."""

    def read(self, record_type: type[R], name: str) -> R | None:
        """Return the record of that class and name; None when there is none. Raises Corrupt for one that is no such record."""


class Engine(Protocol):
    """Runs an Ibis expression over some windows of a table."""

    def collect(
        self, tables: Tables, table: str, windows: Sequence[Window], expression: Callable[[Any], Any]
    ) -> pa.Table:
        """Return the rows of `expression(table)`, in any order."""
