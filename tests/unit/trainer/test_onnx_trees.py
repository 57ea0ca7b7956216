"""LightGBM's trees as a graph: the same scores, also where rounding or a missing value could send a row astray."""

import lightgbm
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from include.trainer.trees import onnx_trees
from include.trainer.trees.onnx_trees import float32_at_most


def score(graph: bytes, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the graph's scores of rows whose first half is ids and whose second half is numbers."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    ids, numbers = np.split(features, 2, axis=1)
    scores: NDArray[np.float32] = session.run(["score"], {"ids": ids.astype(np.int64), "numbers": numbers})[0]
    return scores


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_graph_scores_as_lightgbm_does(missing: float) -> None:
    random = np.random.default_rng(2)
    ids = random.integers(0, 60, (3000, 2)).astype(np.int32)
    numbers = np.round(random.normal(0, 3, (3000, 2)), 1).astype(np.float32)
    numbers[random.random(numbers.shape) < missing] = np.nan
    labels = (np.isin(ids[:, 0] % 7, (1, 4)) ^ (np.nan_to_num(numbers[:, 1]) > 1)).astype(np.float32)
    table = np.concatenate([ids.astype(np.float32), numbers], axis=1)
    data = lightgbm.Dataset(table, labels, categorical_feature=[0, 1])
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 10}, data, 30
    )
    graph = onnx_trees.graph(booster.dump_model(), 2, 2)

    # Also values that training lacks: an id beyond all, a missing number where there was none, zero, and the extremes
    strange = np.array([[999, 5, np.nan, 0.0], [0, 1, 1e30, -1e30], [3, 3, 0.0, np.nan]], dtype=np.float32)
    for rows in (table, strange):
        assert score(graph, rows) == pytest.approx(booster.predict(rows), abs=1e-5)


def test_trees_without_a_split_give_the_base_rate() -> None:
    labels = np.tile([0.0, 1.0, 0.0, 0.0], 50)
    data = lightgbm.Dataset(np.zeros((200, 2), dtype=np.float32), labels)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    graph = onnx_trees.graph(booster.dump_model(), 1, 1)
    assert score(graph, np.zeros((3, 2), dtype=np.float32)) == pytest.approx([0.25] * 3, abs=1e-5)


def test_thresholds_are_rounded_down_to_float32() -> None:
    between = 30.78999996185303  # float32(30.79) is above it
    assert float32_at_most(between) < between < float(np.float32(30.79))
    assert float32_at_most(0.5) == 0.5
    assert float32_at_most(1.7e308) == float(np.finfo(np.float32).max)
