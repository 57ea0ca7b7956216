"""Landing: where rows go, what is counted, and what a second run changes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from include.artifacts.window_records import LandedWindow, LandingReport
from include.domain.errors import UserMistake
from include.domain.windows import Window
from include.stages.data import landing
from tests.memory import MemoryRecords, MemorySource, MemoryTables
from tests.unit.toy import toy

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = toy()
BY_WINDOW = toy(source={"path": "inbox/{window:%Y-%m-%d}.csv", "format": "csv"})


def window(day: int) -> Window:
    return Window(START + day * DAY, START + (day + 1) * DAY)


def row(key: str, day: float, **values: Any) -> dict[str, Any]:
    return {"at": (START + day * DAY).isoformat(), "key": key, "y": "1", "x": "1.5", "c": "a", **values}


class World:
    def __init__(self) -> None:
        self.tables, self.records, self.runs = MemoryTables(), MemoryRecords(), 0

    def land(self, source: MemorySource, *days: int, spec: Any = SPEC) -> LandingReport:
        self.runs += 1
        windows = [window(day) for day in days]
        return landing.land(spec, windows, source, self.tables, self.records, f"run{self.runs}")

    def landed(self, day: int) -> LandedWindow:
        record = self.records.read(LandedWindow, window(day).label)
        assert record is not None
        return record

    def keys(self, day: int) -> list[str]:
        return list(self.tables.read("landed", [window(day)])["key"].to_pylist())


def test_rows_land_in_their_windows_typed_and_in_order_of_time() -> None:
    world = World()
    report = world.land(MemorySource({"f": [row("b", 1.2), row("a", 0.5), row("c", 0.1, x="", y="")]}), 0, 1)
    assert (world.keys(0), world.keys(1)) == (["c", "a"], ["b"])
    first = world.tables.read("landed", [window(0)]).to_pylist()[0]
    assert (first["x"], first["y"], first["c"], first["file"], first["line"]) == (None, None, "a", "f", 3)
    assert (report.read, report.landed) == (3, 3)


def test_a_long_range_is_one_version_of_the_table() -> None:
    world = World()
    report = world.land(MemorySource({"f": [row(str(day), day) for day in range(30)]}), *range(30))
    assert [w.table_version for w in report.windows] == [0] * 30
    assert len(world.tables.windows("landed")) == 30


def test_a_long_range_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(landing, "ROWS_PER_CHUNK", 2)
    caplog.set_level("INFO", "include.stages.data.landing")
    World().land(MemorySource({"f": [row("a", 0), row("b", 1)], "g": [row("c", 2)]}), 0, 1, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "toy: read 1 of 2 files, 2 rows",
        "toy: read 2 of 2 files, 3 rows",
        "toy: landed 2 of 3 windows, 2 rows",
        "toy: landed 3 of 3 windows, 3 rows",
    ]


def test_a_run_builds_on_what_another_wrote_while_it_wrote() -> None:
    class Raced(MemoryTables):
        """Another run lands the second window just before the first write."""

        def replace(
            self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None
        ) -> int:
            if run == "run2" and world.runs == 2:
                world.land(MemorySource({"g": [row("other", 1)]}), 1)
            return super().replace(table, content, run, read_at=read_at)

    world = World()
    world.tables = Raced()
    world.land(MemorySource({"f": [row("a", 0)]}), 0)
    world.land(MemorySource({"f": [row("a", 0), row("b", 1), row("c", 2)]}), 1, 2)
    assert (world.keys(1), world.keys(2)) == (["b", "other"], ["c"])
    assert world.landed(1).files.keys() == {"f", "g"}


def test_a_window_not_asked_for_stays_as_it_is() -> None:
    world = World()
    world.land(MemorySource({"f": [row("a", 0), row("b", 1)]}), 0)
    assert world.tables.windows("landed") == ["2026-01-01"]


def test_duplicates_are_counted_and_the_last_delivered_is_kept() -> None:
    world = World()
    report = world.land(MemorySource({"f": [row("a", 0, x="1"), row("a", 0, x="2")], "g": [row("a", 0, x="3")]}), 0)
    assert (report.landed, report.duplicates) == (1, 2)
    assert world.tables.read("landed", [window(0)])["x"].to_pylist() == [3.0]


def test_a_second_run_gives_the_same_digest_and_writes_nothing() -> None:
    world, source = World(), MemorySource({"f": [row("b", 0.7), row("a", 0.5)]})
    first, second = world.land(source, 0), world.land(source, 0)
    assert first.windows[0].digest == second.windows[0].digest
    assert world.tables.version("landed") == 0


def test_the_digest_tells_content_not_the_order_of_the_source() -> None:
    rows = [row("b", 0.7), row("a", 0.5), row("c", 0.5)]
    changed = [*rows[:2], row("c", 0.5, x="9")]
    digests = [World().land(MemorySource({"f": r}), 0).windows[0].digest for r in (rows, changed)]
    assert digests[0] != digests[1]


def test_a_late_row_goes_to_its_window_and_stays_when_that_lands_again() -> None:
    world = World()
    source = MemorySource(
        {"2026-01-01": [row("a", 0.5)], "2026-01-02": [row("late", 0.9), row("b", 1.5)]}, by_window=True
    )
    world.land(source, 0, spec=BY_WINDOW)
    report = world.land(source, 1, spec=BY_WINDOW)
    assert (world.keys(0), world.keys(1)) == (["a", "late"], ["b"])
    assert [(w.window, w.late) for w in report.windows] == [("2026-01-01", 1), ("2026-01-02", 0)]
    assert "1 late" in world.landed(0).note
    world.land(source, 0, spec=BY_WINDOW)
    assert world.keys(0) == ["a", "late"]


def test_the_order_in_which_windows_land_does_not_matter() -> None:
    source = MemorySource(
        {"2026-01-01": [row("a", 0.5)], "2026-01-02": [row("late", 0.9), row("b", 1.5)]}, by_window=True
    )
    forth, back, together = World(), World(), World()
    for world, days in ((forth, [(0,), (1,)]), (back, [(1,), (0,)]), (together, [(0, 1)])):
        for part in days:
            world.land(source, *part, spec=BY_WINDOW)
    digests = {w.landed(0).digest for w in (forth, back, together)}
    assert len(digests) == 1


def test_a_file_delivered_again_replaces_its_own_rows_alone() -> None:
    world = World()
    source = MemorySource({"2026-01-01": [row("a", 0.5)], "2026-01-02": [row("late", 0.9)]}, by_window=True)
    world.land(source, 0, 1, spec=BY_WINDOW)
    source.held["2026-01-01"] = [row("z", 0.5)]
    world.land(source, 0, spec=BY_WINDOW)
    assert world.keys(0) == ["z", "late"]


def test_late_rows_of_a_shared_folder_are_found_when_a_new_file_brings_them() -> None:
    world = World()
    source = MemorySource({"monday": [row("a", 0.5)]})
    world.land(source, 0)
    source.held["tuesday"] = [row("late", 0.9), row("b", 1.5)]
    world.land(source, 1)
    assert world.keys(0) == ["a", "late"]


def test_a_row_after_its_files_window_is_quarantined() -> None:
    spec = BY_WINDOW.model_copy(update={"validation": SPEC.validation.model_copy(update={"max_quarantined": 0.5})})
    world = World()
    source = MemorySource({"2026-01-01": [row("a", 0.5), row("future", 400)]}, by_window=True)
    report = world.land(source, 0, spec=spec)
    assert (report.landed, report.quarantined) == (1, 1)
    rejected = world.tables.read("quarantine", [window(0)]).to_pylist()[0]
    assert rejected["line"] == 2
    assert "after its file's window: 2027" in rejected["reason"]


def test_too_many_unreadable_rows_land_nothing_and_name_the_commonest_reasons() -> None:
    rows = [
        *(row(f"k{n}", 0.1, x="oops") for n in range(5)),
        *(row(f"t{n}", 0, at="soon") for n in range(3)),
        row("y", 0.1, y="2"),
        row("", 0.1),
        *(row(f"g{n}", 0.1) for n in range(90)),
    ]
    world = World()
    with pytest.raises(UserMistake) as raised:
        world.land(MemorySource({"f": rows}), 0)
    lines = str(raised.value).splitlines()
    assert "10 of 100 rows (10.0%) cannot be read, more than 1.0%" in lines[0]
    assert lines[1].strip() == "5 × x: not a finite number: oops (f line 1)"
    assert lines[2].strip() == "3 × at: not a time in UTC: soon (f line 6)"
    assert len(lines) == 4
    assert world.tables.version("landed") is None


def test_quarantine_keeps_place_reason_and_the_whole_row() -> None:
    spec = toy(validation={"max_quarantined": 1})
    world = World()
    report = world.land(MemorySource({"f": [row("a", 0.1), row("b", 0.2, x="oops", c="kept")]}), 0, spec=spec)
    rejected = world.tables.read("quarantine", [window(0)]).to_pylist()[0]
    assert (rejected["file"], rejected["line"], rejected["column"]) == ("f", 2, "x")
    assert '"c":"kept"' in rejected["raw"]
    assert report.windows[0].rows_in == 2


def test_quarantine_empties_when_the_file_is_mended() -> None:
    spec, world = toy(validation={"max_quarantined": 1}), World()
    source = MemorySource({"f": [row("a", 0.1, x="oops")]})
    world.land(source, 0, spec=spec)
    source.held["f"] = [row("a", 0.1)]
    world.land(source, 0, spec=spec)
    assert world.tables.windows("quarantine") == []


def test_what_a_run_touched_is_remembered_with_its_late_windows() -> None:
    world = World()
    source = MemorySource({"2026-01-02": [row("late", 0.9), row("b", 1.5)]}, by_window=True)
    world.land(source, 1, spec=BY_WINDOW)
    assert landing.with_late_windows(BY_WINDOW, [window(1)], world.records, "run1") == [window(0), window(1)]
    assert landing.with_late_windows(BY_WINDOW, [window(1)], world.records, "another") == [window(1)]


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"c": None}, "no column c"), ({"extra": "1"}, "unknown column extra; name it in the spec")],
)
def test_missing_and_extra_columns_are_named(columns: dict[str, Any], words: str) -> None:
    values = {k: v for k, v in {**row("a", 0), **columns}.items() if v is not None}
    with pytest.raises(UserMistake, match=words):
        World().land(MemorySource({"f": [values]}), 0)
