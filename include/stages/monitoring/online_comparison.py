"""Online comparison: versions that answered different requests of the same windows, on labels that are due."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.domain.monitoring import performance
from include.domain.monitoring.performance import LabelledScores
from include.domain.monitoring.signal import describe_windows
from include.ports.tables import Tables
from include.ports.traffic import Signals
from include.spec.model_spec import ModelSpec
from include.stages.serving import live_predictions
from include.stages.serving.live_predictions import VersionPredictions

CONFIDENCE = 0.95
#: A value with the ends of its interval.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """Two versions live at once: `metrics` of `version` less those of `other`; `rows` of either, of the windows in `span`."""

    version: str
    other: str
    span: str
    rows: tuple[int, int]
    metrics: Mapping[str, Interval]


def compare(spec: ModelSpec, *, tables: Tables, signals: Signals, champion: str, as_of: datetime, last: int
            ) -> list[Comparison]:  # fmt: skip
    """Every other version against the champion, the newest first; none that was only mirrored, or has no labels yet.

    A request that both answered was mirrored, and counts for neither.
    """
    rows = live_predictions.logged(signals, spec.name, as_of)
    others = sorted(set(rows["version"].unique().to_pylist()) - {champion}, key=lambda v: (len(v), v), reverse=True)
    mine = live_predictions.of_version(rows, champion)
    landed = tables.windows("landed")
    found = []
    for other in others:
        theirs = live_predictions.of_version(rows, other)
        scored = [
            live_predictions.labelled(spec, tables, _without(arm, mirrored), landed, as_of, last=last)
            for arm, mirrored in ((theirs, mine.keys), (mine, theirs.keys))
        ]
        if comparison := _comparison(spec, (other, champion), *_shared(*scored)):
            found.append(comparison)
    return found


def _comparison(spec: ModelSpec, versions: tuple[str, str], a: LabelledScores, b: LabelledScores) -> Comparison | None:
    if min(len(a), len(b)) < spec.watch.performance.min_rows or not (a.both_classes and b.both_classes):
        return None
    differences = performance.compare_variants(a, b)
    metrics = {name: (m.value, *m.interval(CONFIDENCE)) for name, m in differences.items()}
    return Comparison(*versions, describe_windows(a.windows), (len(a), len(b)), metrics)


def _without(arm: VersionPredictions, keys: pa.Array) -> VersionPredictions:
    own = np.flatnonzero(~pc.is_in(arm.keys, value_set=keys).to_numpy(zero_copy_only=False))
    return VersionPredictions(
        arm.keys.take(pa.array(own)), arm.scores[own], arm.times[own], arm.features.take(pa.array(own))
    )


def _shared(a: LabelledScores, b: LabelledScores) -> tuple[LabelledScores, LabelledScores]:
    """The rows of both in the windows that both have, in order."""
    windows = tuple(w for w in a.windows if w in b.windows)
    return _within(a, windows), _within(b, windows)


def _within(scored: LabelledScores, windows: tuple[str, ...]) -> LabelledScores:
    place = np.array([windows.index(w) if w in windows else -1 for w in scored.windows], dtype=np.intp)[scored.window]
    kept = place >= 0
    return LabelledScores(scored.labels[kept], scored.scores[kept], place[kept], windows)
