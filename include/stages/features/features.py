"""Features: from landed rows to what a model sees, in windows whose validation has passed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
import pyarrow as pa

from include.artifacts.window_records import BuiltWindow, LandedWindow
from include.domain.errors import UserMistake
from include.domain.windows import Window
from include.online_store.protocol import OnlineStore
from include.ports.tables import FEATURES, LANDED, Engine, Records, Tables
from include.spec.data import Columns
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import chunked, landed_row_count, with_late_windows
from include.stages.data.row_digest import content_digest
from include.stages.data.row_order import split_by_window
from include.stages.data.validation import not_validated


@dataclass(frozen=True)
class FeatureServices:
    """What the stage works with: a model's tables, the records of its windows, and for its aggregates an engine and a store."""

    tables: Tables
    records: Records
    engine: Engine
    store: OnlineStore


def build(spec: ModelSpec, windows: Sequence[Window], services: FeatureServices, run: str) -> list[str]:
    """Compute the features of these windows and of those with late rows; return the labels of those that have features now.

    Windows that did not pass validation are left out. The sums of their outcomes go to the online store too.
    """
    tables, records = services.tables, services.records
    candidates = with_late_windows(spec, windows, records, run)
    blocked = set(not_validated(candidates, records))
    passed = [window for window in candidates if window.label not in blocked]
    existing = set(tables.windows(FEATURES))
    for chunk in chunked(passed, partial(landed_row_count, records)):
        _build(spec, chunk, services, run, existing)
    if spec.features.aggregates.groups and passed:
        from include.stages.features import aggregation

        aggregation.publish_sums(spec, passed, tables, services.store)
    return [window.label for window in passed]


def check_complete(windows: Sequence[Window], records: Records) -> None:
    """Raise UserMistake naming the windows that have no features because they did not pass validation."""
    if blocked := not_validated(windows, records):
        raise UserMistake(f"no features for {', '.join(blocked)}: not validated with pass")


def feature_columns(columns: Columns) -> list[str]:
    """Return what a row of the features table holds, besides its window and the aggregates."""
    weight = [columns.weight] if columns.weight else []
    return list(dict.fromkeys([columns.time, *columns.keys, columns.label, *columns.features, *weight]))


def _build(spec: ModelSpec, windows: Sequence[Window], services: FeatureServices, run: str, existing: set[str]) -> None:
    """Write the windows whose features changed, in one commit, and the records of all that have rows."""
    tables, records = services.tables, services.records
    landed = {window: records.read(LandedWindow, window.label) for window in windows}
    with_rows = {window: record for window, record in landed.items() if record and record.landed}
    names = feature_columns(spec.columns)
    if spec.features.aggregates.groups:
        rows = _with_aggregates(spec, windows, services, run)
        digests = {window: content_digest(rows[window.label]) for window in with_rows}
        write = partial(_replace, tables, rows)
    else:
        digests = {window: _projection_digest(record.digest, names) for window, record in with_rows.items()}
        write = partial(tables.project, LANDED, FEATURES, columns=names)
    before = {window: records.read(BuiltWindow, window.label) for window in with_rows}
    unchanged = {
        window: built
        for window, built in before.items()
        if built and built.digest == digests[window] and window.label in existing
    }
    changed = [window for window in with_rows if window not in unchanged]
    version = write(changed, run=run) if changed else None
    for window, record in with_rows.items():
        built = BuiltWindow(
            window=window.label,
            rows=record.landed,
            digest=digests[window],
            table_version=unchanged[window].table_version if window in unchanged else version,
            landed=record.digest,
            spec_digest=spec.digest,
            run=run,
        )
        records.write(window.label, built)


def _with_aggregates(
    spec: ModelSpec, windows: Sequence[Window], services: FeatureServices, run: str
) -> dict[str, pa.Table]:
    """Return the windows' rows with the spec's aggregates, by window label."""
    from include.stages.features import aggregation

    aggregation.write_sums(spec, windows, services.tables, services.engine, run)
    histories = aggregation.read_histories(spec, services.tables, windows[0], windows[-1])
    landed = services.tables.read(LANDED, windows, columns=[*feature_columns(spec.columns), "window"])
    rows = aggregation.with_aggregates(spec, pl.DataFrame(pl.from_arrow(landed)), histories)
    arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    return split_by_window(arrow, [spec.columns.time, *spec.columns.keys])


def _replace(tables: Tables, rows: Mapping[str, pa.Table], windows: Sequence[Window], run: str) -> int:
    return tables.replace(FEATURES, {window: rows[window.label] for window in windows}, run)


def _projection_digest(landed_digest: str, columns: Sequence[str]) -> str:
    """Return the digest of features that are these columns of landed rows and nothing else."""
    return hashlib.sha256(json.dumps([landed_digest, *columns]).encode()).hexdigest()
