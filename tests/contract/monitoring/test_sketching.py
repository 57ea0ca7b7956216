"""Sketches in a real table: made once, stored, and made again when the window or the champion changed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from include.adapters.tables.delta import DeltaTables
from include.domain.features.encoding import Encoding, fit
from include.domain.windows import Grain, Window, window_label, window_of
from include.stages.monitoring import sketching

START = datetime(2013, 1, 1, tzinfo=UTC)
LABELS = [window_label(START + timedelta(days=d)) for d in range(3)]


def land(tables: DeltaTables, day: int, rows: int) -> None:
    start = START + timedelta(days=day)
    temp = np.random.default_rng(day).normal(size=rows)
    content = pa.table({"temp": temp, "dest": ["LAX"] * rows})
    tables.replace("features", {Window(start, start + timedelta(days=1)): content}, "r")


def encoding(seed: int) -> Encoding:
    columns = {"temp": np.random.default_rng(seed).normal(size=500).tolist(), "dest": ["LAX"] * 500}
    return fit(columns, time="at", zone="UTC", time_parts=(), categorical=("dest",), numeric=("temp",), min_frequency=1)


@pytest.fixture
def tables(tmp_path: Path) -> DeltaTables:
    tables = DeltaTables(tmp_path)
    for day in range(3):
        land(tables, day, 100 + day)
    return tables


def sketched(tables: DeltaTables, of: Encoding) -> dict[str, int]:
    by_window = sketching.window_sketches(tables, "features", of, LABELS, Grain.DAY)
    return {name: sketches["temp"].rows for name, sketches in by_window.items()}


def test_windows_are_sketched_once(tables: DeltaTables) -> None:
    assert list(sketched(tables, encoding(1)).values()) == [100, 101, 102]
    version = tables.version("sketches")
    first = sketching.window_sketches(tables, "features", encoding(1), LABELS, Grain.DAY)
    assert tables.version("sketches") == version
    fresh = sketching.sketch_rows(encoding(1), tables.read("features", [window_of(LABELS[1], Grain.DAY)]))
    for feature, sketch in fresh.items():
        assert np.array_equal(sketch.counts, first[LABELS[1]][feature].counts)
        assert np.array_equal(sketch.sums, first[LABELS[1]][feature].sums)


def test_late_rows_corrected_values_and_a_new_champion_are_sketched_anew(tables: DeltaTables) -> None:
    sketched(tables, encoding(1))
    land(tables, 2, 150)
    assert sketched(tables, encoding(1))[LABELS[2]] == 150
    corrected = pa.table({"temp": [5.0] * 150, "dest": ["LAX"] * 150})
    tables.replace("features", {window_of(LABELS[2], Grain.DAY): corrected}, "r")
    again = sketching.window_sketches(tables, "features", encoding(1), LABELS, Grain.DAY)
    assert again[LABELS[2]]["temp"].sums[0] == 750
    version = tables.version("sketches")
    sketched(tables, encoding(2))
    assert tables.version("sketches") != version


def test_a_new_window_leaves_the_others_as_they_were_stored(tables: DeltaTables) -> None:
    sketched(tables, encoding(1))
    windows = [window_of(name, Grain.DAY) for name in LABELS]
    before = tables.files("sketches", windows)
    land(tables, 3, 90)
    newest = window_label(START + timedelta(days=3))
    assert set(sketching.window_sketches(tables, "features", encoding(1), [*LABELS, newest], Grain.DAY)) == {
        *LABELS,
        newest,
    }
    assert tables.files("sketches", windows) == before


def test_a_window_of_any_size_is_read_a_piece_at_a_time(tables: DeltaTables) -> None:
    land(tables, 1, 400_000)
    pieces = [len(rows) for rows in tables.pieces("features", window_of(LABELS[1], Grain.DAY))]
    assert (sum(pieces), max(pieces) <= 150_000) == (400_000, True)
    whole = sketching.sketch_rows(encoding(1), tables.read("features", [window_of(LABELS[1], Grain.DAY)]))
    sketches = sketching.window_sketches(tables, "features", encoding(1), LABELS, Grain.DAY)[LABELS[1]]
    assert np.array_equal(sketches["temp"].counts, whole["temp"].counts)
    assert np.allclose(sketches["temp"].sums, whole["temp"].sums)


def test_a_window_that_never_landed_has_no_sketch(tables: DeltaTables) -> None:
    never = [*LABELS, "2013-02-01"]
    assert "2013-02-01" not in sketching.window_sketches(tables, "features", encoding(1), never, Grain.DAY)
