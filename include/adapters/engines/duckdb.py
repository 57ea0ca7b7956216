"""Engine: DuckDB in this process, over rows that the table's own reader brings."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from include.domain.windows import Window
from include.ports.tables import Tables


class DuckDB:
    """Implements `ports.tables.Engine` with DuckDB in this process."""

    def collect(
        self, tables: Tables, table: str, windows: Sequence[Window], expression: Callable[[Any], Any]
    ) -> pa.Table:
        """Return the rows of `expression(table)`, in any order."""
        import ibis  # takes seconds

        connection = ibis.duckdb.connect()
        try:
            return connection.to_pyarrow(expression(ibis.memtable(tables.read(table, windows))))
        finally:
            connection.disconnect()
