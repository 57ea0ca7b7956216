"""Rehearsal: the real model server is started on the challenger and answers real rows before anybody depends on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.features.online_features import LandedSums
from include.domain.windows import Window
from include.ports.serving import Probe, Scorer
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.evaluation.evaluation import raw_columns, read_test_rows

ROWS = 1000


def rehearse(
    spec: ModelSpec, evaluation: Reference, *, tables: Tables, scorer: Scorer, probe: Probe, rows: int = ROWS
) -> dict[str, float]:
    """What the gates take as `measured`: `p99_ms` and `memory_mb` of the server, and `score_gap`.

    The gap is the largest difference between the server's scores and those of the exported model, over `rows` test rows;
    the server looks their aggregates up, the exported model gets them as training would.
    """
    record = store.read(evaluation)
    challenger = Reference(**record["models"]["challenger"])
    data = store.read(Reference(**record["dataset"]))
    asked = read_test_rows(spec, data, tables).slice(0, rows)
    known = store.read(challenger)["columns"]
    names = [known["time"], *known["keys"], *known["categorical"], *known["numeric"]]
    asked = asked.select(list(dict.fromkeys(names)))
    sent = [name for name in asked.column_names if name not in spec.features.aggregates.features]
    served = probe.score(spec.name, challenger, as_rows(asked.select(sent)), _past(spec, data, asked, tables))
    gap = np.abs(served.scores - scorer.score(challenger, raw_columns(asked, asked.column_names)))
    worst = float(gap.max()) if len(gap) else float("nan")
    return {"p99_ms": served.p99_ms, "memory_mb": served.memory_mb, "score_gap": worst}


def _past(spec: ModelSpec, data: Mapping[str, Any], rows: pa.Table, tables: Tables) -> list[LandedSums]:
    """What an online store holds when these rows are asked for."""
    if not spec.features.aggregates.groups or not len(rows):
        return []
    from include.stages.features import aggregation

    times = rows[spec.columns.time]
    first, last = times[0].as_py(), times[-1].as_py()
    span = Window(spec.window.floor(first) - aggregation.reach(spec), spec.window.window_at(last).end)
    return aggregation.landed(spec, list(span.split(spec.window)), tables, data["sums_version"])


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as a caller of the server sends them: ISO times, null for a missing number."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return None if isinstance(value, float) and not np.isfinite(value) else value
