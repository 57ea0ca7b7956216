"""Drift is significant and large; the signal is ok otherwise."""

from collections.abc import Callable

import numpy as np
import pytest

from include.domain.monitoring import distance, drift
from include.domain.monitoring.drift import Drift, FeatureDrift, ReferenceWindows
from include.domain.monitoring.signal import SignalState
from include.domain.monitoring.sketch import Sketch, Sketches, merge, sketch_ids, sketch_numbers

KNOTS = np.linspace(-2.5, 2.5, 41).tolist()
WORDS = 1 / np.arange(1, 41)
WORDS /= WORDS.sum()


def window(seed: int, rows: int = 2000, shift: float = 0.0, turn: int = 0, features: int = 6) -> dict[str, Sketch]:
    random = np.random.default_rng(seed)
    shared = random.normal(size=rows)
    sketches = {}
    for i in range(features):
        values = 0.6 * shared + 0.8 * random.normal(size=rows) + (shift if i == 0 else 0)
        sketches[f"number{i}"] = sketch_numbers(KNOTS, values)
        words = random.choice(40, size=rows, p=np.roll(WORDS, turn if i == 0 else 0))
        sketches[f"word{i}"] = sketch_ids(42, words + 2)
    return sketches


def reference_windows(
    rows: int = 2000, windows: int = 28, make: Callable[[int], dict[str, Sketch]] | None = None
) -> ReferenceWindows:
    sketches = [(make or (lambda i: window(1000 + i, rows)))(i) for i in range(windows)]
    return ReferenceWindows(sketches, [i % 7 for i in range(windows)], {f"number{i}": KNOTS for i in range(6)})


def drifted_features(drifts: list[FeatureDrift]) -> set[str]:
    return {d.feature for d in drifts if d.drifted}


def test_sketches_of_parts_add_up_to_the_sketch_of_the_whole() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    values[::10] = np.nan
    parts = [sketch_numbers(KNOTS, part) for part in np.split(values, 4)]
    whole = sketch_numbers(KNOTS, values)
    assert np.array_equal(merge(parts).counts, whole.counts)
    assert np.allclose(merge(parts).sums, whole.sums)
    assert (whole.rows, whole.missing_share) == (1000, 0.1)


def test_sketches_on_other_bins_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        merge([sketch_ids(5, np.array([2])), sketch_ids(6, np.array([2]))])


@pytest.mark.parametrize("rows", [200, 2000, 20_000])
def test_windows_like_the_reference_never_fire(rows: int) -> None:
    reference = reference_windows(rows)
    recent: dict[str, list[FeatureDrift]] = {}
    for i in range(20):
        recent[str(i)] = drift.compare(Drift(), reference, window(i, rows), i % 7)
        assert drift.signal("feature_drift", Drift(), recent).state is not SignalState.FIRE


def test_a_shifted_number_and_a_turned_category_drift_and_nothing_else_does() -> None:
    assert drifted_features(drift.compare(Drift(), reference_windows(), window(1, shift=0.5, turn=3), 1)) == {
        "number0",
        "word0",
    }


def test_a_shift_too_small_to_matter_is_not_drift_however_sure() -> None:
    drifts = drift.compare(Drift(), reference_windows(50_000, 8), window(1, 50_000, shift=0.05), 1)
    moved = next(m for m in drifts if m.feature == "number0")
    assert moved.p_value < 1e-6
    assert not moved.drifted


def test_a_move_as_large_as_the_reference_windows_own_is_not_drift() -> None:
    swings = np.random.default_rng(5).normal(scale=0.5, size=40)
    restless = reference_windows(make=lambda i: window(1000 + i, shift=swings[i]))
    assert drifted_features(drift.compare(Drift(), restless, window(1, shift=0.5), 1)) == set()
    assert drifted_features(drift.compare(Drift(), reference_windows(), window(1, shift=0.5), 1)) == {"number0"}


def test_a_weekend_is_compared_with_weekends() -> None:
    weekly = reference_windows(make=lambda i: window(1000 + i, turn=5 if i % 7 >= 5 else 0))
    assert drifted_features(drift.compare(Drift(), weekly, window(1, turn=5), 5)) == set()
    assert drifted_features(drift.compare(Drift(), weekly, window(1, turn=5), 2)) == {"word0"}


def test_wasserstein_counts_reference_deviations_and_sees_what_lies_beyond_the_knots() -> None:
    reference = window(1, 20_000)["number1"]
    for shift in (0.3, 1.0, 8.0):
        moved = window(2, 20_000, shift=shift)["number0"]
        assert distance.wasserstein(moved, reference, KNOTS) == pytest.approx(shift, rel=0.1)


def test_distances_of_samples_from_one_distribution_are_near_zero() -> None:
    random = np.random.default_rng(3)
    pairs = [random.multinomial(300, WORDS[:12] / WORDS[:12].sum(), size=2).astype(float) for _ in range(50)]
    assert np.mean([distance.psi(a, b) for a, b in pairs]) < 0.03
    assert np.mean([distance.jensen_shannon(a, b) ** 2 for a, b in pairs]) < 0.005


def test_values_that_training_never_saw_are_drift() -> None:
    strange: Sketches = {**window(1), "word1": sketch_ids(42, np.ones(2000, dtype=int))}
    assert "word1" in drifted_features(drift.compare(Drift(), reference_windows(), strange, 1))


def moved(effect: float, drifted: bool, feature: str = "dest") -> list[FeatureDrift]:
    return [FeatureDrift(feature, effect, 0.001, 0.2, drifted)]


def test_fires_when_two_windows_and_the_newest_drifted() -> None:
    signal = drift.signal(
        "feature_drift", Drift(), {"a": moved(0.2, True), "b": moved(0, False), "c": moved(0.2, True)}
    )
    assert signal.state is SignalState.FIRE
    assert "dest 0.20 (2 of 3 windows)" in signal.sentence


def test_only_warns_on_one_window_that_is_not_extreme() -> None:
    assert drift.signal("d", Drift(), {"a": moved(0, False), "b": moved(0.2, True)}).state is SignalState.WARN


def test_fires_at_once_on_a_sudden_drift() -> None:
    assert drift.signal("d", Drift(), {"a": moved(0, False), "b": moved(0.4, True)}).state is SignalState.FIRE


def test_is_quiet_again_once_the_newest_window_is() -> None:
    recent = {"a": moved(0.4, True), "b": moved(0.4, True), "c": moved(0, False)}
    assert drift.signal("d", Drift(), recent).state is SignalState.OK


def test_drift_in_a_feature_that_the_model_hardly_uses_only_warns() -> None:
    recent = {"a": moved(0.4, True), "b": moved(0.4, True)}
    assert drift.signal("d", Drift(), recent, {"dest": 0.001}).state is SignalState.WARN
    assert drift.signal("d", Drift(), recent, {"dest": 0.3}).state is SignalState.FIRE


def test_no_recent_window_is_unknown() -> None:
    assert drift.signal("d", Drift(), {}).state is SignalState.UNKNOWN
