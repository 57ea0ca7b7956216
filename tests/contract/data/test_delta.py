"""Tables: the same promises kept by Delta Lake on disk and by the fake that other tests use; then what Delta alone does."""

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from include.adapters.tables.delta import DeltaTables
from include.domain.errors import Conflict, UserMistake
from include.domain.windows import Grain, Window, parse_utc
from include.ports.tables import Tables
from tests.memory import MemoryTables

DAYS = list(Window(parse_utc("2026-01-01"), parse_utc("2026-01-04")).split(Grain.DAY))


def rows(*values: float, **more: list[float]) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.float64()), **more})


@pytest.fixture(params=["delta", "memory"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    return DeltaTables(tmp_path) if request.param == "delta" else MemoryTables()


def test_a_table_that_is_not_there(tables: Tables) -> None:
    assert (tables.version("t"), tables.windows("t")) == (None, [])
    with pytest.raises(UserMistake, match="no such table"):
        tables.read("t", DAYS)


def test_replacing_a_window_touches_no_other(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1, 2)}, "a")
    tables.replace("t", {DAYS[1]: rows(3)}, "a")
    tables.replace("t", {DAYS[0]: rows(9)}, "b")
    assert tables.read("t", DAYS[:1])["x"].to_pylist() == [9]
    assert tables.read("t", DAYS[1:2])["x"].to_pylist() == [3]
    assert tables.windows("t") == ["2026-01-01", "2026-01-02"]


def test_a_windows_content_has_another_name_once_it_was_replaced_and_is_read_in_pieces(tables: Tables) -> None:
    assert tables.contents("t") == {}
    tables.replace("t", {DAYS[0]: rows(1, 2), DAYS[1]: rows(3)}, "a")
    before = tables.contents("t")
    tables.replace("t", {DAYS[0]: rows(7, 8)}, "b")
    after = tables.contents("t")
    assert [name for name in before if before[name] != after[name]] == ["2026-01-01"]
    assert [x for piece in tables.pieces("t", DAYS[0]) for x in piece["x"].to_pylist()] == [7, 8]
    assert list(tables.pieces("t", DAYS[2])) == []


def test_no_windows_hold_no_rows(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1, 2)}, "a")
    empty = tables.read("t", [])
    assert (len(empty), empty.column_names) == (0, tables.read("t", DAYS[:1]).column_names)


def test_old_versions_are_read_by_number(tables: Tables) -> None:
    first = tables.replace("t", {DAYS[0]: rows(1, 2)}, "a")
    tables.replace("t", {DAYS[0]: rows(9)}, "b")
    assert tables.read("t", DAYS, version=first)["x"].to_pylist() == [1, 2]


def test_a_window_without_rows_is_no_window(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1)}, "a")
    tables.replace("t", {DAYS[0]: rows()}, "b")
    assert tables.windows("t") == []
    assert tables.read("t", DAYS).num_rows == 0


def test_a_new_column_is_missing_in_older_windows(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1)}, "a")
    tables.replace("t", {DAYS[1]: rows(2, y=[5.0])}, "b")
    read = tables.read("t", DAYS, columns=["window", "y"])
    assert dict(zip(*read.to_pydict().values(), strict=True)) == {"2026-01-01": None, "2026-01-02": 5.0}


def test_a_projection_holds_the_newest_rows_in_some_columns(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1, y=[4.0]), DAYS[1]: rows(2, 3, y=[5.0, 6.0])}, "a")
    tables.replace("t", {DAYS[1]: rows(8, 9, y=[5.0, 6.0])}, "a")
    tables.project("t", "p", DAYS[1:], ["x"], "b")
    assert tables.windows("p") == ["2026-01-02"]
    assert tables.read("p", DAYS).to_pydict() == {"x": [8, 9], "window": ["2026-01-02"] * 2}
    tables.replace("t", {DAYS[1]: rows(7, y=[5.0])}, "a")
    assert tables.read("p", DAYS)["x"].to_pylist() == [8, 9]
    tables.project("t", "p", DAYS[:2], ["x"], "b")
    assert sorted(tables.read("p", DAYS)["x"].to_pylist()) == [1, 7]


def test_building_on_a_window_that_somebody_else_has_written_meanwhile(tables: Tables) -> None:
    tables.replace("t", {DAYS[0]: rows(1)}, "a")
    at = tables.version("t")
    tables.replace("t", {DAYS[1]: rows(2)}, "another window disturbs nobody")
    tables.replace("t", {DAYS[2]: rows(2)}, "b", read_at=at)
    tables.replace("t", {DAYS[0]: rows(3)}, "somebody else")
    with pytest.raises(Conflict, match="2026-01-01"):
        tables.replace("t", {DAYS[0]: rows(4)}, "b", read_at=at)
    assert tables.read("t", DAYS[:1])["x"].to_pylist() == [3]


