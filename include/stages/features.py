"""Features: from landed rows to what a model sees, one window at a time, only where the validation has passed."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from include.domain.windows import Window, label
from include.online.store import OnlineStore
from include.ports import Engine, Records, Tables
from include.spec import ModelSpec
from include.spec_data import Columns
from include.stages.assembly import assemble
from include.stages.content import by_window, content_digest
from include.stages.landing import landed_rows, pieces, touched
from include.stages.sorting import LANDED
from include.stages.validation import failed

__all__ = ["BUILT", "FEATURES", "assemble", "build"]

FEATURES, BUILT = "features", "built"


def build(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, run: str, *,
    engine: Engine, store: OnlineStore,
) -> list[str]:  # fmt: skip
    """Labels of the windows whose features stand now: these and those with late rows, but none that did not pass.

    What their outcomes add up to goes to the online store too.
    """
    due = touched(spec, windows, records, run)
    blocked = set(failed(due, records))
    passed = [w for w in due if label(w.start) not in blocked]
    there = set(tables.windows(FEATURES))
    for piece in pieces(passed, landed_rows(records)):
        _build(spec, piece, tables, records, engine, run, there)
    if spec.features.aggregates.groups and passed:
        from include.stages import aggregation

        aggregation.publish(spec, passed, tables, store)
    return [label(w.start) for w in passed]


def _build(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, engine: Engine, run: str,
    there: set[str],
) -> None:  # fmt: skip
    computed = by_window(_computed(spec, windows, tables, engine, run), [spec.columns.time, *spec.columns.keys])
    parts = {w: computed[label(w.start)] for w in windows if label(w.start) in computed}  # others landed without a row
    digests = {w: content_digest(rows) for w, rows in parts.items()}
    before = {w: records.read(BUILT, label(w.start)) or {} for w in parts}
    new = {w: parts[w] for w in parts if digests[w] != before[w].get("digest") or label(w.start) not in there}
    version = tables.replace(FEATURES, new, run) if new else None
    for window, rows in parts.items():
        name = label(window.start)
        records.write(BUILT, name, {
            "window": name, "rows": rows.num_rows, "digest": digests[window],
            "table_version": version if window in new else before[window]["table_version"],
            "landed": (records.read(LANDED, name) or {})["digest"], "spec_digest": spec.digest, "run": run,
        })  # fmt: skip


def columns(asked: Columns) -> list[str]:
    """What a row of the features table holds, besides its window and the aggregates."""
    weight = [asked.weight] if asked.weight else []
    return list(dict.fromkeys([asked.time, *asked.keys, asked.label, *asked.features, *weight]))


def _computed(spec: ModelSpec, windows: Sequence[Window], tables: Tables, engine: Engine, run: str) -> pa.Table:
    """The windows' rows with every feature, in column `window` the window."""
    rows = tables.read(LANDED, windows, columns=[*columns(spec.columns), "window"])
    if not spec.features.aggregates.groups:
        return rows
    from include.stages import aggregation  # Ibis takes seconds to import

    aggregation.land_sums(spec, windows, tables, engine, run)
    known = aggregation.history(spec, tables, windows[0], windows[-1])
    whole = aggregation.with_aggregates(spec, pl.DataFrame(pl.from_arrow(rows)), known)
    return whole.to_arrow(compat_level=pl.CompatLevel.oldest())
