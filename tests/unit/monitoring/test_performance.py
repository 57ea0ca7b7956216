"""Live performance: certainly worse, or unknown."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from include.domain.monitoring import performance
from include.domain.monitoring.performance import LabelledScores, MetricWithError, Performance
from include.domain.monitoring.signal import SignalState

RULES = Performance()


def labelled_scores(
    rows: int = 4000, seed: int = 0, noise: float = 0.0, tilt: float = 0.0, windows: int = 7
) -> LabelledScores:
    """Return calibrated scores; `noise` spoils their order and `tilt` their level, both in log-odds."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1, 1, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-truth))).astype(float)
    scores = 1 / (1 + np.exp(-(truth + noise * random.normal(size=rows) + tilt)))
    names = tuple(f"2013-06-{i + 1:02d}" for i in range(windows))
    return LabelledScores(labels, scores, np.arange(rows) % windows, names)


def metrics_of(s: LabelledScores) -> dict[str, MetricWithError]:
    return {"logloss": performance.logloss(s), "auc": performance.auc(s)}


def test_values_agree_with_scikit_learn_ties_included() -> None:
    s = labelled_scores()
    rounded = LabelledScores(s.labels, s.scores.round(1).clip(0.1, 0.9), s.window, s.windows)
    assert performance.auc(rounded).value == pytest.approx(roc_auc_score(rounded.labels, rounded.scores))
    assert performance.logloss(rounded).value == pytest.approx(log_loss(rounded.labels, rounded.scores))


def test_the_auc_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = performance.auc(labelled_scores(400_000, seed=999)).value
    intervals = [performance.auc(labelled_scores(800, seed=i)).interval(0.9) for i in range(200)]
    assert 0.84 < np.mean([lower <= truth <= upper for lower, upper in intervals]) < 0.96


def test_windows_that_differ_widen_the_interval() -> None:
    s = labelled_scores()
    stormy = np.where(s.window == 3, 1.0, s.labels)
    assert (
        performance.logloss(LabelledScores(stormy, s.scores, s.window, s.windows)).standard_error
        > 2 * performance.logloss(s).standard_error
    )


def test_a_live_model_as_good_as_in_its_test_is_ok() -> None:
    signals = performance.signals(RULES, labelled_scores(seed=1), metrics_of(labelled_scores(seed=2)))
    assert [s.state for s in signals] == [SignalState.OK] * 3


def test_concept_drift_fires_with_its_numbers_and_is_invisible_without_labels() -> None:
    answered = labelled_scores(seed=1)
    flipped = np.where(np.random.default_rng(0).random(len(answered)) < 0.25, 1 - answered.labels, answered.labels)
    live = LabelledScores(flipped, answered.scores, answered.window, answered.windows)
    test = metrics_of(labelled_scores(seed=2))
    states = {s.name: s for s in performance.signals(RULES, live, test)}
    assert states["logloss"].state is SignalState.FIRE
    assert states["auc"].state is SignalState.FIRE
    assert "on 4,000 predictions of 2013-06-01 to 2013-06-07" in states["logloss"].sentence
    assert performance.expected_auc(live.scores) == pytest.approx(test["auc"].value, abs=0.02)


def test_a_tilted_model_keeps_its_auc_and_loses_its_calibration() -> None:
    states = {
        s.name: s.state
        for s in performance.signals(RULES, labelled_scores(seed=1, tilt=1), metrics_of(labelled_scores(seed=2)))
    }
    assert (states["auc"], states["calibration"]) == (SignalState.OK, SignalState.FIRE)


def test_a_large_difference_on_little_evidence_only_warns() -> None:
    test = metrics_of(labelled_scores(seed=2))
    signals = performance.signals(Performance(min_rows=50), labelled_scores(120, seed=3, noise=0.9), test)
    assert SignalState.FIRE not in {s.state for s in signals}
    assert SignalState.WARN in {s.state for s in signals}


def estimated_auc_state(spread: float, rows: int) -> SignalState:
    """Return the state for scores whose log-odds spread so far, against the AUC of test scores that spread by 1."""
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
    assert estimated_auc_state(spread, rows) is state


def test_a_gap_between_scores_and_labels_on_little_evidence_only_warns() -> None:
    signals = performance.signals(
        Performance(min_rows=50), labelled_scores(150, seed=4, tilt=0.2), metrics_of(labelled_scores(seed=2))
    )
    assert signals[2].state is SignalState.WARN


def test_too_few_labels_or_one_class_alone_is_unknown() -> None:
    test = metrics_of(labelled_scores(seed=2))
    few = performance.signals(RULES, labelled_scores(100), test)
    assert {s.state for s in few} == {SignalState.UNKNOWN}
    assert "100 predictions with due labels" in few[0].sentence
    s = labelled_scores()
    one = performance.signals(RULES, LabelledScores(np.zeros(len(s)), s.scores, s.window, s.windows), test)
    assert {x.state for x in one} == {SignalState.UNKNOWN}


def test_calibrated_scores_promise_the_auc_and_logloss_that_come_true() -> None:
    s = labelled_scores(50_000)
    assert performance.expected_auc(s.scores) == pytest.approx(performance.auc(s).value, abs=0.01)
    assert performance.expected_logloss(s.scores) == pytest.approx(performance.logloss(s).value, abs=0.01)


def test_variants_live_at_once_are_compared_with_intervals() -> None:
    worse, better = labelled_scores(seed=1, noise=1.0), labelled_scores(seed=2)
    differences = performance.compare_variants(worse, better)
    lower, upper = differences["logloss"].interval(0.95)
    assert 0 < lower < differences["logloss"].value < upper
    lower, upper = differences["auc"].interval(0.95)
    assert lower < differences["auc"].value < upper < 0


def test_a_window_that_is_hard_for_both_variants_does_not_blur_their_difference() -> None:
    random = np.random.default_rng(3)
    window = np.arange(20_000) // 2000
    chance = np.where(window % 2, 0.45, 0.05)
    a, b = (
        LabelledScores((random.random(20_000) < chance).astype(float), np.full(20_000, s), window, tuple("abcdefghij"))
        for s in (0.2, 0.3)
    )
    independent = np.hypot(performance.logloss(a).standard_error, performance.logloss(b).standard_error)
    assert performance.compare_variants(a, b)["logloss"].standard_error < 0.5 * independent
