"""Features: from landed rows to what a model sees, one window at a time, only where the validation has passed."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from include.domain.windows import Window, label
from include.ports import Records, Tables
from include.spec import Columns, ModelSpec
from include.stages.assembly import assemble
from include.stages.content import by_window, content_digest
from include.stages.landing import touched
from include.stages.sorting import LANDED
from include.stages.validation import failed

__all__ = ["BUILT", "FEATURES", "assemble", "build"]

FEATURES, BUILT = "features", "built"


def build(spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, run: str) -> list[str]:
    """Labels of the windows whose features stand now: these and those with late rows, but none that did not pass."""
    due = touched(spec, windows, records, run)
    blocked = set(failed(due, records))
    passed = [w for w in due if label(w.start) not in blocked]
    if not passed:
        return []
    landed = tables.read(LANDED, passed)
    rows = landed.select([*columns(spec.columns), "window"])
    if spec.features.aggregates.groups:
        rows = _with_aggregates(spec, passed, landed, tables, run)
    there, parts = set(tables.windows(FEATURES)), by_window(rows, [spec.columns.time, *spec.columns.keys])
    for window in passed:
        name = label(window.start)
        own = parts.get(name, rows.slice(0, 0).drop_columns(["window"]))
        digest, before = content_digest(own), records.read(BUILT, name) or {}
        version = before.get("table_version")
        if digest != before.get("digest") or name not in there:
            version = tables.replace(FEATURES, window, own, run)
        records.write(BUILT, name, {
            "window": name, "rows": own.num_rows, "digest": digest, "table_version": version,
            "landed": (records.read(LANDED, name) or {})["digest"], "spec_digest": spec.digest, "run": run,
        })  # fmt: skip
    return [label(w.start) for w in passed]


def columns(asked: Columns) -> list[str]:
    """What a row of the features table holds, besides its window and the aggregates."""
    return list(dict.fromkeys([asked.time, *asked.keys, asked.label, *asked.features]))


def _with_aggregates(
    spec: ModelSpec, windows: Sequence[Window], landed: pa.Table, tables: Tables, run: str
) -> pa.Table:
    from include.stages import aggregation  # Ibis takes seconds to import

    aggregation.land_sums(spec, windows, landed, tables, run)
    known = aggregation.history(spec, tables, windows[0], windows[-1])
    rows = pl.DataFrame(pl.from_arrow(landed.select([*columns(spec.columns), "window"])))
    return aggregation.with_aggregates(spec, rows, known).to_arrow(compat_level=pl.CompatLevel.oldest())
