"""Features: from landed rows to what a model sees, one window at a time, only where the validation has passed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial

import polars as pl
import pyarrow as pa

from include.domain.windows import Window
from include.online_store.store import OnlineStore
from include.ports.tables import Engine, Records, Tables
from include.spec.data import Columns
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import landed_rows, pieces, touched
from include.stages.data.partitioning import LANDED
from include.stages.data.row_digest import by_window, content_digest
from include.stages.data.validation import failed

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
    passed = [w for w in due if w.label not in blocked]
    there = set(tables.windows(FEATURES))
    for piece in pieces(passed, landed_rows(records)):
        _build(spec, piece, tables, records, engine, run, there)
    if spec.features.aggregates.groups and passed:
        from include.stages.features import aggregation

        aggregation.publish(spec, passed, tables, store)
    return [w.label for w in passed]


def _build(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, engine: Engine, run: str,
    there: set[str],
) -> None:  # fmt: skip
    landed = {w: records.read(LANDED, w.label) or {} for w in windows}
    held, names = [w for w in windows if landed[w]["landed"]], columns(spec.columns)
    if spec.features.aggregates.groups:
        parts = _computed(spec, windows, tables, engine, run)
        digests = {w: content_digest(parts[w.label]) for w in held}
        write = partial(_written, tables, parts)
    else:
        digests = {w: _as_landed(landed[w]["digest"], names) for w in held}
        write = partial(tables.project, LANDED, FEATURES, columns=names)
    before = {w: records.read(BUILT, w.label) or {} for w in held}
    new = [w for w in held if digests[w] != before[w].get("digest") or w.label not in there]
    version = write(new, run=run) if new else None
    for window in held:
        name = window.label
        records.write(BUILT, name, {
            "window": name, "rows": landed[window]["landed"], "digest": digests[window],
            "table_version": version if window in new else before[window]["table_version"],
            "landed": landed[window]["digest"], "spec_digest": spec.digest, "run": run,
        })  # fmt: skip


def _written(tables: Tables, parts: Mapping[str, pa.Table], windows: Sequence[Window], run: str) -> int:
    return tables.replace(FEATURES, {w: parts[w.label] for w in windows}, run)


def _as_landed(digest: str, names: Sequence[str]) -> str:
    """The digest of features that are those columns of landed rows and no more."""
    return hashlib.sha256(json.dumps([digest, *names]).encode()).hexdigest()


def columns(asked: Columns) -> list[str]:
    """What a row of the features table holds, besides its window and the aggregates."""
    weight = [asked.weight] if asked.weight else []
    return list(dict.fromkeys([asked.time, *asked.keys, asked.label, *asked.features, *weight]))


def _computed(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, engine: Engine, run: str
) -> dict[str, pa.Table]:
    """The windows' rows with the spec's aggregates, by window label."""
    from include.stages.features import aggregation

    aggregation.land_sums(spec, windows, tables, engine, run)
    known = aggregation.history(spec, tables, windows[0], windows[-1])
    rows = tables.read(LANDED, windows, columns=[*columns(spec.columns), "window"])
    whole = aggregation.with_aggregates(spec, pl.DataFrame(pl.from_arrow(rows)), known)
    return by_window(whole.to_arrow(compat_level=pl.CompatLevel.oldest()), [spec.columns.time, *spec.columns.keys])
