"""Windows are half open and UTC."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest

from include.domain.windows import Grain, Window, group_by_window, parse_utc, window_of

DAY = datetime(2013, 4, 1, tzinfo=UTC)


def test_the_end_belongs_to_the_next_window() -> None:
    window = Window(DAY, DAY + timedelta(days=1))
    assert DAY in window
    assert window.end not in window


def test_a_range_splits_into_whole_days_without_gap_or_overlap() -> None:
    days = list(Window(DAY + timedelta(hours=5), DAY + timedelta(days=2, hours=1)).split(Grain.DAY))
    assert [d.label for d in days] == ["2013-04-01", "2013-04-02", "2013-04-03"]
    assert all(a.end == b.start for a, b in pairwise(days))


def test_hours_have_names_of_their_own() -> None:
    hours = list(Window(DAY, DAY + timedelta(hours=3)).split(Grain.HOUR))
    assert [h.label for h in hours] == ["2013-04-01", "2013-04-01T01", "2013-04-01T02"]


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
    assert parse_utc("2013-04-01") == DAY
    assert parse_utc("2013-03-31T20:00:00-04:00") == DAY


def test_a_label_names_its_window() -> None:
    assert window_of("2013-04-01T05", Grain.HOUR) == Grain.HOUR.window_at(DAY + timedelta(hours=5, minutes=59))
    assert window_of("2013-04-01", Grain.DAY).label == "2013-04-01"
    assert window_of("0001-01-02T05", Grain.HOUR).label == "0001-01-02T05"


def test_windows_are_counted_in_their_own_length() -> None:
    window = Grain.HOUR.window_at(DAY)
    assert [earlier.label for earlier in window.preceding(2)] == ["2013-03-31T23", "2013-03-31T22"]
    assert window.shifted(2).start == DAY + timedelta(hours=2)
    assert window.number_since(DAY - timedelta(days=1)) == 24
    assert window.share_after(DAY + timedelta(minutes=45)) == 0.25


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_times_are_grouped_by_their_windows(kind: type) -> None:
    seconds = np.array([3600, 0, 3599, 7200, 3600], dtype=kind) + kind(DAY.timestamp())
    labels, index = group_by_window(seconds, Grain.HOUR)
    assert labels == ("2013-04-01", "2013-04-01T01", "2013-04-01T02")
    assert index.tolist() == [1, 0, 0, 2, 1]
    assert group_by_window(seconds[:0], Grain.DAY)[0] == ()
