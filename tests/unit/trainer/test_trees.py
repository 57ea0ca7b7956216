"""LightGBM's trees as a graph: the same scores, also where rounding or a missing value could send a row astray."""

import lightgbm
import numpy as np
import onnxruntime
import pytest

from include.trainer.process import StopSignal
from include.trainer.run import run
from include.trainer.trees import onnx_trees
from include.trainer.trees.onnx_trees import float32_at_most
from tests.small_dataset import job, write_dataset


def scores_of(graph: bytes, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["score"], {"ids": ids.astype(np.int64), "numbers": numbers})[0]


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_graph_scores_as_lightgbm_does(missing):
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

    # also values never seen in training: an id beyond all, a missing number where there was none, zero, and the extremes
    strange = np.array([[999, 5, np.nan, 0.0], [0, 1, 1e30, -1e30], [3, 3, 0.0, np.nan]], dtype=np.float32)
    for rows in (table, strange):
        found = scores_of(graph, rows[:, :2].astype(np.int64), rows[:, 2:])
        assert found == pytest.approx(booster.predict(rows), abs=1e-5)


def test_trees_that_found_nothing_give_the_base_rate():
    labels = np.tile([0.0, 1.0, 0.0, 0.0], 50)
    data = lightgbm.Dataset(np.zeros((200, 2), dtype=np.float32), labels)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 5)
    graph = onnx_trees.graph(booster.dump_model(), 1, 1)
    rows = np.zeros((3, 1))
    assert scores_of(graph, rows, rows.astype(np.float32)) == pytest.approx([0.25] * 3, abs=1e-5)


def test_thresholds_are_rounded_down_to_float32():
    between = 30.78999996185303  # float32(30.79) is above it
    assert float32_at_most(between) < between < float(np.float32(30.79))
    assert float32_at_most(0.5) == 0.5
    assert float32_at_most(1.7e308) == float(np.finfo(np.float32).max)


@pytest.mark.parametrize(("rows", "used"), [(1000, False), (4000, True)])
def test_trees_split_on_categories_of_which_they_see_enough_rows(tmp_path, rows, used):
    """`shop` has 12 categories and decides much; of 83 rows each the trees would remember the rows."""
    given = job(write_dataset(tmp_path / "dataset", train=rows), tmp_path / "out", "lightgbm")
    run(given, StopSignal())
    shop = lightgbm.Booster(model_file=given.out / "model.txt").feature_importance()[0]
    assert (shop > 0) == used
