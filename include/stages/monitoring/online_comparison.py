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
from include.spec.model_spec import ModelSpec
from include.stages.monitoring.services import MonitoringServices
from include.stages.serving import live_predictions
from include.stages.serving.live_predictions import VersionPredictions

CONFIDENCE = 0.95
#: An estimate with the lower and upper end of its interval.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class VersionComparison:
    """Two versions that were live at once.

    `differences` has the metrics of `version` less those of `champion`. `rows` are the labelled rows of either, and `windows`
    describes the windows that both have.
    """

    version: str
    champion: str
    windows: str
    rows: tuple[int, int]
    differences: Mapping[str, Interval]


def compare_versions(
    spec: ModelSpec, services: MonitoringServices, champion: str, as_of: datetime, *, last: int
) -> list[VersionComparison]:
    """Return the comparison of every other version with the champion over the `last` windows, the newest version first.

    A request that both answered was mirrored and counts for neither; a version that was only mirrored, or has too few labels
    yet, is left out.
    """
    logged = live_predictions.logged_before(services.signals, spec.name, as_of)
    others = sorted(set(logged["version"].unique().to_pylist()) - {champion}, key=lambda v: (len(v), v), reverse=True)
    of_champion = live_predictions.of_version(logged, champion)
    landed = services.tables.windows("landed")
    comparisons = []
    for other in others:
        of_other = live_predictions.of_version(logged, other)
        labelled = [
            live_predictions.labelled(spec, services.tables, _without(variant, mirrored), landed, as_of, last=last)
            for variant, mirrored in ((of_other, of_champion.keys), (of_champion, of_other.keys))
        ]
        if comparison := _comparison(spec, (other, champion), *_in_shared_windows(*labelled)):
            comparisons.append(comparison)
    return comparisons


def _comparison(
    spec: ModelSpec, versions: tuple[str, str], a: LabelledScores, b: LabelledScores
) -> VersionComparison | None:
    if min(len(a), len(b)) < spec.watch.performance.min_rows or not (a.both_classes and b.both_classes):
        return None
    metrics = performance.compare_variants(a, b)
    differences = {name: (metric.value, *metric.interval(CONFIDENCE)) for name, metric in metrics.items()}
    return VersionComparison(*versions, describe_windows(a.windows), (len(a), len(b)), differences)


def _without(variant: VersionPredictions, keys: pa.Array) -> VersionPredictions:
    """Return the predictions whose key is not among the keys."""
    rows = np.flatnonzero(~pc.is_in(variant.keys, value_set=keys).to_numpy(zero_copy_only=False))
    index = pa.array(rows)
    return VersionPredictions(
        variant.keys.take(index), variant.scores[rows], variant.times[rows], variant.features.take(index)
    )


def _in_shared_windows(a: LabelledScores, b: LabelledScores) -> tuple[LabelledScores, LabelledScores]:
    windows = tuple(w for w in a.windows if w in b.windows)
    return _in_windows(a, windows), _in_windows(b, windows)


def _in_windows(rows: LabelledScores, windows: tuple[str, ...]) -> LabelledScores:
    """Return the rows of those windows, with indexes into `windows`."""
    numbers = np.array([windows.index(w) if w in windows else -1 for w in rows.windows], dtype=np.intp)[rows.window]
    inside = numbers >= 0
    return LabelledScores(rows.labels[inside], rows.scores[inside], numbers[inside], windows)
