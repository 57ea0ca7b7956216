"""LightGBM: gradient-boosted trees on the same ids and numbers, as one ONNX graph with the same inputs and output."""

import ctypes
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.trainer.data.dataset import Dataset
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.process import arithmetic_threads
from include.trainer.tracking.tracker import Tracker
from include.trainer.trees import onnx_trees

OPENMP = "libgomp.so.1"


def _load_openmp() -> None:
    """Load the OpenMP runtime that LightGBM's wheel links: the system's, or on a bare Debian the one that torch brings along.

    Raises OSError where there is neither.
    """
    try:
        ctypes.CDLL(OPENMP)
    except OSError:
        torch = importlib.util.find_spec("torch")
        folders = torch.submodule_search_locations if torch else None
        if not folders:
            raise
        ctypes.CDLL(str(Path(folders[0]) / "lib" / OPENMP))


_load_openmp()
import lightgbm  # noqa: E402 - it links the runtime that was just loaded

MAX_ROUNDS = 400
PATIENCE = 50  #: rounds without a lower logloss on the validate windows before growing ends
#: Small steps, shared leaves and smoothed categories: few positives a day make large trees remember days, not causes.
PARAMETERS = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "cat_smooth": 50,
    "cat_l2": 20,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
#: A field with fewer train rows a category is left out of the trees, which would remember those rows. On flights the tail
#: number and the flight number cost them .008 of logloss in the months after; embeddings, which decay, gain from both.
ROWS_PER_CATEGORY = 300


def fit(job: Job, data: Dataset, tracker: Tracker, folder: Path) -> TrainedModel:
    """Grow trees until the validate windows gain no more, and write the model's files into the folder."""
    categorical, numeric = data.train.ids.shape[1], data.train.numbers.shape[1]
    train = lightgbm.Dataset(
        features(without_rare_categories(data.train.ids), data.train.numbers),
        data.train.labels,
        weight=data.train.weights,
        categorical_feature=list(range(categorical)),
    )
    validate = train.create_valid(features(data.validate.ids, data.validate.numbers), data.validate.labels)
    start = time.monotonic()
    booster = lightgbm.train(
        {**PARAMETERS, "seed": job.seed, "num_threads": arithmetic_threads(job.training)},
        train,
        MAX_ROUNDS,
        valid_sets=[validate],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), _log_progress(tracker)],
    )
    seconds = time.monotonic() - start
    weights, graph = folder / "model.txt", folder / "lightgbm.onnx"
    weights.write_text(booster.model_to_string(num_iteration=booster.best_iteration), encoding="utf-8")
    graph.write_bytes(onnx_trees.graph(booster.dump_model(), categorical, numeric))
    return TrainedModel(
        weights=[weights],
        graph=graph,
        test_scores=np.asarray(booster.predict(features(data.test.ids, data.test.numbers)), dtype=np.float64),
        seconds=seconds,
        samples_per_second=len(data.train) * booster.current_iteration() / max(seconds, 1e-9),
    )


def without_rare_categories(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return ids `[n, C]` that are all 0 in fields with fewer than `ROWS_PER_CATEGORY` rows a category.

    No tree splits on a field that has one value.
    """
    categories = np.array([len(np.unique(field)) for field in ids.T])
    return np.where(categories * ROWS_PER_CATEGORY <= len(ids), ids, 0).astype(np.int32)


def features(ids: NDArray[np.int32], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ids and numbers side by side, float32 `[n, C + N]`; exact for ids below 2²⁴."""
    return np.concatenate([ids.astype(np.float32), numbers], axis=1)


def _log_progress(tracker: Tracker) -> Callable[[lightgbm.callback.CallbackEnv], None]:
    """Return LightGBM's callback that logs the logloss of the validate windows every so many rounds."""

    def after_round(env: lightgbm.callback.CallbackEnv) -> None:
        if (env.iteration + 1) % PATIENCE == 0 and env.evaluation_result_list:
            logloss = env.evaluation_result_list[0][2]
            tracker.log(f"round {env.iteration + 1}/{env.end_iteration} validate logloss {logloss:.4f}")
            tracker.log_metrics({"validate_logloss": logloss}, env.iteration + 1)

    return after_round
