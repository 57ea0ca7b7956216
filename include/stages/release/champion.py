"""The champion as monitoring compares with it: its data, its encoding, and how good it was on its test windows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import ModelManifest, ScoreMetrics
from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.domain.features.encoding import Encoding
from include.domain.monitoring.performance import LabelledScores, MetricWithError, auc, logloss
from include.domain.windows import Grain, group_by_window, window_of
from include.ports.registry import Version


@dataclass(frozen=True)
class Champion:
    """The champion's artifact and evaluation.

    `data_ends` is the end of the newest window it was made from. `test_metrics` are its logloss and AUC on the test windows;
    `test_scores` are its scores there and `importance` is each feature's share in what moves its scores, None each for a
    version that was not evaluated.
    """

    version: str
    encoding: Encoding
    train_windows: tuple[str, ...]
    data_ends: datetime
    test_metrics: Mapping[str, MetricWithError]
    test_scores: LabelledScores | None
    importance: Mapping[str, float] | None


def load(version: Version, grain: Grain) -> Champion:
    """Return the champion that this version is. Raises Corrupt when a part of its artifact is missing or damaged."""
    manifest, path = store.read(version.artifact, ModelManifest), store.path_of(version.artifact.uri)
    test, importance = _evaluation(version, path.parent.parent / "evaluation" / "evaluation.json", grain)
    try:
        return Champion(
            version=version.number,
            encoding=Encoding.from_dict(store.read_json(path, manifest.files, "encoding.json")),
            train_windows=manifest.windows.train,
            data_ends=window_of(max(manifest.windows.all), grain).end,
            test_metrics=_test_metrics(manifest.metrics.test, test),
            test_scores=test,
            importance=importance,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{version.artifact.uri}: its files are not those of a model: {error!r}") from None


def labelled_scores(
    labels: NDArray[np.floating], scores: NDArray[np.floating], times: NDArray[np.int64], grain: Grain
) -> LabelledScores:
    """Return labels and scores `[n]` with the windows that `times` `[n]`, epoch seconds, lie in."""
    windows, index = group_by_window(times, grain)
    return LabelledScores(labels.astype(np.float64), scores.astype(np.float64), index, windows)


def _evaluation(version: Version, path: Path, grain: Grain) -> tuple[LabelledScores | None, Mapping[str, float] | None]:
    """Return the scores of the test windows and the features' importance; None each for a version without an evaluation."""
    if "evaluation" not in version.tags:
        return None, None
    record = store.read(Reference(str(path), version.tags["evaluation"]), EvaluationRecord)
    store.check_files(path, record.files)
    with np.load(path.with_name("scores.npz"), allow_pickle=False) as arrays:
        test = labelled_scores(arrays["labels"], arrays["challenger"], arrays["times"], grain)
    return test, record.importance or None


def _test_metrics(metrics: ScoreMetrics, test: LabelledScores | None) -> dict[str, MetricWithError]:
    """Return logloss and AUC, with their errors where the scores of the test windows are there to tell."""
    if test is not None and test.both_classes:
        return {"logloss": logloss(test), "auc": auc(test)}
    return {"logloss": MetricWithError(metrics.logloss, 0.0, 1), "auc": MetricWithError(metrics.auc, 0.0, 1)}
