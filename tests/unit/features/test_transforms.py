"""Transforms of a row's own columns: what each gives, and that tables and servers get the same of the same rows."""

import json
import math
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.features.encoding import MISSING, UNKNOWN, Encoding, fit
from include.domain.features.row_encoding import RowEncoder
from include.domain.features.transforms import Transform, find_errors
from include.local import flights
from include.stages.training.dataset import encode_rows

LOG = Transform("log_x", "log", ("x",))
BUCKET = Transform("x_bucket", "bucket", ("x",), at=(0.0, 10.0))
CROSS = Transform("a_b", "cross", ("a", "b"))
HASH = Transform("a_hash", "hash", ("a",), into=8)
ALL = (LOG, BUCKET, CROSS, HASH)
VALUES = st.none() | st.integers(-3, 30) | st.sampled_from([1.5, math.nan, math.inf, "7", "", -0.0])
ROWS = st.lists(st.fixed_dictionaries({"x": VALUES, "a": VALUES, "b": st.sampled_from(["u", "v", None])}), min_size=1)


def test_what_each_gives() -> None:
    assert LOG([-math.e + 1]) == pytest.approx(-1)
    assert [BUCKET([x]) for x in (-1, 0, "9.9", 10)] == ["0", "1", "1", "2"]
    assert CROSS(["u", 1.0]) == "u|1"
    assert HASH(["u"]) == HASH(["u"])
    assert {int(HASH([n])) for n in range(200)} == set(range(8))
    assert [t([None, None]) for t in ALL] == [None] * 4
    with pytest.raises(ValueError, match="x: 'far' is not a number"):
        LOG(["far"])


@settings(deadline=None)
@given(ROWS)
def test_a_row_alone_is_encoded_as_in_a_table(rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"t": [None] * len(rows)}
    made = fit(
        columns,
        time="t",
        zone="UTC",
        time_parts=("hour",),
        categorical=("a", "b"),
        numeric=("x",),
        min_frequency=1,
        transforms=ALL,
    )
    again = Encoding.from_dict(json.loads(json.dumps(made.to_dict())))
    one, (ids, numbers) = RowEncoder(again), made.encode(columns)
    for n, row in enumerate(rows):
        own_ids, own_numbers = one([row.get(f) for f in one.fields])
        assert (own_ids, own_numbers) == (ids[n].tobytes(), numbers[n].tobytes())


def test_on_real_flights_rows_and_tables_agree() -> None:
    rows = flights.recorded(flights.data_folder()).filter(pl.col("departure").dt.date() == date(2013, 2, 8))
    numeric, categorical = ("distance", "wind_speed"), ("origin", "dest", "tailnum")
    transforms = (
        Transform("route", "cross", ("origin", "dest")),
        Transform("far", "bucket", ("distance",), at=(500.0, 1000.0)),
        Transform("tail", "hash", ("tailnum",), into=64),
        Transform("log_wind", "log", ("wind_speed",)),
    )
    columns = rows.select("departure", *categorical, *numeric).to_dict(as_series=False)
    made = fit(
        columns,
        time="departure",
        zone=flights.ZONE,
        time_parts=("weekday",),
        categorical=categorical,
        numeric=numeric,
        min_frequency=2,
        transforms=transforms,
    )
    ids, numbers = (of.astype(kind) for of, kind in zip(encode_rows(made, rows), ("int64", "float32"), strict=True))
    one = RowEncoder(made)
    for n, row in enumerate(rows.to_dicts()):
        own_ids, own_numbers = one([row[f] for f in one.fields])
        assert (own_ids, own_numbers) == (ids[n].tobytes(), numbers[n].tobytes())
    assert len(made.vocabulary["route"]) > 50
    assert made.vocabulary["far"].keys() == {"0", "1", "2"}


def test_a_class_that_training_never_saw_is_unknown() -> None:
    columns: dict[str, list[Any]] = {
        "t": [None] * 4,
        "a": ["u", "u", "v", "v"],
        "b": ["x", "x", "y", "y"],
        "x": [1.0] * 4,
    }
    made = fit(
        columns,
        time="t",
        zone="UTC",
        time_parts=(),
        categorical=("a", "b"),
        numeric=("x",),
        min_frequency=2,
        transforms=(CROSS,),
    )
    ids, _ = made.encode({"a": ["u", "u", None], "b": ["x", "y", "y"], "x": [1.0] * 3})
    assert ids[:, 2].tolist() == [2, UNKNOWN, MISSING]


def test_every_fault_of_the_section_is_named() -> None:
    wrong = [
        Transform("n", "log", ("a",)),
        Transform("x", "cross", ("a",)),
        Transform("m", "bucket", ("x",), at=(2.0, 1.0)),
        Transform("h", "hash", ("a",)),
    ]
    errors = list(find_errors(wrong, ["x"], ["a"]))
    assert [t.partition(":")[0] for t in errors] == ["0.of", "1.of", "1.name", "2.at", "3.into"]
