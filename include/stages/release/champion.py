"""What the watch must know of the champion: its data, its encoding, and how it did on its test windows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.domain.features.encoding import Encoding
from include.domain.monitoring.performance import Measured, Scored, auc, logloss
from include.domain.windows import Grain, group_by_window, window_of
from include.ports.registry import Version

#: The layout of manifests that this code reads.
FORMAT = 1


@dataclass(frozen=True)
class Champion:
    """`ends` is the end of its newest window; `test` its scores on the test windows, `measured` its metrics there;
    `importance` the features' shares in what moves its scores."""

    version: str
    encoding: Encoding
    train_windows: tuple[str, ...]
    ends: datetime
    measured: Mapping[str, Measured]
    test: Scored | None
    importance: Mapping[str, float] | None


def load(version: Version, grain: Grain) -> Champion:
    """From its artifact's manifest. Raises Corrupt when a part is missing, damaged or of another format."""
    manifest = store.read(version.artifact)
    try:
        if manifest["format"] != FORMAT:
            raise Corrupt(f"{version.artifact.uri}: format {manifest['format']}; this code reads format {FORMAT}")
        folder = store.path_of(version.artifact.uri).parent
        encoding = Encoding.from_dict(store.part(folder / "manifest.json", manifest["files"], "encoding.json"))
        windows = manifest["windows"]
        newest = max(w for part in windows.values() for w in part)
        test, importance = _evaluated(version, folder.parent / "evaluation" / "evaluation.json", grain)
        return Champion(
            version.number, encoding, tuple(windows["train"]), window_of(newest, grain).end,
            _measured(manifest["metrics"]["test"], test), test, importance,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as fault:
        raise Corrupt(f"{version.artifact.uri}: not a manifest of format {FORMAT}: {fault!r}") from None


def scored(
    labels: NDArray[np.floating], scores: NDArray[np.floating], times: NDArray[np.int64], grain: Grain
) -> Scored:
    """`times`: epoch seconds `[n]`; the rows' windows follow from them."""
    windows, index = group_by_window(times, grain)
    return Scored(labels.astype(np.float64), scores.astype(np.float64), index, windows)


def _evaluated(version: Version, path: Path, grain: Grain) -> tuple[Scored | None, Mapping[str, float] | None]:
    """Scores of the test windows and the features' importance; None each for a version without an evaluation."""
    if "evaluation" not in version.tags:
        return None, None
    record = store.read(Reference(str(path), version.tags["evaluation"]))
    store.check_files(path, record["files"])
    with np.load(path.with_name("scores.npz"), allow_pickle=False) as kept:
        return scored(kept["labels"], kept["challenger"], kept["times"], grain), record["importance"] or None


def _measured(metrics: Mapping[str, float], test: Scored | None) -> dict[str, Measured]:
    """With the error that the test windows themselves have, where their scores are kept."""
    if test is not None and test.both_classes:
        return {"logloss": logloss(test), "auc": auc(test)}
    return {name: Measured(float(metrics[name]), 0.0, 1) for name in ("logloss", "auc")}
