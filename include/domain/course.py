"""A champion's course: what its reports show, window by window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.domain.drift import Moved
from include.domain.sketch import Sketches


@dataclass(frozen=True)
class Point:
    """One window's AUC and logloss with their intervals, each None where not known, and the AUC promised without labels."""

    auc: tuple[float, float, float] | None
    logloss: tuple[float, float, float] | None
    estimated_auc: float | None


@dataclass(frozen=True)
class Course:
    """By window, oldest first; `sketches` of the newest beside those of the `reference`, on the same bins."""

    model: str
    version: str
    moved: Mapping[str, Sequence[Moved]]
    points: Mapping[str, Point]
    test: Mapping[str, float]
    decisions: Sequence[Mapping[str, Any]]
    reference: Sketches
    newest: Sketches
    knots: Mapping[str, Sequence[float]]
