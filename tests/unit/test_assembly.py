"""The dataset: which windows, encoded by what the train windows teach, and never made twice."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from include.domain.encoding import Encoding
from include.domain.errors import UserMistake
from include.stages import assembly, records
from tests.memory import MemoryTables
from tests.unit import test_landing as made
from tests.unit.toy import toy

SPEC = toy(training={"validate_windows": 2, "test_windows": 3}, features={"min_frequency": 1, "time_parts": ["hour"]},
           label_delay="P1D")  # fmt: skip
ROWS = 20


def tables(days: int) -> MemoryTables:
    held = MemoryTables()
    for day in range(days):
        at = [made.START + day * made.DAY + timedelta(hours=n % 24) for n in range(ROWS)]
        frame = pl.DataFrame({
            "at": pl.Series(at, dtype=pl.Datetime("us", "UTC")), "key": [f"{day}-{n}" for n in range(ROWS)],
            "y": [None if n == 0 else n % 2 for n in range(ROWS)], "x": [float(day) if n % 3 else None for n in range(ROWS)],
            "c": ["rare" if day > 6 else "ab"[n % 2] for n in range(ROWS)],
        })  # fmt: skip
        held.replace("features", {made.window(day): frame.to_arrow(compat_level=pl.CompatLevel.oldest())}, "run")
    return held


def test_test_is_the_newest_windows_whose_labels_are_due() -> None:
    names = [f"2026-01-{d:02}" for d in range(1, 11)]
    split = assembly.split(SPEC, made.START + 10 * made.DAY, names)
    assert [w.start.day for w in split.test] == [7, 8, 9]
    assert [w.start.day for w in split.validate] == [5, 6]
    assert [w.start.day for w in split.train] == [1, 2, 3, 4]
    later = assembly.split(SPEC, made.START + 11 * made.DAY, names)
    assert later.test[-1].start.day == 10


def test_too_few_windows_are_told_with_their_numbers() -> None:
    with pytest.raises(UserMistake, match=r"5 windows have labels that are due at 2026-01-11.*5 are held out"):
        assembly.split(SPEC, made.START + 10 * made.DAY, [f"2026-01-{d:02}" for d in range(5, 11)])


def test_arrays_are_what_the_encoding_gives_row_by_row(tmp_path: Path) -> None:
    made_of = tables(10)
    reference = assembly.assemble(SPEC, made.START + 11 * made.DAY, made_of, "run", tmp_path)
    record = records.read(reference)
    encoding = Encoding.from_dict(json.loads((tmp_path / "encoding.json").read_text()))
    for name, windows in record["windows"].items():
        rows = made_of.read("features", [made.window(int(w[-2:]) - 1) for w in windows])
        frame = pl.DataFrame(pl.from_arrow(rows)).drop_nulls("y").sort("at", "key")
        ids, numbers = encoding.encode({c: frame[c].to_list() for c in ("at", "c", "x")})
        assert np.array_equal(np.load(tmp_path / f"{name}.ids.npy"), ids)
        assert np.array_equal(np.load(tmp_path / f"{name}.numbers.npy"), numbers, equal_nan=True)
        assert np.load(tmp_path / f"{name}.labels.npy").tolist() == frame["y"].to_list()
        assert np.load(tmp_path / f"{name}.times.npy").tolist() == frame["at"].dt.epoch("s").to_list()
        assert record["rows"][name] == len(frame)
    assert encoding.vocabulary["c"].keys() == {"a", "b"}  # "rare" came after the train windows


def test_examples_are_raw_rows_of_the_validate_windows(tmp_path: Path) -> None:
    assembly.assemble(SPEC, made.START + 11 * made.DAY, tables(10), "run", tmp_path)
    examples = json.loads((tmp_path / "examples.json").read_text())
    assert set(examples[0]) == {"key", "at", "c", "x"}
    assert {e["key"].split("-")[0] for e in examples} == {"5", "6"}


def test_a_finished_dataset_is_returned_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    made_of, at = tables(10), made.START + 11 * made.DAY
    first = assembly.assemble(SPEC, at, made_of, "run", tmp_path)
    made_of.replace("features", {made.window(0): made_of.read("features", [])}, "emptied")
    assert assembly.assemble(SPEC, at, made_of, "run", tmp_path) == first
    (tmp_path / "train.ids.npy").write_bytes(b"damaged")
    assert assembly.assemble(SPEC, at, made_of, "run", tmp_path) != first
