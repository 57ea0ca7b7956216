"""LightGBM: gradient-boosted trees on the same ids and numbers, as one ONNX graph with the same inputs and output."""

import ctypes
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.trainer.data.dataset import Dataset
from include.trainer.export.trained_model import Fitted
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
        places = torch.submodule_search_locations if torch else None
        if not places:
            raise
        ctypes.CDLL(str(Path(places[0]) / "lib" / OPENMP))


_load_openmp()
import lightgbm  # noqa: E402 - it links the runtime that was just loaded

ROUNDS = 400
PATIENCE = 50  #: rounds without a lower logloss on the validate windows before growing ends
#: Small steps, shared leaves and smoothed categories: few positives a day make large trees remember days, not causes.
PARAMETERS = {
    "objective": "binary", "metric": "binary_logloss", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 100,
    "feature_fraction": 0.7, "bagging_fraction": 0.8, "bagging_freq": 1, "cat_smooth": 50, "cat_l2": 20,
    "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
#: A field with fewer train rows a category is left out of the trees, which would remember those rows. On flights the tail
#: number and the flight number cost them .008 of logloss in the months after; embeddings, which decay, gain from both.
ROWS_PER_CATEGORY = 300


def fit(job: Job, data: Dataset, tracker: Tracker, folder: Path) -> Fitted:
    """Grow trees until the validate windows gain no more; their files go into the folder."""
    categorical = data.train.ids.shape[1]
    train = lightgbm.Dataset(table(told_apart(data.train.ids), data.train.numbers), data.train.labels,
                             weight=data.train.weights, categorical_feature=list(range(categorical)))  # fmt: skip
    validate = train.create_valid(table(data.validate.ids, data.validate.numbers), data.validate.labels)
    began = time.monotonic()
    booster = lightgbm.train(
        {**PARAMETERS, "seed": job.seed, "num_threads": arithmetic_threads(job.training)}, train, ROUNDS, valid_sets=[validate],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), _progress(tracker)],
    )  # fmt: skip
    seconds = time.monotonic() - began
    rounds = booster.current_iteration()
    weights, graph = folder / "model.txt", folder / "lightgbm.onnx"
    weights.write_text(booster.model_to_string(num_iteration=booster.best_iteration), encoding="utf-8")
    graph.write_bytes(onnx_trees.graph(booster.dump_model(), categorical, data.train.numbers.shape[1]))
    scores = np.asarray(booster.predict(table(data.test.ids, data.test.numbers)), dtype=np.float64)
    return Fitted([weights], graph, scores, seconds, len(data.train) * rounds / max(seconds, 1e-9))


def told_apart(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ids `[n, C]`, all 0, so that no tree splits on them, in fields with fewer than `ROWS_PER_CATEGORY` rows a category."""
    categories = np.array([len(np.unique(field)) for field in ids.T])
    return np.where(categories * ROWS_PER_CATEGORY <= len(ids), ids, 0).astype(np.int32)


def table(ids: NDArray[np.int32], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ids and numbers side by side, float32 `[n, C + N]`; exact for ids below 2²⁴."""
    return np.concatenate([ids.astype(np.float32), numbers], axis=1)


def _progress(tracker: Tracker) -> Any:
    def after(round_: lightgbm.callback.CallbackEnv) -> None:
        if (round_.iteration + 1) % PATIENCE == 0:
            results: Any = round_.evaluation_result_list
            loss = results[0][2]
            tracker.say(f"round {round_.iteration + 1}/{round_.end_iteration} validate logloss {loss:.4f}")
            tracker.metrics({"validate_logloss": loss}, round_.iteration + 1)

    return after
