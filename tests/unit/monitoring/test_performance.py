"""Live performance: worse for sure, or not known."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from include.domain.monitoring import performance
from include.domain.monitoring.performance import LabelledScores, MetricWithError, Performance
from include.domain.monitoring.signal import SignalState

RULES = Performance()


def scored(rows: int = 4000, seed: int = 0, noise: float = 0.0, tilt: float = 0.0, windows: int = 7) -> LabelledScores:
    """Calibrated scores; `noise` spoils their order, `tilt` their level (both in log-odds)."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1, 1, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)
    scores = 1 / (1 + np.exp(-(truth + noise * random.normal(size=rows) + tilt)))
    names = tuple(f"2013-06-{i + 1:02d}" for i in range(windows))
    return LabelledScores(labels, scores, np.arange(rows) % windows, names)


def measured(s: LabelledScores) -> dict[str, MetricWithError]:
    return {"logloss": performance.logloss(s), "auc": performance.auc(s)}


def test_values_agree_with_scikit_learn_ties_included() -> None:
    s = scored()
    rounded = LabelledScores(s.labels, s.scores.round(1).clip(0.1, 0.9), s.window, s.windows)
    assert performance.auc(rounded).value == pytest.approx(roc_auc_score(rounded.labels, rounded.scores))
    assert performance.logloss(rounded).value == pytest.approx(log_loss(rounded.labels, rounded.scores))


def test_the_auc_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = performance.auc(scored(400_000, seed=999)).value
    intervals = [performance.auc(scored(800, seed=i)).interval(0.9) for i in range(200)]
    assert 0.84 < np.mean([low <= truth <= high for low, high in intervals]) < 0.96


def test_windows_that_differ_widen_the_interval() -> None:
    s = scored()
    stormy = np.where(s.window == 3, 1.0, s.labels)
    assert (
        performance.logloss(LabelledScores(stormy, s.scores, s.window, s.windows)).standard_error
        > 2 * performance.logloss(s).standard_error
    )


def test_a_live_model_as_good_as_in_its_test_is_ok() -> None:
    found = performance.signals(RULES, scored(seed=1), measured(scored(seed=2)))
    assert [s.state for s in found] == [SignalState.OK] * 3


def test_concept_drift_fires_with_its_numbers_and_is_invisible_without_labels() -> None:
    spoiled = scored(seed=1)
    flipped = np.where(np.random.default_rng(0).random(len(spoiled)) < 0.25, 1 - spoiled.labels, spoiled.labels)
    live = LabelledScores(flipped, spoiled.scores, spoiled.window, spoiled.windows)
    test = measured(scored(seed=2))
    states = {s.name: s for s in performance.signals(RULES, live, test)}
    assert states["logloss"].state is SignalState.FIRE
    assert states["auc"].state is SignalState.FIRE
    assert "on 4,000 predictions of 2013-06-01 to 2013-06-07" in states["logloss"].sentence
    assert performance.expected_auc(live.scores) == pytest.approx(test["auc"].value, abs=0.02)


def test_a_tilted_model_keeps_its_auc_and_loses_its_calibration() -> None:
    states = {s.name: s.state for s in performance.signals(RULES, scored(seed=1, tilt=1), measured(scored(seed=2)))}
    assert (states["auc"], states["calibration"]) == (SignalState.OK, SignalState.FIRE)


def test_a_large_difference_on_little_evidence_only_warns() -> None:
    test = measured(scored(seed=2))
    found = performance.signals(Performance(min_rows=50), scored(120, seed=3, noise=0.9), test)
    assert SignalState.FIRE not in {s.state for s in found}
    assert SignalState.WARN in {s.state for s in found}


def estimate(spread: float, rows: int) -> SignalState:
    """Of scores whose log-odds spread so far, against the test's AUC of scores that spread by 1."""
    random = np.random.default_rng(5)
    scores = 1 / (1 + np.exp(-random.normal(-1, spread, rows)))
    test = MetricWithError(performance.expected_auc(1 / (1 + np.exp(-random.normal(-1, 1, 50_000)))), 0.004, 13)
    return performance.estimated_auc(RULES, scores, np.arange(rows) % 7, tuple("abcdefg"), test).state


@pytest.mark.parametrize(
    ("spread", "rows", "state"),
    [
        (1.0, 4000, SignalState.OK),
        (0.85, 700, SignalState.WARN),
        (0.3, 4000, SignalState.FIRE),
        (0.3, 100, SignalState.UNKNOWN),
    ],
)
def test_scores_that_tell_rows_less_apart_promise_less_before_any_label_is_due(
    spread: float, rows: int, state: SignalState
) -> None:
    assert estimate(spread, rows) is state


def test_a_gap_between_scores_and_labels_on_little_evidence_only_warns() -> None:
    found = performance.signals(Performance(min_rows=50), scored(150, seed=4, tilt=0.2), measured(scored(seed=2)))
    assert found[2].state is SignalState.WARN


def test_too_few_labels_or_one_class_alone_is_unknown() -> None:
    test = measured(scored(seed=2))
    few = performance.signals(RULES, scored(100), test)
    assert {s.state for s in few} == {SignalState.UNKNOWN}
    assert "100 predictions with due labels" in few[0].sentence
    s = scored()
    one = performance.signals(RULES, LabelledScores(np.zeros(len(s)), s.scores, s.window, s.windows), test)
    assert {x.state for x in one} == {SignalState.UNKNOWN}


def test_calibrated_scores_promise_the_auc_and_logloss_that_come_true() -> None:
    s = scored(50_000)
    assert performance.expected_auc(s.scores) == pytest.approx(performance.auc(s).value, abs=0.01)
    assert performance.expected_logloss(s.scores) == pytest.approx(performance.logloss(s).value, abs=0.01)


def test_arms_live_at_once_are_compared_with_intervals() -> None:
    worse, better = scored(seed=1, noise=1.0), scored(seed=2)
    found = performance.compare_variants(worse, better)
    low, high = found["logloss"].interval(0.95)
    assert 0 < low < found["logloss"].value < high
    low, high = found["auc"].interval(0.95)
    assert low < found["auc"].value < high < 0


def test_a_window_that_is_hard_for_both_arms_does_not_blur_their_difference() -> None:
    random = np.random.default_rng(3)
    window = np.arange(20_000) // 2000
    chance = np.where(window % 2, 0.45, 0.05)
    arms = [
        LabelledScores((random.random(20_000) < chance).astype(float), np.full(20_000, s), window, tuple("abcdefghij"))
        for s in (0.2, 0.3)
    ]
    apart = np.hypot(*(performance.logloss(arm).standard_error for arm in arms))
    assert performance.compare_variants(*arms)["logloss"].standard_error < 0.5 * apart
