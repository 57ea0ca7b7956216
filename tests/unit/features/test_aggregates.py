"""What was known before an event: against a count by hand over the raw outcomes, hour by hour."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.errors import Corrupt
from include.domain.features.aggregates import AggregateGroup, Aggregates, entity_name, find_errors, span_name
from include.domain.features.hourly_sums import AggregateHistory, EntityHistory, HourlySums, concatenate, pack, unpack

HOUR = timedelta(hours=1)
GROUP = AggregateGroup(by=("who",), over=(2 * HOUR, 24 * HOUR), mean=("late",), last=("late",), rows=True)
OUTCOMES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 9)), max_size=40)


def history(outcomes: list[tuple[str, int, int]]) -> AggregateHistory:
    who, hours, values = zip(*outcomes, strict=True) if outcomes else ((), (), ())
    of = {"late": np.array(values, dtype=np.float64)}
    counts, at = {"late": np.ones(len(values))}, np.array(hours, dtype=np.int64)
    return AggregateHistory(GROUP, HourlySums(list(who), at, at * 3600, counts, of, of))


@settings(deadline=None)
@given(OUTCOMES, st.sampled_from("abcd"), st.integers(0, 70))
def test_what_is_seen_is_what_became_known_within_the_span_before(
    outcomes: list[tuple[str, int, int]], who: str, before: int
) -> None:
    features = history(outcomes).as_of([who], np.array([before]))
    for span in GROUP.over:
        visible = [v for w, h, v in outcomes if w == who and before - span / HOUR <= h < before]
        name = span_name(span)
        assert features[f"rows_who_{name}"][0] == len(visible)
        mean = features[f"late_mean_who_{name}"][0]
        assert mean == pytest.approx(np.mean(visible)) if visible else np.isnan(mean)


@settings(deadline=None)
@given(OUTCOMES, OUTCOMES, st.sampled_from("abcd"), st.integers(0, 70))
def test_one_row_is_told_what_a_table_is_whether_outcomes_landed_or_came_one_by_one(
    landed: list[tuple[str, int, int]], streamed: list[tuple[str, int, int]], who: str, before: int
) -> None:
    """In whatever order they come, and also when something was asked before."""
    series = history(landed).entity(who) or EntityHistory.empty(GROUP)
    for name, hour, value in streamed:
        series.as_of(before)
        if name == who:
            series.add(hour, hour * 3600, [float(value)])
    features = history([*landed, *streamed]).as_of([who], np.array([before]))
    assert np.array_equal(series.as_of(before), [features[name][0] for name in GROUP.features], equal_nan=True)


@given(st.lists(OUTCOMES, max_size=3))
def test_packed_windows_are_the_same_together(windows: list[list[tuple[str, int, int]]]) -> None:
    def sums(outcomes: list[tuple[str, int, int]]) -> HourlySums:
        who, hours, values = zip(*outcomes, strict=True) if outcomes else ((), (), ())
        at, of = np.array(hours, dtype=np.int64), {"late": np.array(values, dtype=np.float64)}
        return HourlySums(list(who), at, at, {"late": np.ones(len(values))}, of, of)

    read = concatenate([unpack(pack({"who": sums(w)}), GROUP) or sums([]) for w in windows], GROUP.outcomes)
    whole = sums([o for w in windows for o in w])
    assert list(read.entities) == list(whole.entities)
    assert np.array_equal(read.hours, whole.hours)
    assert np.array_equal(read.sums["late"], whole.sums["late"])


def test_a_window_packed_without_an_outcome_that_is_asked_for_says_nothing() -> None:
    other = AggregateGroup(by=("who",), over=(HOUR,), mean=("delay",))
    assert unpack(pack({"who": concatenate([], ["late"])}), other) is None


def test_damaged_sums_are_refused() -> None:
    with pytest.raises(Corrupt):
        unpack(pack({"who": concatenate([], ["late"])})[:-30], GROUP)


def test_the_last_is_the_newest_hours_and_none_older_than_the_longest_span() -> None:
    histories = history([("a", 10, 1), ("a", 12, 2), ("b", 12, 9)])
    last = histories.as_of(["a", "a", "a", "a"], np.array([11, 13, 36, 37]))["late_last_who"]
    assert last[:3].tolist() == [1, 2, 2]
    assert np.isnan(last[3])


def test_an_outcome_of_the_very_hour_is_not_seen() -> None:
    assert history([("a", 10, 1)]).as_of(["a"], np.array([10]))["rows_who_2h"].tolist() == [0]


def test_nobody_and_strangers_have_no_past() -> None:
    features = history([("a", 10, 1)]).as_of([None, "z"], np.array([11, 11]))
    assert np.isnan(features["late_mean_who_2h"]).all()
    assert np.isnan(history([]).as_of(["a"], np.array([11]))["late_last_who"]).all()


def test_an_event_is_seen_from_its_lead_before_by_whole_hours() -> None:
    lead = Aggregates(lead=2 * HOUR, groups=(GROUP,))
    assert lead.cutoff_hours(np.array([10 * 3600, 10 * 3600 + 3599, 11 * 3600])).tolist() == [8, 8, 9]


def test_the_columns_are_named_by_outcome_entity_and_span() -> None:
    group = AggregateGroup(by=("carrier", "origin"), over=(3 * HOUR, 168 * HOUR), mean=("late",), last=("delay",))
    assert group.features == ("late_mean_carrier_origin_3h", "late_mean_carrier_origin_7d", "delay_last_carrier_origin")
    assert Aggregates(groups=(group,)).features == group.features


def test_an_entity_is_named_by_all_its_parts_or_not_at_all() -> None:
    assert entity_name({"a": "x", "b": 2.0}, ("a", "b")) == "x|2"
    assert entity_name({"a": "x", "b": None}, ("a", "b")) is None


def test_every_fault_of_the_section_is_named() -> None:
    wrong = Aggregates(
        groups=(
            AggregateGroup(by=("nope",), over=(timedelta(minutes=90),), mean=("gone",)),
            AggregateGroup(by=("c",), over=(HOUR,)),
        )
    )
    errors = list(find_errors(wrong, ["c"], ["y"]))
    assert len(errors) == 4
    twice = Aggregates(groups=(AggregateGroup(by=("c",), over=(HOUR,), mean=("y",)),) * 2)
    assert "has a group already" in next(iter(find_errors(twice, ["c"], ["y"])))
    assert errors[0] == "groups.0.by: nope: not a categorical column"
