"""A champion's course: what its reports show, window by window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring.drift import Moved
from include.domain.monitoring.sketch import Sketches

#: A value with the ends of its interval.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """One window: AUC, logloss and label rate with their intervals, None where not known; the AUC promised without labels,
    and the mean score."""

    auc: Interval | None = None
    logloss: Interval | None = None
    label_rate: Interval | None = None
    estimated_auc: float | None = None
    mean_score: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two versions live at once: `metrics` of `version` less those of `other`; `rows` of either, of the windows in `span`."""

    version: str
    other: str
    span: str
    rows: tuple[int, int]
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class Course:
    """By window, oldest first; sketches of the `newest` beside those of the `reference`, on the same bins.

    `bins[feature]` names each bin of its sketch; `effect_bound` is the drift rules'; `cleared`: after which request the
    cause was gone.
    """

    model: str
    version: str
    moved: Mapping[str, Sequence[Moved]]
    points: Mapping[str, Point]
    test: Mapping[str, float]
    decisions: Sequence[RetrainingDecided]
    cleared: Sequence[CauseRechecked]
    arms: Sequence[Comparison]
    reference: Sketches
    newest: Sketches
    bins: Mapping[str, Sequence[str]]
    effect_bound: float
