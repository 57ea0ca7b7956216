"""What live traffic shows: the requests of each slot, and the prediction log, in segments and compacted."""

from collections.abc import Callable, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from include.adapters.serving.request_counters import RequestCounters
from include.adapters.serving.segments import FEEDBACK, PREDICTIONS, SCHEMAS, LogSegments
from include.domain.rollout.variants import RequestCounts
from include.domain.windows import Grain, parse_utc, window_of
from include.ports.tables import Tables

#: The longest windows there are: a window that holds a time starts at most their length before it.
LONGEST = Grain.DAY


class ProductionSignals:
    """Implements `ports.traffic.Signals` on counters, segments, and the tables in which finished segments end."""

    def __init__(self, counters: RequestCounters, segments: LogSegments, tables: Callable[[str], Tables]) -> None:
        """Read a model's compacted lines from `tables(model)`."""
        self._counters, self._segments, self._tables = counters, segments, tables

    def request_counts(self, model: str, slow_ms: float) -> Mapping[str, RequestCounts]:
        """Return the sums of each slot; see `RequestCounters`."""
        return self._counters.request_counts(model, slow_ms)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Return the predictions made (`at`) from `since` on, the compacted ones first.

        Segments that ended before are not opened.
        """
        rows = self._rows(model, PREDICTIONS, since)
        return rows if since is None else rows.filter(pc.greater_equal(rows["at"], since.timestamp()))

    def feedback(self, model: str) -> pa.Table:
        """Return the labels that callers sent back: `id` of a prediction or `key`, and `label`, the compacted ones first."""
        return self._rows(model, FEEDBACK, None).select(["id", "key", "label"])

    def revision(self, model: str) -> str:
        """Return when a segment was last written to, and the version of the table of compacted ones."""
        return f"{self._segments.written_at(model):.6f}, compacted {self._tables(model).version(PREDICTIONS)}"

    def _rows(self, model: str, kind: str, since: datetime | None) -> pa.Table:
        """Return the lines of one kind.

        The segments are read before the table, so that one compacted meanwhile is in either or in both, never in none.
        """
        names = self._segments.names(model, kind, since.timestamp() if since else float("-inf"))
        opened = [self._segments.read(model, kind, name) for name in names]
        tables = self._tables(model)
        labels = [name for name in tables.windows(kind) if since is None or parse_utc(name) >= since - LONGEST.length]
        windows = [window_of(name, LONGEST) for name in labels]
        columns = SCHEMAS[kind].names
        compacted = [tables.read(kind, windows, columns=columns)] if windows else []
        read_names = pa.array([name for name, rows in zip(names, opened, strict=True) if len(rows)], pa.string())
        compacted = [rows.filter(pc.invert(pc.is_in(rows["segment"], read_names))) for rows in compacted]
        return pa.concat_tables(
            [*(rows.cast(SCHEMAS[kind]) for rows in compacted), *opened, SCHEMAS[kind].empty_table()]
        )
