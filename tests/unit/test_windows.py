"""Windows are half open and UTC."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from include.domain.windows import Grain, Window, label, parse

DAY = datetime(2013, 4, 1, tzinfo=UTC)


def test_the_end_belongs_to_the_next_window() -> None:
    window = Window(DAY, DAY + timedelta(days=1))
    assert DAY in window
    assert window.end not in window


def test_a_range_splits_into_whole_days_without_gap_or_overlap() -> None:
    days = list(Window(DAY + timedelta(hours=5), DAY + timedelta(days=2, hours=1)).split(Grain.DAY))
    assert [label(d.start) for d in days] == ["2013-04-01", "2013-04-02", "2013-04-03"]
    assert all(a.end == b.start for a, b in pairwise(days))


def test_hours_have_names_of_their_own() -> None:
    hours = list(Window(DAY, DAY + timedelta(hours=3)).split(Grain.HOUR))
    assert [label(h.start) for h in hours] == ["2013-04-01", "2013-04-01T01", "2013-04-01T02"]


def test_another_zone_falls_into_the_utc_window() -> None:
    evening = datetime(2013, 3, 31, 22, tzinfo=timezone(timedelta(hours=-4)))
    assert Grain.DAY.floor(evening) == DAY


@pytest.mark.parametrize("end", [DAY, DAY - timedelta(days=1)])
def test_an_empty_window_is_refused(end: datetime) -> None:
    with pytest.raises(ValueError, match="must end after it starts"):
        Window(DAY, end)


def test_a_naive_window_is_refused() -> None:
    with pytest.raises(ValueError, match="time zones"):
        Window(DAY.replace(tzinfo=None), DAY.replace(tzinfo=None) + timedelta(days=1))


def test_a_text_without_zone_is_utc() -> None:
    assert parse("2013-04-01") == DAY
    assert parse("2013-03-31T20:00:00-04:00") == DAY