def test_many_windows_are_replaced_in_one_version_and_no_other_window(tables: Tables) -> None:
    tables.replace("t", {day: rows(0) for day in DAYS}, "a")
    version = tables.version("t")
    assert tables.replace("t", {DAYS[0]: rows(1, 2), DAYS[2]: rows()}, "b") == (version or 0) + 1
    assert tables.windows("t") == ["2026-01-01", "2026-01-02"]
    assert [tables.read("t", [day])["x"].to_pylist() for day in DAYS] == [[1, 2], [0], []]


@pytest.mark.parametrize("there", [[], [1.0]])
def test_of_two_ranges_that_overlap_the_second_cannot_be_written(tables: Tables, there: list[float]) -> None:
    tables.replace("t", {DAYS[0]: rows(5), DAYS[1]: rows(*there)}, "a")
    at = tables.version("t")
    tables.replace("t", {DAYS[1]: rows(2), DAYS[2]: rows(2)}, "b", read_at=at)
    with pytest.raises(Conflict, match="another run wrote there"):
        tables.replace("t", {DAYS[0]: rows(3), DAYS[1]: rows(3)}, "c", read_at=at)
    assert [tables.read("t", [day])["x"].to_pylist() for day in DAYS] == [[5], [2], [2]]


def test_a_commit_names_its_run_and_window(tmp_path: Path) -> None:
    tables = DeltaTables(tmp_path)
    tables.replace("t", {DAYS[0]: rows(1)}, "first")
    tables.replace("t", {DAYS[1]: rows(1), DAYS[2]: rows(1)}, "second")
    history = [(h["run"], h["windows"]) for h in DeltaTable(str(tmp_path / "t")).history()]
    assert history == [("second", "2026-01-02, 2026-01-03"), ("first", "2026-01-01")]


def test_a_column_that_changed_its_type_is_named(tmp_path: Path) -> None:
    tables = DeltaTables(tmp_path)
    tables.replace("t", {DAYS[0]: rows(1)}, "a")
    with pytest.raises(UserMistake, match=r"t: a column changed its type .*x"):
        tables.replace("t", {DAYS[1]: pa.table({"x": ["text"]})}, "b")


def test_two_writers_creating_and_filling_a_table_at_once_lose_nothing(tmp_path: Path) -> None:
    windows = list(Window(parse_utc("2026-01-01"), parse_utc("2026-01-21")).split(Grain.DAY))
    errors: list[BaseException] = []

    def write(part: list[Window]) -> None:
        tables = DeltaTables(tmp_path)
        try:
            for window in part:
                tables.replace("t", {window: rows(1, 2)}, "run")
        except BaseException as error:
            errors.append(error)
            raise

    _together(lambda: write(windows[::2]), lambda: write(windows[1::2]))
    assert not errors
    assert DeltaTables(tmp_path).read("t", windows).num_rows == 40


def test_a_reader_sees_the_old_or_the_new_window_never_a_mixture(tmp_path: Path) -> None:
    writer, reader, readings, done = DeltaTables(tmp_path), DeltaTables(tmp_path), [], threading.Event()
    writer.replace("t", {DAYS[0]: rows(*[0.0] * 1000)}, "run 0")

    def write() -> None:
        for n in range(1, 25):
            writer.replace("t", {DAYS[0]: rows(*[float(n)] * 1000)}, f"run {n}")
        done.set()

    def read() -> None:
        while not done.is_set():
            readings.append(reader.read("t", DAYS[:1])["x"].to_pylist())

    _together(write, read)
    assert len(readings) > 1
    assert all(len(values) == 1000 and len(set(values)) == 1 for values in readings)


def test_files_name_the_windows_rows_for_an_engine(tmp_path: Path) -> None:
    tables = DeltaTables(tmp_path)
    tables.replace("t", {DAYS[0]: rows(1)}, "a")
    tables.replace("t", {DAYS[1]: rows(2)}, "a")
    (file,) = tables.files("t", DAYS[1:2])
    assert pq.read_table(file, partitioning=None)["x"].to_pylist() == [2]


def _together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)


def test_what_is_added_once_stays_once(tables: Tables) -> None:
    more = rows(1, 2).append_column("window", pa.array(["2026-01-01", "2026-01-02"]))
    assert [tables.append("t", more, "run", once) for once in ("a", "b", "a")] == [True, True, False]
    assert tables.read("t", DAYS)["x"].to_pylist().count(1.0) == 2
    assert tables.windows("t") == ["2026-01-01", "2026-01-02"]


def test_two_that_add_the_same_at_once_add_it_once(tmp_path: Path) -> None:
    more = rows(1).append_column("window", pa.array(["2026-01-01"]))
    DeltaTables(tmp_path).append("t", more, "run", "first")
    start, errors = threading.Barrier(4), list[Conflict]()

    def add(tables: DeltaTables) -> None:
        start.wait()
        try:
            tables.append("t", more, "run", "same")
        except Conflict as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(DeltaTables(tmp_path),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(DeltaTables(tmp_path).read("t", DAYS)) == 2
