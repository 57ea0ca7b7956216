"""The dataset: which windows, encoded by what the train windows teach, and never made twice."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.domain.errors import UserMistake
from include.domain.features.encoding import UNKNOWN, Encoding
from include.stages.training import dataset
from tests.memory import MemoryTables
from tests.unit.data.test_landing import DAY, START, window
from tests.unit.toy import TOY, toy

SPEC_SECTIONS = {"training": {"validate_windows": 2, "test_windows": 3}, "label_delay": "P1D"}
SPEC = toy(**SPEC_SECTIONS, features={"min_frequency": 1, "time_parts": ["hour"]})
ROWS = 20


def tables(days: int) -> MemoryTables:
    """Return a features table of so many days, whose category `rare` comes after the train windows."""
    features = MemoryTables()
    for day in range(days):
        at = [START + day * DAY + timedelta(hours=n % 24) for n in range(ROWS)]
        rows = {
            "at": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
            "key": [f"{day}-{n}" for n in range(ROWS)],
            "y": [None if n == 0 else n % 2 for n in range(ROWS)],
            "x": [float(day) if n % 3 else None for n in range(ROWS)],
            "c": ["rare" if day > 6 else "ab"[n % 2] for n in range(ROWS)],
        }
        replace_day(features, day, pl.DataFrame(rows))
    return features


def replace_day(features: MemoryTables, day: int, rows: pl.DataFrame) -> None:
    features.replace("features", {window(day): rows.to_arrow(compat_level=pl.CompatLevel.oldest())}, "run")


def test_test_is_the_newest_windows_whose_labels_are_due() -> None:
    names = [f"2026-01-{d:02}" for d in range(1, 11)]
    split = dataset.split(SPEC, START + 10 * DAY, names)
    assert [w.start.day for w in split.test] == [7, 8, 9]
    assert [w.start.day for w in split.validate] == [5, 6]
    assert [w.start.day for w in split.train] == [1, 2, 3, 4]
    later = dataset.split(SPEC, START + 11 * DAY, names)
    assert later.test[-1].start.day == 10


def test_too_few_windows_are_named_with_their_numbers() -> None:
    with pytest.raises(UserMistake, match=r"5 windows have labels that are due at 2026-01-11.*5 are held out"):
        dataset.split(SPEC, START + 10 * DAY, [f"2026-01-{d:02}" for d in range(5, 11)])


def test_arrays_are_what_the_encoding_gives_row_by_row(tmp_path: Path) -> None:
    features = tables(10)
    reference = dataset.assemble(SPEC, START + 11 * DAY, features, "run", tmp_path)
    manifest = store.read(reference, DatasetManifest)
    encoding = Encoding.from_dict(json.loads((tmp_path / "encoding.json").read_text()))
    for name, windows in manifest.windows.items():
        rows = features.read("features", [window(int(w[-2:]) - 1) for w in windows])
        frame = pl.DataFrame(pl.from_arrow(rows)).drop_nulls("y").sort("at", "key")
        ids, numbers = encoding.encode({c: frame[c].to_list() for c in ("at", "c", "x")})
        assert np.array_equal(np.load(tmp_path / f"{name}.ids.npy"), ids)
        assert np.array_equal(np.load(tmp_path / f"{name}.numbers.npy"), numbers, equal_nan=True)
        assert np.load(tmp_path / f"{name}.labels.npy").tolist() == frame["y"].to_list()
        assert np.load(tmp_path / f"{name}.times.npy").tolist() == frame["at"].dt.epoch("s").to_list()
        assert getattr(manifest.rows, name) == len(frame)
    assert encoding.vocabulary["c"].keys() == {"a", "b"}  # "rare" came after the train windows


def test_examples_are_raw_rows_of_the_validate_windows(tmp_path: Path) -> None:
    dataset.assemble(SPEC, START + 11 * DAY, tables(10), "run", tmp_path)
    examples = json.loads((tmp_path / "examples.json").read_text())
    assert set(examples[0]) == {"key", "at", "c", "x"}
    assert {e["key"].split("-")[0] for e in examples} == {"5", "6"}


def test_a_finished_dataset_is_returned_and_a_damaged_one_written_again(tmp_path: Path) -> None:
    features, at = tables(10), START + 11 * DAY
    first = dataset.assemble(SPEC, at, features, "run", tmp_path)
    features.replace("features", {window(0): features.read("features", [])}, "emptied")
    assert dataset.assemble(SPEC, at, features, "run", tmp_path) == first
    (tmp_path / "train.ids.npy").write_bytes(b"damaged")
    assert dataset.assemble(SPEC, at, features, "run", tmp_path) != first


def test_a_cap_keeps_the_most_frequent_ids_of_all_fields_and_the_rest_is_unknown(tmp_path: Path) -> None:
    """More distinct ids than the table may hold."""
    features, count = MemoryTables(), 50_000
    for day in range(10):
        rows = {
            "at": pl.Series([START + day * DAY] * count, dtype=pl.Datetime("us", "UTC")),
            "key": [f"{day}-{n}" for n in range(count)],
            "y": [n % 2 for n in range(count)],
            "x": [1.0] * count,
            "c": [f"often{n % 50}" if n % 2 else f"once-{day}-{n}" for n in range(count)],
        }
        replace_day(features, day, pl.DataFrame(rows))
    capped = toy(**{**SPEC_SECTIONS, "features": {"min_frequency": 1, "max_ids": 26}})
    dataset.assemble(capped, START + 11 * DAY, features, "run", tmp_path)
    encoding = Encoding.from_dict(json.loads((tmp_path / "encoding.json").read_text()))
    assert sorted(encoding.vocabulary["c"]) == sorted([*(f"often{n}" for n in range(1, 50, 2)), "once-0-0"])
    assert np.load(tmp_path / "test.ids.npy")[0, 0] == UNKNOWN


def test_what_teaches_nothing_and_what_was_not_delivered_is_noted(tmp_path: Path) -> None:
    features = tables(10)
    third = pl.DataFrame(pl.from_arrow(features.read("features", [window(2)])))
    spoiled = third.with_columns(x=pl.lit(None, pl.Float64)).drop("window", strict=False)
    replace_day(features, 2, spoiled)
    spec = toy(**{**SPEC_SECTIONS, "features": {"min_frequency": 1, "max_ids": 1}})
    reference = dataset.assemble(spec, START + 11 * DAY, features, "run", tmp_path)
    assert list(store.read(reference, DatasetManifest).notes) == [
        "c has 1 value(s) that train rows hold often enough; it teaches nothing: leave it out",
        "x is missing in every row of 2026-01-03; was it delivered?",
    ]


def test_weights_of_the_train_rows_have_mean_one(tmp_path: Path) -> None:
    features = tables(10)
    for day in range(10):
        rows = pl.DataFrame(pl.from_arrow(features.read("features", [window(day)]))).drop("window", strict=False)
        weighted = rows.with_columns(w=pl.Series([None if n == 1 else float(n % 3) for n in range(ROWS)]))
        replace_day(features, day, weighted)
    spec = toy(**SPEC_SECTIONS, columns={**TOY["columns"], "weight": "w"})
    dataset.assemble(spec, START + 11 * DAY, features, "run", tmp_path)
    weights = np.load(tmp_path / "train.weights.npy")
    assert weights.mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(2)  # row 0 has no label; row 1's missing weight counts as 1
