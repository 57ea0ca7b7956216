"""Sums by entity and hour: one Ibis expression, run on DuckDB here and on any of Ibis's engines elsewhere."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import ibis
import numpy as np
import polars as pl
import pyarrow as pa
from ibis.expr import types as ir

from include.domain.aggregates import BETWEEN, Group, History
from include.domain.windows import Window, label
from include.ports import Tables
from include.spec import ModelSpec
from include.stages.content import by_window

SUMS = "sums"


def hourly_sums(spec: ModelSpec, rows: ir.Table) -> ir.Table:
    """Landed rows → `window`, `grouping`, `entity`, `hour` (in which the outcome became known, since 1970), and for each outcome
    `count_`, `sum_` and `last_` (the newest in that hour) of the values that are known."""
    columns = spec.columns
    known = (
        rows[columns.known]
        if columns.known
        else rows[columns.time] + ibis.interval(seconds=int(spec.label_delay.total_seconds()))
    )
    timed = rows.mutate(known_at=known).filter(lambda t: t.known_at.notnull())
    timed = timed.mutate(hour=(timed.known_at.epoch_seconds() / 3600).floor().cast("int64"))
    return ibis.union(*(_of_group(spec, timed, group) for group in spec.features.aggregates.groups))


def land_sums(spec: ModelSpec, windows: Sequence[Window], rows: pa.Table, tables: Tables, run: str) -> None:
    """The windows' sums into the table `sums`."""
    sums = hourly_sums(spec, ibis.memtable(rows)).to_pyarrow()
    parts = by_window(sums, ["grouping", "entity", "hour"])
    tables.replace(SUMS, {w: parts.get(label(w.start), sums.slice(0, 0)) for w in windows}, run)


def history(spec: ModelSpec, tables: Tables, first: Window, last: Window) -> dict[str, History]:
    """By group what events from the first window to the last can see: everything known up to the longest span before."""
    aggregates = spec.features.aggregates
    reach = aggregates.longest + aggregates.lead + spec.label_delay + spec.window.length
    span = Window(first.start - reach, last.end)
    sums = pl.DataFrame(pl.from_arrow(tables.read(SUMS, list(span.split(spec.window)))))
    parts = {str(name): part for (name,), part in sums.partition_by("grouping", as_dict=True).items()}
    return {g.name: _history(parts.get(g.name, sums.clear()), g) for g in aggregates.groups}


def with_aggregates(spec: ModelSpec, rows: pl.DataFrame, known: Mapping[str, History]) -> pl.DataFrame:
    """The rows with every aggregate of the spec as a Float64 column, null where nothing was known."""
    aggregates = spec.features.aggregates
    before = aggregates.hours(rows[spec.columns.time].dt.epoch("s").to_numpy().astype(np.int64))
    found: list[pl.Series] = []
    for group in aggregates.groups:
        entities = rows.select(pl.concat_str(list(group.by), separator=BETWEEN))[group.by[0]].to_list()
        values = known[group.name].as_of(group, entities, before)
        found += [pl.Series(name, values[name]).fill_nan(None) for name in group.features]
    return rows.with_columns(found)


def _of_group(spec: ModelSpec, rows: ir.Table, group: Group) -> ir.Table:
    parts = [rows[column] for column in group.by]
    named = rows.filter(reduce(lambda a, b: a & b, [p.notnull() for p in parts]))
    entity = reduce(lambda a, b: a + BETWEEN + b, [named[column] for column in group.by])
    grouped = named.mutate(grouping=ibis.literal(group.name), entity=entity).group_by(
        "window", "grouping", "entity", "hour"
    )
    sums: dict[str, Any] = {}
    for outcome in spec.features.aggregates.outcomes:
        value = named[outcome].cast("float64")
        sums |= {
            f"count_{outcome}": value.count().cast("float64"),
            f"sum_{outcome}": value.sum().fill_null(0.0),
            f"last_{outcome}": value.argmax(named["known_at"]),
        }
    return grouped.aggregate(**sums)


def _history(sums: pl.DataFrame, group: Group) -> History:
    def column(kind: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {o: sums[f"{kind}_{o}"].cast(pl.Float64).to_numpy() for o in group.outcomes}

    return History(sums["entity"].to_list(), sums["hour"].to_numpy(), column("count"), column("sum"), column("last"))
