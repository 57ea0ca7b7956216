"""The metrics against their definitions and scikit-learn's."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from include.domain import metrics

Floats = NDArray[np.float64]


@pytest.fixture
def labels_and_scores() -> tuple[Floats, Floats]:
    random = np.random.default_rng(1)
    scores = np.round(random.random(500), 2)  # rounded, so that there are ties
    return (random.random(500) < scores).astype(float), scores


def test_auc_counts_ties_as_half(labels_and_scores: tuple[Floats, Floats]) -> None:
    assert metrics.auc(*labels_and_scores) == pytest.approx(roc_auc_score(*labels_and_scores), abs=1e-12)


def test_auc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(metrics.auc([1, 1], [0.2, 0.4]))


def test_logloss_is_the_mean_surprise(labels_and_scores: tuple[Floats, Floats]) -> None:
    labels, scores = labels_and_scores
    assert metrics.logloss(labels, scores) == pytest.approx(log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7)), abs=1e-9)


def test_logloss_of_a_certain_mistake_is_finite() -> None:
    assert metrics.logloss([1.0], [0.0]) == pytest.approx(-math.log(1e-7))


def test_ece_is_the_gap_where_all_scores_are_off_by_the_same() -> None:
    labels = np.tile([0.0, 1.0], 300)
    assert metrics.ece(labels, np.full(600, 0.8)) == pytest.approx(0.3)
    assert metrics.ece(labels, np.full(600, 0.5)) == pytest.approx(0.0)
