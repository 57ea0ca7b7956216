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
from include.domain.monitoring.performance import LabelledScores, MetricEstimate, auc, logloss
from include.domain.windows import Grain, group_by_window, window_of
from include.ports.registry import Version


@dataclass(frozen=True)
class Champion:
    """The champion's artifact and evaluation.

    `ends` is the end of the newest window it was made from. `measured` are its metrics on the test windows; `test` has its
    scores there and `importance` the features' shares in what moves its scores, None each for a version that was not evaluated.
    """

    version: str
    encoding: Encoding
    train_windows: tuple[str, ...]
    ends: datetime
    measured: Mapping[str, MetricEstimate]
    test: LabelledScores | None
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
            ends=window_of(max(manifest.windows.all), grain).end,
            measured=_measured(manifest.metrics.test, test),
            test=test,
            importance=importance,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{version.artifact.uri}: its files are not those of a model: {error!r}") from None


def scored(
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
        test = scored(arrays["labels"], arrays["challenger"], arrays["times"], grain)
    return test, record.importance or None


def _measured(metrics: ScoreMetrics, test: LabelledScores | None) -> dict[str, MetricEstimate]:
    """Return logloss and AUC, with their errors where the scores of the test windows are there to tell."""
    if test is not None and test.both_classes:
        return {"logloss": logloss(test), "auc": auc(test)}
    return {"logloss": MetricEstimate(metrics.logloss, 0.0, 1), "auc": MetricEstimate(metrics.auc, 0.0, 1)}
