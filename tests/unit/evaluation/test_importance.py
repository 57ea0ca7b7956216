"""Importance: what moves the scores, and by how much."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from include.artifacts.store import Reference
from include.stages.evaluation import importance
from tests.fakes import FakeScorer

MODEL = Reference("model", "0")


def shares(columns: Mapping[str, Any]) -> dict[str, float]:
    def of(rows: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.nan_to_num(np.asarray(rows["x"])) * 3 / 8 + (np.asarray(rows["c"]) == "a") / 8

    return importance.shares(FakeScorer({"model": of}), MODEL, columns, list(columns), seed=1)


def test_a_column_has_its_part_in_how_far_the_scores_move_and_one_that_is_not_used_has_none() -> None:
    random = np.random.default_rng(1)
    found = shares({"x": random.integers(0, 2, 4000).astype(float), "c": random.choice(["a", "b"], 4000).tolist(),
                    "unused": random.normal(size=4000)})  # fmt: skip
    assert sum(found.values()) == pytest.approx(1)
    assert found["x"] == pytest.approx(0.75, abs=0.03)
    assert found["unused"] == 0


def test_columns_that_never_vary_have_no_importance() -> None:
    assert shares({"x": np.full(50, np.nan), "c": ["a"] * 50}) == {}
