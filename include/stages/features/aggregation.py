"""Sums by entity and hour: one Ibis expression, run by the spec's engine, kept in the table `sums` and in the online store."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import reduce
from typing import Any

import ibis
import numpy as np
import polars as pl
from ibis.expr import types as ir

from include.domain.categories import BETWEEN
from include.domain.features.aggregates import Group
from include.domain.features.hourly_sums import History, Sums, pack
from include.domain.features.online_features import LandedSums
from include.domain.windows import Window, window_of
from include.online_store.store import OnlineStore
from include.ports.tables import Engine, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.partitioning import LANDED
from include.stages.data.row_digest import by_window

SUMS = "sums"
ORDER = ("grouping", "entity", "hour")


def hourly_sums(spec: ModelSpec, rows: ir.Table) -> ir.Table:
    """Landed rows → `window`, `grouping`, `entity`, `hour` (in which the outcome became known, since 1970), `newest` (the second
    of the newest such moment), and for each outcome `count_` and `sum_` of the values that are known and `last_`, the
    value known at `newest` (the largest where there are several)."""
    columns = spec.columns
    known = (
        rows[columns.known]
        if columns.known
        else rows[columns.time] + ibis.interval(seconds=int(spec.label_delay.total_seconds()))
    )
    timed = rows.mutate(second=known.epoch_seconds().cast("int64")).filter(lambda t: t.second.notnull())
    timed = timed.mutate(hour=(timed.second / 3600).floor().cast("int64"), window=timed.window.cast("string"))
    return ibis.union(*(_of_group(spec, timed, group) for group in spec.features.aggregates.groups))


def land_sums(spec: ModelSpec, windows: Sequence[Window], tables: Tables, engine: Engine, run: str) -> None:
    """The landed windows' sums into the table `sums`."""
    sums = engine.collect(tables, LANDED, windows, lambda rows: hourly_sums(spec, rows))
    parts = by_window(sums, ORDER)
    tables.replace(SUMS, {w: parts.get(w.label, sums.slice(0, 0)) for w in windows}, run)


def publish(spec: ModelSpec, windows: Sequence[Window], tables: Tables, store: OnlineStore) -> int:
    """The windows' sums into the online store, but of those alone that an event after the newest window can see; so a
    backfill of long ago changes nothing there. How many the store took."""
    held = tables.windows(SUMS)
    version = tables.version(SUMS)
    if not held or version is None:
        return 0
    oldest = spec.window.window_at(window_of(held[-1], spec.window).end - reach(spec)).label
    due = [w for w in windows if w.label >= oldest]
    return store.land(landed(spec, due, tables, version), oldest) if due else 0


def landed(spec: ModelSpec, windows: Sequence[Window], tables: Tables, version: int) -> list[LandedSums]:
    """The windows' sums at that version of the table, as an online store holds them."""
    parts = _by("window", pl.DataFrame(pl.from_arrow(tables.read(SUMS, windows, version=version))))
    return [_landed(spec, name, version, part) for name, part in parts.items()]


def history(spec: ModelSpec, tables: Tables, first: Window, last: Window) -> dict[str, History]:
    """By group what events from the first window to the last can see: everything known up to the longest span before."""
    span = Window(first.start - reach(spec), last.end)
    sums = pl.DataFrame(pl.from_arrow(tables.read(SUMS, list(span.split(spec.window)))))
    return {g.name: History(g, of) for g, of in _of_groups(spec, sums)}


def reach(spec: ModelSpec) -> timedelta:
    """How long before an event the events lie whose outcomes it may see."""
    aggregates = spec.features.aggregates
    return aggregates.longest + aggregates.lead + spec.label_delay + spec.window.length


def with_aggregates(spec: ModelSpec, rows: pl.DataFrame, known: Mapping[str, History]) -> pl.DataFrame:
    """The rows with every aggregate of the spec as a Float64 column, null where nothing was known."""
    aggregates = spec.features.aggregates
    before = aggregates.hours(rows[spec.columns.time].dt.epoch("s").to_numpy().astype(np.int64))
    found: list[pl.Series] = []
    for group in aggregates.groups:
        entities = rows.select(pl.concat_str(list(group.by), separator=BETWEEN))[group.by[0]].to_list()
        values = known[group.name].as_of(entities, before)
        found += [pl.Series(name, values[name]).fill_nan(None) for name in group.features]
    return rows.with_columns(found)


def _of_group(spec: ModelSpec, rows: ir.Table, group: Group) -> ir.Table:
    parts = [rows[column] for column in group.by]
    named = rows.filter(reduce(lambda a, b: a & b, [p.notnull() for p in parts]))
    entity = reduce(lambda a, b: a + BETWEEN + b, [named[column] for column in group.by])
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


def _landed(spec: ModelSpec, window: str, version: int, sums: pl.DataFrame) -> LandedSums:
    packed = pack({group.name: of for group, of in _of_groups(spec, sums)})
    return LandedSums(window, version, int(sums["newest"].max() or 0), packed)  # type: ignore[arg-type]


def _of_groups(spec: ModelSpec, sums: pl.DataFrame) -> list[tuple[Group, Sums]]:
    parts = _by("grouping", sums)
    return [(g, _sums(parts.get(g.name, sums.clear()), g)) for g in spec.features.aggregates.groups]


def _by(column: str, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {str(name): part for (name,), part in rows.partition_by(column, as_dict=True).items()}


def _sums(rows: pl.DataFrame, group: Group) -> Sums:
    def columns(kind: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {o: rows[f"{kind}_{o}"].cast(pl.Float64).to_numpy() for o in group.outcomes}

    entities, hours, newest = rows["entity"].to_list(), rows["hour"].to_numpy(), rows["newest"].to_numpy()
    return Sums(entities, hours, newest, columns("count"), columns("sum"), columns("last"))
