"""Importance: what moves the scores, and by how much."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from include.artifacts.store import Reference
from include.stages.evaluation import importance
from tests.fakes import FakeScorer

MODEL = Reference("model", "0")


def shares(columns: Mapping[str, Any]) -> dict[str, float]:
    def score(rows: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.asarray(np.nan_to_num(np.asarray(rows["x"])) * 3 / 8 + (np.asarray(rows["c"]) == "a") / 8)

    return importance.shares(FakeScorer({"model": score}), MODEL, columns, list(columns), seed=1)


def test_a_columns_share_is_how_far_it_moves_the_scores_and_an_unused_one_has_none() -> None:
    random = np.random.default_rng(1)
    columns = {
        "x": random.integers(0, 2, 4000).astype(float),
        "c": random.choice(["a", "b"], 4000).tolist(),
        "unused": random.normal(size=4000),
    }
    importances = shares(columns)
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["x"] == pytest.approx(0.75, abs=0.03)
    assert importances["unused"] == 0


def test_columns_that_never_vary_have_no_importance() -> None:
    assert shares({"x": np.full(50, np.nan), "c": ["a"] * 50}) == {}
