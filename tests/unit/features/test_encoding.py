import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.categories import as_text
from include.domain.features.encoding import MISSING, UNKNOWN, Encoding, as_numbers, fit
from include.domain.features.row_encoding import RowEncoder
from include.domain.features.times import as_time, time_part

ROWS: dict[str, list[Any]] = {
    "at": ["2013-01-01T05:15:00Z", "2013-07-01T05:15:00Z", None],
    "carrier": ["UA", "UA", "AA"],
    "gate": [1, 1.0, "1"],
    "distance": [100, 200.0, None],
}


def fitted(min_frequency: int = 1) -> Encoding:
    return fit(
        ROWS,
        time="at",
        zone="America/New_York",
        time_parts=("hour", "month"),
        categorical=("carrier", "gate"),
        numeric=("distance",),
        min_frequency=min_frequency,
    )


def test_commonest_value_comes_first_and_rare_ones_are_unknown() -> None:
    assert fitted().vocabulary["carrier"] == {"UA": 2, "AA": 3}
    assert fitted(min_frequency=2).vocabulary["carrier"] == {"UA": 2}


def test_encode_gives_ids_by_vocabulary_and_raw_numbers() -> None:
    ids, numbers = fitted().encode({"carrier": ["AA", "ZZ", None], "distance": ["7.5", "", math.inf]})
    assert ids[:, 0].tolist() == [3, UNKNOWN, MISSING]
    assert (ids[:, 1:] == MISSING).all()
    assert numbers[0, 0] == 7.5
    assert np.isnan(numbers[1:, 0]).all()
    assert (ids.dtype, numbers.dtype) == (np.dtype(np.int64), np.dtype(np.float32))


def test_time_parts_are_of_the_zone_also_across_summer_time() -> None:
    assert time_part("hour", ROWS["at"], "America/New_York") == ["0", "1", None]
    assert time_part("weekday", ["2013-01-01"], "UTC") == ["1"]


def test_sizes_count_missing_and_unknown() -> None:
    assert fitted().sizes == [4, 3, 4, 4]


def test_encoding_survives_json() -> None:
    encoding = fitted()
    assert Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", None),
        (math.nan, None),
        (np.float32("nan"), None),
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        (np.int64(1), "1"),
        (1.5, "1.5"),
        (True, "true"),
        (np.bool_(False), "false"),
    ],
)
def test_as_text_has_one_spelling_for_a_category(value: object, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("value", ["fast", [1, 2], {}, 10**400])
def test_as_numbers_names_the_field_and_the_value(value: object) -> None:
    with pytest.raises(ValueError, match=r"^speed: .* is not a number$"):
        as_numbers("speed", [value])


def test_as_numbers_takes_what_does_not_fit_float32_as_missing() -> None:
    assert np.isnan(as_numbers("speed", [1e300, "-inf", None])).all()


@pytest.mark.parametrize("value", ["noon", True, 1e300, math.inf, "x" * 1000])
def test_unreadable_time_is_named_with_its_column(value: object) -> None:
    with pytest.raises(ValueError, match=r"^at: .{1,70} is not an ISO time or epoch seconds$"):
        fitted().encode({"at": [value]})
    with pytest.raises(ValueError, match=r"^at: .{1,70} is not an ISO time or epoch seconds$"):
        RowEncoder(fitted())([value, "UA", "1", 1.0])


def test_time_at_the_edge_of_the_calendar_is_refused_not_crashed_on() -> None:
    with pytest.raises(ValueError, match=r"^at: "):
        fitted().encode({"at": ["0001-01-01T00:00:00Z"]})
    with pytest.raises(ValueError, match=r"^at: "):
        RowEncoder(fitted())(["0001-01-01T00:00:00Z", "UA", "1", 1.0])


def test_as_time_reads_iso_epoch_and_datetime() -> None:
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    assert as_time("2013-01-01T12:00:00") == as_time("2013-01-01T07:00:00-05:00") == as_time(noon.timestamp()) == noon


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TIMES = st.none() | st.datetimes().map(datetime.isoformat) | st.integers(-(2**40), 2**40) | st.text(max_size=8)


@given(TIMES, st.sampled_from(["UA", "AA"]) | SCALARS, SCALARS, SCALARS)
def test_one_row_is_encoded_as_in_a_column(at: object, carrier: object, gate: object, distance: object) -> None:
    encoding = fitted()
    values = [at, carrier, gate, distance]
    try:
        ids, numbers = encoding.encode({k: [v] for k, v in zip(RowEncoder(encoding).fields, values, strict=True)})
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error).partition(":")[0]):
            RowEncoder(encoding)(values)
        return
    encoder = RowEncoder(encoding)
    for _ in range(2):  # the second time from its memory
        row_ids, row_numbers = encoder(values)
        assert (row_ids, row_numbers) == (ids[0].tobytes(), numbers[0].tobytes())
