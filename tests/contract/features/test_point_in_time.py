"""Whatever order windows land in, an event sees what was known at its time: against a count by hand over all events."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.adapters.engines.duckdb import DuckDB
from include.adapters.tables.delta import DeltaTables
from include.domain.features.aggregates import AggregateGroup, Aggregates, entity_name, span_name
from include.domain.windows import Window, window_label
from include.online_store.opening import open_store
from include.ports.tables import LANDED
from include.spec.data import Columns, Features, SourceSpec
from include.spec.model_spec import ModelSpec, Schedule
from include.stages.features import aggregation
from tests.memory import MemoryTables

HOUR, START = timedelta(hours=1), datetime(2026, 1, 1, tzinfo=UTC)
LEAD = 90 * timedelta(minutes=1)
GROUPS = (
    AggregateGroup(by=("who",), over=(HOUR, 5 * HOUR, 48 * HOUR), mean=("y", "v"), last=("v",), rows=True),
    AggregateGroup(by=("who", "kind"), over=(24 * HOUR,), mean=("v",)),
)
SPEC = ModelSpec(
    name="toy",
    description="",
    source=SourceSpec(path="none"),
    schedule=Schedule(start=START),
    columns=Columns(time="at", label="y", keys=("key",), categorical=("who", "kind"), outcomes=("v",), known="known"),
    features=Features(aggregates=Aggregates(LEAD, GROUPS)),
)
DAYS = [Window(START + n * 24 * HOUR, START + (n + 1) * 24 * HOUR) for n in range(4)]
TYPES: dict[str, Any] = {
    "at": pl.Datetime("us", "UTC"),
    "known": pl.Datetime("us", "UTC"),
    "y": pl.Int8,
    "v": pl.Float64,
    "who": pl.String,
    "kind": pl.String,
    "key": pl.String,
    "window": pl.String,
}
EVENT = st.fixed_dictionaries(
    {
        "at": st.integers(0, 4 * 24 * 60 - 1),
        "delay": st.none() | st.integers(0, 2000),
        "y": st.integers(0, 1),
        "v": st.none() | st.integers(-9, 9),
        "who": st.sampled_from(["a", "b", None]),
        "kind": st.sampled_from("xy"),
    }
)


def rows(events: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Landed rows; an event without a delay has no outcome yet."""
    made = []
    for n, event in enumerate(events):
        at = START + timedelta(minutes=event["at"])
        known_at = None if event["delay"] is None else at + timedelta(minutes=event["delay"])
        outcome = {"y": None, "v": None} if known_at is None else {"y": event["y"], "v": event["v"]}
        window = window_label(SPEC.window.floor(at))
        made.append(
            {
                "key": str(n),
                "at": at,
                "known": known_at,
                "window": window,
                "who": event["who"],
                "kind": event["kind"],
                **outcome,
            }
        )
    return pl.DataFrame(made, schema=TYPES)


def by_hand(landed: Sequence[dict[str, Any]], row: dict[str, Any]) -> dict[str, float | None]:
    cut = (row["at"] - LEAD).replace(minute=0, second=0)
    features: dict[str, float | None] = {}
    for group in GROUPS:
        who = entity_name(row, group.by)
        own = [o for o in landed if o["known"] and who is not None and entity_name(o, group.by) == who]
        hour = [o["known"].replace(minute=0, second=0) for o in own]
        for span in group.over:
            visible = [o for o, h in zip(own, hour, strict=True) if cut - span <= h < cut]
            for name in group.mean:
                values = [o[name] for o in visible if o[name] is not None]
                features[f"{name}_mean_{group.name}_{span_name(span)}"] = sum(values) / len(values) if values else None
            if group.rows:
                features[f"rows_{group.name}_{span_name(span)}"] = sum(o["y"] is not None for o in visible)
        visible = [o for o, h in zip(own, hour, strict=True) if cut - max(group.over) <= h < cut]
        newest = max((o["known"] for o in visible), default=None)
        values = [o["v"] for o in visible if o["known"] == newest and o["v"] is not None]
        features |= {f"v_last_{group.name}": max(values, default=None)} if group.last else {}
    return features


@settings(deadline=None, max_examples=8)
@given(st.lists(EVENT, min_size=1, max_size=40), st.permutations(DAYS))
def test_every_window_sees_what_was_known_then_whatever_landed_after_it(
    events: list[dict[str, Any]], order: list[Window]
) -> None:
    tables, landed = MemoryTables(), rows(events)
    arrow = landed.to_arrow(compat_level=pl.CompatLevel.oldest())
    whole = {day: arrow.filter((landed["window"] == day.label).to_arrow()) for day in DAYS}
    tables.replace(LANDED, whole, "run")
    for batch in (order[:2], order[2:]):
        aggregation.write_sums(SPEC, sorted(batch), tables, DuckDB(), "run")
    hand = landed.to_dicts()
    for day in DAYS:
        own = landed.filter(pl.col("window") == day.label)
        if own.height:
            built = aggregation.with_aggregates(SPEC, own, aggregation.read_histories(SPEC, tables, day, day))
            for row in built.to_dicts():
                expected = by_hand(hand, row)
                assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_a_backfill_of_long_ago_changes_nothing_that_serving_sees(tmp_path: Path) -> None:
    days = [Window(START + n * 24 * HOUR, START + (n + 1) * 24 * HOUR) for n in range(9)]
    events = [{"at": n * 24 * 60 + 60, "delay": 30, "y": 1, "v": n, "who": "a", "kind": "x"} for n in range(9)]
    landed, tables, store = rows(events), DeltaTables(tmp_path / "tables"), open_store(str(tmp_path), "toy")
    arrow = landed.to_arrow(compat_level=pl.CompatLevel.oldest())
    tables.replace(LANDED, {d: arrow.filter((landed["window"] == d.label).to_arrow()) for d in days}, "run")
    for batch in (days[:5], days[5:]):
        aggregation.write_sums(SPEC, batch, tables, DuckDB(), "run")
        assert aggregation.publish_sums(SPEC, batch, tables, store) > 0
    before = store.read(None)
    assert [w.window for w in before.landed or ()] == [d.label for d in days[4:]], "what the newest hour can see"
    aggregation.write_sums(SPEC, days[:2], tables, DuckDB(), "backfill")
    assert aggregation.publish_sums(SPEC, days[:2], tables, store) == 0
    assert store.read(None) == before
    aggregation.write_sums(SPEC, days[6:7], tables, DuckDB(), "backfill")
    assert aggregation.publish_sums(SPEC, days[:7], tables, store) >= 1, "a window that serving sees is renewed"
