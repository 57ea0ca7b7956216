"""Features: from landed rows to what a model sees, one window at a time, only where the validation has passed."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from include.domain.windows import Window, label
from include.ports import Records, Tables
from include.spec import Columns, ModelSpec
from include.stages.assembly import assemble
from include.stages.content import by_window, content_digest
from include.stages.landing import pieces, touched
from include.stages.sorting import LANDED
from include.stages.validation import failed

__all__ = ["BUILT", "FEATURES", "assemble", "build"]

FEATURES, BUILT = "features", "built"


def build(spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, run: str) -> list[str]:
    """Labels of the windows whose features stand now: these and those with late rows, but none that did not pass."""
    due = touched(spec, windows, records, run)
    blocked = set(failed(due, records))
    passed = [w for w in due if label(w.start) not in blocked]
    there = set(tables.windows(FEATURES))
    for piece in pieces(passed, records):
        _build(spec, piece, tables, records, run, there)
    return [label(w.start) for w in passed]


def _build(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, run: str, there: set[str]
) -> None:
    parts = by_window(_computed(spec, windows, tables, run), [spec.columns.time, *spec.columns.keys])
    for window in windows:
        name = label(window.start)
        own = parts.get(name)
        if own is None:  # it landed without a row
            continue
        digest, before = content_digest(own), records.read(BUILT, name) or {}
        version = before.get("table_version")
        if digest != before.get("digest") or name not in there:
            version = tables.replace(FEATURES, window, own, run)
        records.write(BUILT, name, {
            "window": name, "rows": own.num_rows, "digest": digest, "table_version": version,
            "landed": (records.read(LANDED, name) or {})["digest"], "spec_digest": spec.digest, "run": run,
        })  # fmt: skip


def columns(asked: Columns) -> list[str]:
    """What a row of the features table holds, besides its window and the aggregates."""
    return list(dict.fromkeys([asked.time, *asked.keys, asked.label, *asked.features]))


def _computed(spec: ModelSpec, windows: Sequence[Window], tables: Tables, run: str) -> pa.Table:
    """The windows' rows with every feature, in column `window` the window."""
    landed = tables.read(LANDED, windows)
    rows = landed.select([*columns(spec.columns), "window"])
    if not spec.features.aggregates.groups:
        return rows
    from include.stages import aggregation  # Ibis takes seconds to import

    aggregation.land_sums(spec, windows, landed, tables, run)
    known = aggregation.history(spec, tables, windows[0], windows[-1])
    whole = aggregation.with_aggregates(spec, pl.DataFrame(pl.from_arrow(rows)), known)
    return whole.to_arrow(compat_level=pl.CompatLevel.oldest())
