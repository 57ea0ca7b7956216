"""Compaction: what the model servers logged moves from finished segments into the tables `predictions` and `feedback`."""

from datetime import datetime

import pyarrow as pa

from include.domain.windows import Grain, group_by_window
from include.ports.tables import Tables
from include.ports.traffic import PredictionLog
from include.spec.model_spec import ModelSpec

#: The kinds of segments; each has a table of the same name.
KINDS = ("predictions", "feedback")


def compact(spec: ModelSpec, log: PredictionLog, tables: Tables, run: str, now: datetime) -> dict[str, int]:
    """Move the rows of finished segments into their tables and return how many were moved, by kind.

    A segment is removed once its rows are in the table, and is added once, however often this is interrupted between the
    two. Raises Conflict when another run adds the same segment at this moment.
    """
    moved = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        for segment in log.finished(spec.name, kind, now):
            rows = log.read(spec.name, kind, segment)
            if len(rows) and tables.append(kind, _with_window(rows, spec.window), run, once=segment):
                moved[kind] += len(rows)
            log.remove(spec.name, segment)
    return moved


def _with_window(rows: pa.Table, grain: Grain) -> pa.Table:
    """Return the rows with a column `window`: the label of the window in which the line was written."""
    labels, index = group_by_window(rows["at"].to_numpy(), grain)
    return rows.append_column("window", pa.array(labels, pa.string()).take(pa.array(index)))
