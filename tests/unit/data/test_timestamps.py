"""Times in many forms; each is one moment or none."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from include.domain.errors import UserMistake
from include.stages.data.timestamps import to_timestamps

AT = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)


def read(value: object, zone: str = "UTC", time_format: str | None = None, **kind: object) -> datetime | None:
    times = to_timestamps(pl.Series("at", [value], **kind), zone, time_format)  # type: ignore[arg-type]
    return times.to_list()[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-01T12:30:00Z",
        "2026-06-01 12:30:00",
        "2026-06-01T12:30",
        "2026-06-01T14:30:00+02:00",
        "2026-06-01 14:30:00.000+0200",
        "2026/06/01 12:30:00",
        "20260601T123000",
        " 2026-06-01T12:30:00z ",
        "1780317000",
        "1780317000000",
        "1780317000000000",
        "1780317000.0",
    ],
)
def test_texts_of_one_moment(text: str) -> None:
    assert read(text) == AT


@pytest.mark.parametrize(
    "number", [1780317000, 1780317000.0, 1780317000_000, 1780317000_000_000, 1780317000_000_000_000]
)
def test_epochs_of_one_moment(number: float) -> None:
    assert read(number) == AT


@pytest.mark.parametrize("value", ["soon", "", "2026-13-01", "9999-12-31T00:00:00Z", "0", "12", 0, -5.0, float("nan")])
def test_what_is_no_time(value: object) -> None:
    assert read(value) is None


def test_a_time_without_a_zone_is_one_of_the_specs() -> None:
    assert read("2026-06-01 08:30:00", zone="America/New_York") == AT
    assert read("2026-06-01T12:30:00Z", zone="America/New_York") == AT


def test_clocks_that_jump() -> None:
    assert read("2026-03-08 02:30:00", zone="America/New_York") is None
    assert read("2026-11-01 01:30:00", zone="America/New_York") == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)


def test_an_own_format() -> None:
    assert read("14102100", time_format="%y%m%d%H") == datetime(2014, 10, 21, tzinfo=UTC)
    assert read(14102105, time_format="%y%m%d%H") == datetime(2014, 10, 21, 5, tzinfo=UTC)


def test_dates_and_timestamps_of_any_unit() -> None:
    assert read(date(2026, 6, 1)) == datetime(2026, 6, 1, tzinfo=UTC)
    for unit in ("ms", "us", "ns"):
        assert read(datetime(2026, 6, 1, 12, 30), dtype=pl.Datetime(unit)) == AT


def test_a_type_that_holds_no_times() -> None:
    with pytest.raises(UserMistake, match="column at holds Boolean"):
        read(True)
