"""Sketches of Arrow columns agree with the encoding that training and serving use."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.domain.features.encoding import fit
from include.stages.monitoring import sketching

COLUMNS: dict[str, list[Any]] = {
    "at": ["2013-01-01T00:00:00Z"] * 6,
    "dest": ["LAX", "LAX", "SFO", "", None, "NEW"],
    "flight": [1, 1, 2, 2, None, 9],
    "temp": [1.0, 2.0, None, float("inf"), 3.0, 9.0],
    "count": [1, 2, 3, 4, None, 6],
}
TRAINING = {**COLUMNS, "dest": ["LAX"] * 3 + ["SFO"] * 3, "flight": [1, 1, 1, 2, 2, 2]}
ENCODING = fit(
    TRAINING,
    time="at",
    zone="UTC",
    time_parts=("hour",),
    categorical=("dest", "flight"),
    numeric=("temp", "count"),
    min_frequency=1,
)


def test_categories_are_counted_on_the_encodings_ids() -> None:
    sketches = sketching.sketch_rows(ENCODING, pa.table(COLUMNS))
    ids, _ = ENCODING.encode(COLUMNS)
    for i, field in enumerate(("dest", "flight")):
        assert np.array_equal(sketches[field].counts, np.bincount(ids[:, i], minlength=ENCODING.sizes[i])), field


def test_numbers_are_counted_between_the_encodings_knots_and_infinite_ones_are_missing() -> None:
    sketches = sketching.sketch_rows(ENCODING, pa.table(COLUMNS))
    _, numbers = ENCODING.encode(COLUMNS)
    for i, field in enumerate(("temp", "count")):
        present = numbers[~np.isnan(numbers[:, i]), i]
        assert sketches[field].missing_share == pytest.approx(1 - len(present) / 6)
        assert sketches[field].sums[0] == pytest.approx(present.sum())
        below = np.searchsorted(np.asarray(ENCODING.knots[field], np.float32), present, side="right")
        assert np.array_equal(sketches[field].counts[1:], np.bincount(below, minlength=len(ENCODING.knots[field]) + 1))


def test_the_parts_of_the_time_and_absent_columns_are_not_watched() -> None:
    assert set(sketching.sketch_rows(ENCODING, pa.table(COLUMNS).drop_columns(["temp"]))) == {"dest", "flight", "count"}
