"""Sums by entity and hour: one Ibis expression, run by the spec's engine, kept in the table `sums` and in the online store."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import reduce
from operator import and_
from typing import Any

import ibis
import numpy as np
import polars as pl
from ibis.expr import types as ir

from include.domain.categories import SEPARATOR
from include.domain.features.aggregates import SECONDS_PER_HOUR, AggregateGroup
from include.domain.features.hourly_sums import AggregateHistory, HourlySums, pack
from include.domain.features.online_features import LandedSums
from include.domain.windows import Window, window_of
from include.online_store.protocol import OnlineStore
from include.ports.tables import LANDED, SUMS, Engine, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.row_order import split_by_window

#: Columns by which the rows of a window of `sums` are ordered, and which together name one of them.
ORDER = ("grouping", "entity", "hour")


def hourly_sums(spec: ModelSpec, rows: ir.Table) -> ir.Table:
    """Return landed rows as sums by `window`, `grouping`, `entity` and `hour`, in which the outcome became known, since 1970.

    `newest` is the second of the newest such moment. For each outcome `count_` and `sum_` are of the values that are not
    null, and `last_` is the value of `newest`, the largest where there are several.
    """
    columns = spec.columns
    delay = ibis.interval(seconds=int(spec.label_delay.total_seconds()))
    known_at = rows[columns.known] if columns.known else rows[columns.time] + delay
    timed = rows.mutate(second=known_at.epoch_seconds().cast("int64")).filter(lambda t: t.second.notnull())
    timed = timed.mutate(
        hour=(timed.second / SECONDS_PER_HOUR).floor().cast("int64"), window=timed.window.cast("string")
    )
    return ibis.union(*(_group_sums(spec, timed, group) for group in spec.features.aggregates.groups))


def write_sums(spec: ModelSpec, windows: Sequence[Window], tables: Tables, engine: Engine, run: str) -> None:
    """Compute the sums of the landed windows and write them into the table `sums`."""
    sums = engine.collect(tables, LANDED, windows, lambda rows: hourly_sums(spec, rows))
    parts = split_by_window(sums, ORDER)
    tables.replace(SUMS, {window: parts.get(window.label, sums.slice(0, 0)) for window in windows}, run)


def publish_sums(spec: ModelSpec, windows: Sequence[Window], tables: Tables, store: OnlineStore) -> int:
    """Write the windows' sums into the online store and return how many windows it accepted.

    Only windows that an event after the newest one can see are written, so a backfill of long ago changes nothing there.
    """
    labels, version = tables.windows(SUMS), tables.version(SUMS)
    if not labels or version is None:
        return 0
    newest = window_of(labels[-1], spec.window)
    oldest = spec.window.window_at(newest.end - lookback(spec)).label
    visible = [window for window in windows if window.label >= oldest]
    return store.land(landed_sums(spec, visible, tables, version), oldest) if visible else 0


def landed_sums(spec: ModelSpec, windows: Sequence[Window], tables: Tables, version: int) -> list[LandedSums]:
    """Return the windows' sums at that version of the table, as an online store holds them."""
    rows = pl.DataFrame(pl.from_arrow(tables.read(SUMS, windows, version=version)))
    return [_landed_sums(spec, label, version, part) for label, part in _partition(rows, "window").items()]


def read_histories(spec: ModelSpec, tables: Tables, first: Window, last: Window) -> dict[str, AggregateHistory]:
    """Return by group the sums that events from the first window to the last can see."""
    span = Window(first.start - lookback(spec), last.end)
    rows = pl.DataFrame(pl.from_arrow(tables.read(SUMS, list(span.split(spec.window)))))
    return {group.name: AggregateHistory(group, sums) for group, sums in _sums_by_group(spec, rows)}


def lookback(spec: ModelSpec) -> timedelta:
    """Return how long before an event the events lie whose outcomes it may see."""
    aggregates = spec.features.aggregates
    return aggregates.longest_span + aggregates.lead + spec.label_delay + spec.window.length


def with_aggregates(spec: ModelSpec, rows: pl.DataFrame, histories: Mapping[str, AggregateHistory]) -> pl.DataFrame:
    """Return the rows with every aggregate of the spec as a Float64 column, null where no outcome was known."""
    aggregates = spec.features.aggregates
    before = aggregates.cutoff_hours(rows[spec.columns.time].dt.epoch("s").to_numpy().astype(np.int64))
    columns: list[pl.Series] = []
    for group in aggregates.groups:
        entities = rows.select(pl.concat_str(list(group.by), separator=SEPARATOR))[group.by[0]].to_list()
        values = histories[group.name].as_of(entities, before)
        columns += [pl.Series(name, values[name]).fill_nan(None) for name in group.features]
    return rows.with_columns(columns)


def _group_sums(spec: ModelSpec, rows: ir.Table, group: AggregateGroup) -> ir.Table:
    named = rows.filter(reduce(and_, [rows[column].notnull() for column in group.by]))
    entity = reduce(lambda left, right: left + SEPARATOR + right, [named[column] for column in group.by])
    keys = ["window", *ORDER]
    named = named.mutate(grouping=ibis.literal(group.name), entity=entity)
    named = named.mutate(newest=named.second.max().over(ibis.window(group_by=keys)))
    sums: dict[str, Any] = {"newest": named.newest.max()}
    for outcome in spec.features.aggregates.outcomes:
        value = named[outcome].cast("float64")
        sums |= {
            f"count_{outcome}": value.count().cast("float64"),
            f"sum_{outcome}": value.sum().fill_null(0.0),
            f"last_{outcome}": value.max(where=named.second == named.newest),
        }
    return named.group_by(keys).aggregate(**sums)


def _landed_sums(spec: ModelSpec, label: str, version: int, rows: pl.DataFrame) -> LandedSums:
    packed = pack({group.name: sums for group, sums in _sums_by_group(spec, rows)})
    return LandedSums(label, version, int(rows["newest"].max() or 0), packed)  # type: ignore[arg-type]


def _sums_by_group(spec: ModelSpec, rows: pl.DataFrame) -> list[tuple[AggregateGroup, HourlySums]]:
    parts = _partition(rows, "grouping")
    return [(group, _sums(parts.get(group.name, rows.clear()), group)) for group in spec.features.aggregates.groups]


def _partition(rows: pl.DataFrame, column: str) -> dict[str, pl.DataFrame]:
    return {str(value): part for (value,), part in rows.partition_by(column, as_dict=True).items()}


def _sums(rows: pl.DataFrame, group: AggregateGroup) -> HourlySums:
    def by_outcome(prefix: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {outcome: rows[f"{prefix}_{outcome}"].cast(pl.Float64).to_numpy() for outcome in group.outcomes}

    entities, hours, newest = rows["entity"].to_list(), rows["hour"].to_numpy(), rows["newest"].to_numpy()
    return HourlySums(entities, hours, newest, by_outcome("count"), by_outcome("sum"), by_outcome("last"))
