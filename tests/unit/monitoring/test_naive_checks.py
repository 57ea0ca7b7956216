"""The naive checks compute what their names say."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from include.domain.monitoring import naive_checks
from include.domain.monitoring.naive_checks import Simple
from include.domain.monitoring.signal import SignalState
from include.domain.monitoring.sketch import sketch_ids, sketch_numbers

RULES = Simple(checks=("ks", "mean_score"))
KNOTS = np.linspace(-3, 3, 65).tolist()


def values(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, size=2000)


def test_the_p_value_is_that_of_the_test_on_the_rows_themselves() -> None:
    a, b = values(1), values(2, 0.06)
    p_value = naive_checks.ks_p_value(sketch_numbers(KNOTS, a), sketch_numbers(KNOTS, b))
    assert p_value == pytest.approx(ks_2samp(a, b, method="asymp").pvalue, rel=0.35)


def test_ks_fires_on_a_shift_of_any_number_and_passes_over_categories() -> None:
    reference = {
        "x": sketch_numbers(KNOTS, values(1)),
        "y": sketch_numbers(KNOTS, values(2)),
        "c": sketch_ids(3, np.array([2, 2])),
    }
    shifted = {
        "x": sketch_numbers(KNOTS, values(4)),
        "y": sketch_numbers(KNOTS, values(5, 0.3)),
        "c": sketch_ids(3, np.array([1, 1])),
    }
    assert naive_checks.ks(RULES, reference, reference, "w").state is SignalState.OK
    signal = naive_checks.ks(RULES, reference, shifted, "w")
    assert (signal.state, signal.sentence[:14]) == (SignalState.FIRE, "1 of 2 numbers")
    assert "y's" in signal.sentence


def test_a_window_without_a_known_number_does_not_pass_for_the_same() -> None:
    assert naive_checks.ks(RULES, {}, {}, "w").state is SignalState.UNKNOWN


@pytest.mark.parametrize(
    ("now", "state"), [(0.109, SignalState.OK), (0.111, SignalState.FIRE), (0.089, SignalState.FIRE)]
)
def test_the_mean_score_may_move_by_a_tenth(now: float, state: SignalState) -> None:
    assert naive_checks.mean_score(RULES, now, 0.1, ("w",)).state is state
