"""Serving check: the real model server is started on the challenger and answers real rows before anybody depends on it."""

import numpy as np
import pyarrow as pa

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.features.online_features import LandedSums
from include.domain.windows import Window
from include.ports.serving import Probe, Scorer
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.evaluation.evaluation_rows import as_requests, raw_columns, read_test_rows

ROWS = 1000


def measure_server(
    spec: ModelSpec, evaluation: Reference, *, tables: Tables, scorer: Scorer, probe: Probe, rows: int = ROWS
) -> dict[str, float]:
    """Return what the gates take as `measured`: the server's `p99_ms` and `memory_mb`, and `score_gap`.

    The gap is the largest difference between the server's scores and those of the exported model, over `rows` test rows. The
    server looks their aggregates up; the exported model gets them as training would.
    """
    record = store.read(evaluation, EvaluationRecord)
    dataset = store.read(record.dataset, DatasetManifest)
    columns = store.read(record.challenger, ModelManifest).columns
    test_rows = read_test_rows(spec, dataset, tables).slice(0, rows)
    test_rows = test_rows.select(list(dict.fromkeys([columns.time, *columns.keys, *columns.features])))
    sent = [name for name in test_rows.column_names if name not in spec.features.aggregates.features]
    answers = probe.score(
        spec.name, record.challenger, as_requests(test_rows.select(sent)), _past(spec, dataset, test_rows, tables)
    )
    expected = scorer.score(record.challenger, raw_columns(test_rows, test_rows.column_names))
    gaps = np.abs(answers.scores - expected)
    score_gap = float(gaps.max()) if len(gaps) else float("nan")
    return {"p99_ms": answers.p99_ms, "memory_mb": answers.memory_mb, "score_gap": score_gap}


def _past(spec: ModelSpec, dataset: DatasetManifest, rows: pa.Table, tables: Tables) -> list[LandedSums]:
    """Return what an online store holds at the time of these rows."""
    if not spec.features.aggregates.groups or not len(rows) or dataset.sums_version is None:
        return []
    from include.stages.features import aggregation

    times = rows[spec.columns.time]
    first, last = times[0].as_py(), times[-1].as_py()
    span = Window(spec.window.floor(first) - aggregation.lookback(spec), spec.window.window_at(last).end)
    return aggregation.landed_sums(spec, list(span.split(spec.window)), tables, dataset.sums_version)
