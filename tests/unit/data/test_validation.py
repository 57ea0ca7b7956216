"""A landed window in numbers, and what blocks."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from include.adapters.engines.duckdb import DuckDB
from include.domain.verdict import Check, Outcome, Verdict
from include.domain.windows import Window
from include.online_store.sqlite import SqliteStore
from include.ports.validation import Profile
from include.stages.data import validation
from include.stages.data.row_order import split_by_window
from include.stages.features import features
from include.stages.features.features import FeatureServices
from tests.memory import MemoryRecords, MemorySource, MemoryTables
from tests.unit.data import test_landing as made
from tests.unit.toy import toy

DAY, START, SPEC = made.DAY, made.START, toy()


class Judge:
    """Fails the windows it is told to."""

    def __init__(self, *bad: str) -> None:
        self.bad, self.windows = bad, [""]

    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        self.windows = [p.window for p in profiles]
        outcomes = {p.window: Outcome.FAIL if p.window in self.bad else Outcome.PASS for p in profiles}
        return {w: Verdict(w, (Check("rows", o, "rows"),)) for w, o in outcomes.items()}, "page"


def world(days: int) -> made.World:
    there = made.World()
    rows = [made.row(f"{d}-{n}", d + n / 100, y=str(n % 2), c="ab"[n % 2]) for d in range(days) for n in range(10)]
    there.land(MemorySource({"f": rows}), *range(days))
    return there


def services(there: made.World) -> FeatureServices:
    """The toy has no aggregates: the engine is not asked and the store never opened."""
    return FeatureServices(there.tables, there.records, DuckDB(), SqliteStore(Path("unused.db")))


def measures(rows: list[dict[str, Any]], day: int) -> Mapping[str, float | None]:
    frame = pl.DataFrame(rows).with_columns(window=pl.col("at").dt.strftime("%Y-%m-%d"))
    parts = split_by_window(frame.to_arrow(), ())
    return validation.profile_windows(SPEC, parts, [made.window(day)], {})[0].measures


def rows_of(day: int, count: int, **values: Any) -> list[dict[str, Any]]:
    at = START + day * DAY
    return [{"at": at + n * timedelta(minutes=1), "y": n % 2, "x": 1.0, "c": "a", **values} for n in range(count)]


def test_a_window_is_measured_by_itself_and_against_the_last() -> None:
    rows = [r for d in range(4) for r in rows_of(d, 100)] + rows_of(4, 50, c="new", x=None, y=1)
    measured = measures(rows, 4)
    assert (measured["rows"], measured["volume"], measured["nulls.x"]) == (50, 0.5, 1)
    assert (measured["unseen.c"], measured["label_rate"], measured["label_shift"]) == (1, 1, 0.5)
    assert measured["silence"] == pytest.approx(1 - 49 / 1440)


def test_a_first_window_is_compared_with_none() -> None:
    measured = measures(rows_of(0, 10), 0)
    assert measured["volume"] is None
    assert measured["label_shift"] is None
    assert "unseen.c" not in measured


def test_an_old_category_that_comes_back_within_the_last_windows_is_not_unseen() -> None:
    rows = [r for d in range(5) for r in rows_of(d, 10, c="b" if d in (0, 4) else "a")]
    assert measures(rows, 4)["unseen.c"] == 0


def test_a_failing_window_blocks_its_own_features_and_no_other() -> None:
    there, windows = world(3), [made.window(d) for d in range(3)]
    verdicts = validation.validate(SPEC, windows, there.tables, Judge("2026-01-02"), there.records, "run1")
    assert [v.outcome for v in verdicts.values()] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert validation.not_validated(windows, there.records) == ["2026-01-02"]
    assert features.build(SPEC, windows, services(there), "run1") == ["2026-01-01", "2026-01-03"]
    assert there.tables.windows("features") == ["2026-01-01", "2026-01-03"]


def test_a_window_that_changed_since_its_validation_counts_as_not_validated() -> None:
    there, windows = world(1), [made.window(0)]
    validation.validate(SPEC, windows, there.tables, Judge(), there.records, "run1")
    assert validation.not_validated(windows, there.records) == []
    there.land(MemorySource({"f": [made.row("another", 0.1)]}), 0)
    assert validation.not_validated(windows, there.records) == ["2026-01-01"]


def test_windows_with_late_rows_are_judged_with_the_run_that_brought_them() -> None:
    there, judge = made.World(), Judge()
    source = MemorySource({"2026-01-02": [made.row("late", 0.9), made.row("b", 1.5)]}, by_window=True)
    there.land(source, 1, spec=made.BY_WINDOW)
    validation.validate(made.BY_WINDOW, [made.window(1)], there.tables, judge, there.records, "run1")
    assert judge.windows == ["2026-01-01", "2026-01-02"]


def test_features_hold_no_outcome_and_are_not_written_twice() -> None:
    there, windows = world(1), [made.window(0)]
    validation.validate(SPEC, windows, there.tables, Judge(), there.records, "run1")
    for run in ("run1", "again"):
        features.build(SPEC, windows, services(there), run)
    assert there.tables.version("features") == 0
    assert there.tables.read("features", windows).column_names == ["at", "key", "y", "c", "x", "window"]


def test_a_window_that_never_landed_is_not_validated() -> None:
    window = Window(datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC))
    assert validation.not_validated([window], MemoryRecords()) == [window.label]
    assert MemoryTables().windows("landed") == []
