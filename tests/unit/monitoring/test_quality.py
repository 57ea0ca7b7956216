"""Broken input is named, and never taken for drift."""

import numpy as np
import pytest

from include.domain.monitoring import quality
from include.domain.monitoring.performance import MetricWithError
from include.domain.monitoring.quality import Quality
from include.domain.monitoring.signal import SignalState
from include.domain.monitoring.sketch import Sketch, sketch_ids, sketch_numbers

RULES = Quality()


def window(missing: float = 0.1, unseen: float = 0.0, rows: int = 1000, seed: int = 0) -> dict[str, Sketch]:
    random = np.random.default_rng(seed)
    temp = random.normal(size=rows)
    temp[random.random(rows) < missing] = np.nan
    dest = np.where(random.random(rows) < unseen, 1, random.integers(2, 12, rows))
    return {"temp": sketch_numbers([-1.0, 0.0, 1.0], temp), "dest": sketch_ids(12, dest)}


REFERENCE = [window(seed=i) for i in range(20)]


def test_usual_windows_are_ok() -> None:
    assert quality.missing(RULES, REFERENCE, window(seed=99), "w").state is SignalState.OK
    assert quality.unseen(RULES, REFERENCE, window(seed=99), "w").state is SignalState.OK


def test_a_feature_that_turned_all_null_fires_by_name() -> None:
    signal = quality.missing(RULES, REFERENCE, window(missing=1.0, seed=99), "2013-06-30")
    assert signal.state is SignalState.FIRE
    assert "100.0% of 2013-06-30's rows without a value in temp" in signal.sentence


def test_a_new_category_everywhere_fires_and_a_few_new_ones_do_not() -> None:
    assert quality.unseen(RULES, REFERENCE, window(unseen=1.0, seed=99), "w").state is SignalState.FIRE
    assert quality.unseen(RULES, REFERENCE, window(unseen=0.1, seed=99), "w").state is SignalState.OK


def test_a_rise_on_few_rows_only_warns() -> None:
    assert quality.missing(RULES, REFERENCE, window(missing=0.3, rows=60, seed=5), "w").state is SignalState.WARN
    assert quality.unseen(RULES, REFERENCE, window(unseen=0.75, rows=60, seed=4), "w").state is SignalState.WARN
    assert quality.skew(RULES, {"temp": 2}, 100, ("w",)).state is SignalState.WARN


def test_no_reference_is_unknown() -> None:
    assert quality.missing(RULES, [], window(), "w").state is SignalState.UNKNOWN
    assert quality.volume(RULES, [], 10, "w").state is SignalState.UNKNOWN


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        (950, SignalState.OK),
        (190, SignalState.WARN),
        (50, SignalState.FIRE),
        (9000, SignalState.FIRE),
        (0, SignalState.FIRE),
    ],
)
def test_volume_fires_far_outside_the_usual(rows: int, state: SignalState) -> None:
    assert quality.volume(RULES, [900, 1000, 1100, 1000], rows, "w").state is state


def test_a_window_without_rows_among_the_last_ones_warns() -> None:
    signal = quality.volume(RULES, [900, 1000, 1100], 1000, "2013-06-30", empty_windows=["2013-06-29"])
    assert signal.state is SignalState.WARN
    assert "without any row: 2013-06-29" in signal.sentence


def test_label_rate_fires_either_way() -> None:
    usual = MetricWithError(0.2, 0.01, 20)
    states = [quality.label_rate(RULES, MetricWithError(r, 0.01, 20), usual, ("w",)).state for r in (0.08, 0.22, 0.4)]
    assert states == [SignalState.WARN, SignalState.OK, SignalState.FIRE]


def test_skew_names_the_feature_that_was_served_otherwise() -> None:
    assert quality.skew(RULES, {"temp": 0, "dest": 0}, 1000, ("w",)).state is SignalState.OK
    signal = quality.skew(RULES, {"temp": 80, "dest": 0}, 1000, ("w",))
    assert signal.state is SignalState.FIRE
    assert signal.sentence.startswith("temp differs")
    assert quality.skew(RULES, {}, 0, ("w",)).state is SignalState.UNKNOWN
