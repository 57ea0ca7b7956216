"""The departure board against a count by hand that sees nothing later than the moment at which it was asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.local.departure_board import board

START, MINUTE = datetime(2013, 2, 8, tzinfo=UTC), timedelta(minutes=1)
FLIGHT = st.tuples(st.integers(0, 600), st.none() | st.integers(-30, 400), st.sampled_from("ab"))


def by_hand(flights: list[dict[str, Any]], one: dict[str, Any]) -> tuple[int, float, float | None]:
    alike, now = [f for f in flights if f["origin"] == one["origin"]], one["asked"]
    left = [f for f in alike if f["left"] is not None and f["left"] <= now]
    there = [f for f in alike if f not in left and now - timedelta(hours=3) < f["departure"] <= now]
    late = [(f["left"] - f["departure"]) / MINUTE for f in left if f["left"] > now - timedelta(hours=1)]
    return len(there), sum((now - f["departure"]) / MINUTE for f in there), sum(late) / len(late) if late else None


@settings(max_examples=100, deadline=None)
@given(st.lists(FLIGHT, min_size=1, max_size=30))
def test_the_board_shows_what_had_happened_by_then(drawn: list[tuple[int, int | None, str]]) -> None:
    rows = [
        {
            "number": n,
            "origin": origin,
            "departure": START + at * MINUTE,
            "asked": START + (at - 120) * MINUTE,
            "left": None if delay is None else START + (at + delay) * MINUTE,
        }
        for n, (at, delay, origin) in enumerate(drawn)
    ]
    flights = pl.DataFrame(rows, schema_overrides={"left": pl.Datetime("us", "UTC")})
    entries = zip(*(column.to_list() for column in board(flights, ["origin"], "origin")), strict=True)
    for row, (waiting, overdue, delay) in zip(rows, entries, strict=True):
        expected = by_hand(rows, row)
        assert (waiting, overdue) == expected[:2]
        assert delay == (None if expected[2] is None else pytest.approx(expected[2]))
