"""Metrics with their errors, against scikit-learn and against the textbook's formulas."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, rankdata
from sklearn.metrics import log_loss, roc_auc_score
from statsmodels.stats.multitest import multipletests

from include.domain import metrics, statistics
from include.domain.monitoring import distance
from include.domain.statistics import Estimate

RANDOM = np.random.default_rng(5)


Floats = NDArray[np.float64]


def labels_and_scores(rows: int, positives: float = 0.2) -> tuple[Floats, Floats, Floats]:
    """Return labels and the scores of two models, which know the truth up to a noise of their own."""
    logit = RANDOM.normal(np.log(positives / (1 - positives)), 1, rows)
    labels = RANDOM.random(rows) < 1 / (1 + np.exp(-logit))
    a, b = (1 / (1 + np.exp(-logit - RANDOM.normal(0, 0.5, rows))) for _ in range(2))
    return labels.astype(float), a, b


def test_metrics_agree_with_scikit_learn_and_with_the_trainers() -> None:
    labels, scores, _ = labels_and_scores(3000)
    scores = np.round(scores, 2).clip(0.01, 0.99)  # with ties
    assert statistics.auc(labels, scores).value == pytest.approx(roc_auc_score(labels, scores))
    assert statistics.logloss(labels, scores).value == pytest.approx(log_loss(labels, scores))
    assert statistics.ece(labels, scores).value == pytest.approx(metrics.ece(labels, scores))


def test_auc_error_is_delongs() -> None:
    labels, a, b = labels_and_scores(300)
    difference = statistics.auc(labels, a) - statistics.auc(labels, b)
    ones, zeros = labels == 1, labels == 0

    def placements(scores: Floats) -> tuple[Floats, Floats]:
        wins = (scores[ones][:, None] > scores[zeros]) + 0.5 * (scores[ones][:, None] == scores[zeros])
        return wins.mean(1), wins.mean(0)

    (a1, a0), (b1, b0) = placements(a), placements(b)
    delong = np.var(a1 - b1, ddof=1) / ones.sum() + np.var(a0 - b0, ddof=1) / zeros.sum()
    assert difference.standard_error()[0] == pytest.approx(np.sqrt(delong), rel=0.01)


def test_auc_of_one_class_says_so() -> None:
    with pytest.raises(ValueError, match="both classes; there are 0 positives"):
        statistics.auc(np.zeros(5), np.linspace(0, 1, 5))


@pytest.mark.parametrize("rows", [500, 20_000])
def test_bootstrap_agrees_with_student_where_that_is_right(rows: int) -> None:
    values = statistics.mean(RANDOM.normal(0.3, 1, rows))
    low, high = values.bootstrap_t_interval(0.95, seed=1)
    expected = values.interval(0.95)
    assert (low, high) == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
    assert values.bootstrap_t_interval(0.95, seed=1) == (low, high)


def test_bootstrap_leans_to_the_long_tail() -> None:
    """Losses are skewed; an interval of normal shape would promise too small an upper limit."""
    losses = statistics.mean(RANDOM.exponential(1, 60) ** 2)
    low, high = losses.bootstrap_t_interval(0.95, seed=1)
    assert high - losses.value > 1.3 * (losses.value - low)


def test_identical_models_differ_by_nothing() -> None:
    labels, scores, _ = labels_and_scores(1000)
    assert (statistics.logloss(labels, scores) - statistics.logloss(labels, scores)).bootstrap_t_interval(
        0.95, seed=1
    ) == (0, 0)


@pytest.mark.parametrize("how", ["interval", "bootstrap_t"])
def test_rows_of_one_group_count_as_one(how: str) -> None:
    days = np.repeat(np.arange(30), 100)
    values = statistics.mean(np.repeat(RANDOM.normal(0, 1, 30), 100))

    def width(groups: NDArray[np.intp] | None) -> float:
        low, high = values.interval(0.95, groups) if how == "interval" else values.bootstrap_t_interval(0.95, 1, groups)
        return high - low

    assert width(days) > 7 * width(None)


def test_one_group_gives_an_unbounded_interval() -> None:
    assert Estimate(0.1, np.zeros(4)).interval(0.95, groups=[1, 1, 1, 1]) == (-np.inf, np.inf)


def test_holm_steps_down() -> None:
    assert statistics.holm_adjusted([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm_adjusted([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert statistics.holm_adjusted([]).tolist() == []


def test_p_value_halves_at_the_bound() -> None:
    values = statistics.mean(RANDOM.normal(1, 1, 400))
    assert statistics.p_value_above(values, values.value) == pytest.approx(0.5)
    assert statistics.p_value_above(values, 0.5) < 1e-6
    assert statistics.p_value_above(statistics.mean(np.ones(9)), 1.0) == 1.0


def test_what_is_written_here_is_what_the_libraries_compute() -> None:
    """They are not called in production, because importing them costs a process half a second or more."""
    for number in range(50):
        p_values = np.round(RANDOM.random(RANDOM.integers(1, 60)) ** RANDOM.integers(1, 6), RANDOM.integers(2, 9))
        rate = float(RANDOM.choice([0.01, 0.05, 0.2]))
        assert (
            distance.benjamini_hochberg(p_values.tolist(), rate) == (false_discovery_control(p_values) <= rate).tolist()
        )
        assert np.array_equal(metrics.midranks(p_values), rankdata(p_values))
        if number < 3:  # it takes a tenth of a second
            assert np.array_equal(statistics.holm_adjusted(p_values), multipletests(p_values, method="holm")[1])
