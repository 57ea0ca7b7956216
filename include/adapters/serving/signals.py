"""What production shows: the requests of each slot, and the prediction log, in segments and compacted."""

from collections.abc import Callable, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from include.adapters.serving.request_counters import RequestCounters
from include.adapters.serving.segments import FEEDBACK, PREDICTIONS, SCHEMAS, LogSegments
from include.domain.windows import Grain, parse_utc, window_of
from include.ports.tables import Tables
from include.ports.traffic import ArmCounts

#: The longest windows there are: a window that holds a time starts at most their length before it.
LONGEST = Grain.DAY


class ProductionSignals:
    """`segments` are what the servers write, `tables` opens a model's tables, in which finished segments end."""

    def __init__(self, served: RequestCounters, segments: LogSegments, tables: Callable[[str], Tables]) -> None:
        self._served, self._segments, self._tables = served, segments, tables

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """As Served's."""
        return self._served.counts(model, slow_ms)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Predictions made (`at`) from `since` on, the compacted ones first; segments that ended before are not opened."""
        rows = self._rows(model, PREDICTIONS, since)
        return rows if since is None else rows.filter(pc.greater_equal(rows["at"], since.timestamp()))

    def feedback(self, model: str) -> pa.Table:
        """Labels that callers sent back: `id` of the prediction's line or `key`, and `label`, the compacted ones first."""
        return self._rows(model, FEEDBACK, None).select(["id", "key", "label"])

    def stamp(self, model: str) -> str:
        """When a segment was last written to, or went into the table."""
        return f"{self._segments.written(model):.6f}, compacted {self._tables(model).version(PREDICTIONS)}"

    def _rows(self, model: str, kind: str, since: datetime | None) -> pa.Table:
        """The segments are read before the table, so that one compacted meanwhile is in either or in both, never in none."""
        names = self._segments.names(model, kind, since.timestamp() if since else float("-inf"))
        opened = [self._segments.read(model, kind, name) for name in names]
        tables = self._tables(model)
        labels = [name for name in tables.windows(kind) if since is None or parse_utc(name) >= since - LONGEST.length]
        windows = [window_of(name, LONGEST) for name in labels]
        columns = SCHEMAS[kind].names
        kept = [tables.read(kind, windows, columns=columns)] if windows else []
        held = pa.array([name for name, rows in zip(names, opened, strict=True) if len(rows)], pa.string())
        kept = [rows.filter(pc.invert(pc.is_in(rows["segment"], held))).cast(SCHEMAS[kind]) for rows in kept]
        return pa.concat_tables([*kept, *opened, SCHEMAS[kind].empty_table()])
