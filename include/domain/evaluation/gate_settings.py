"""The `gates` section of a spec: the bounds and margins that a challenger is held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from include.domain.bounds import (
    SECTION,
    Confidence,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Share,
    in_order,
)
from include.domain.evaluation.behaviour import Behaviour
from include.domain.evaluation.slices import Slices
from include.domain.verdict import Check, Outcome

#: What is measured of a challenger beside its scores, by name: on the real server, and of the exported file.
MEASURED = ("p99_ms", "memory_mb", "score_gap", "model_mb")


@dataclass(frozen=True)
class AgainstChampion:
    """The challenger may be worse by no more than `margin`, in units of `metric` (logloss is in nats).

    `confidence` is that of a two-sided interval, so each of the errors "an equal model is called worse" and "a model
    worse by the margin is released" happens in at most half of what it leaves: 2.5 % at 0.95.
    """

    __pydantic_config__ = SECTION
    metric: Literal["logloss", "auc"] = "logloss"
    margin: NonNegativeFloat = 0.002
    confidence: Confidence = 0.95
    require: Literal["not_inferior", "superior"] = "not_inferior"


@dataclass(frozen=True)
class Bound:
    """Limits of a measured metric, either end optional."""

    __pydantic_config__ = SECTION
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None:
            in_order((self.min, self.max))

    @property
    def limits(self) -> str:
        """The limits in words."""
        ends = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{word} {limit:g}" for word, limit in ends if limit is not None)

    def check(self, name: str, value: float | None, interval: tuple[float, float] | None = None) -> Check:
        """Check a value against the limits; a metric that is missing or not a number fails."""
        bound = self.min if self.max is None else self.max
        if value is None or not np.isfinite(value):
            return Check(name, Outcome.FAIL, f"{name} was not measured; it must be {self.limits}", None, bound)
        is_within = (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
        ends = "" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g})"
        sentence = f"{name} is {value:.4g}{ends}; it must be {self.limits}"
        return Check(name, Outcome.PASS if is_within else Outcome.FAIL, sentence, value, bound, interval)


@dataclass(frozen=True)
class Metric:
    """A metric of the user's own and its limits: `of` names a function of labels and scores, `[n]` each.

    It is written `package.module:function`; scikit-learn's are of that form, e.g. `sklearn.metrics:brier_score_loss`.
    """

    __pydantic_config__ = SECTION
    of: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        Bound(self.min, self.max)  # which raises where they are the wrong way round

    @property
    def bound(self) -> Bound:
        """The metric's limits."""
        return Bound(self.min, self.max)


@dataclass(frozen=True)
class Gates:
    """The `gates` section of a spec. A bound left out is not checked; a bound given whose metric is missing fails.

    `min_positives` is also the least number of negatives. `bounds` are by the name of a measured metric, `metrics` by a
    name of the user's choice. With `dry_run` the verdict is the same and is reported; the stage that calls `judge` then
    releases whatever it says.
    """

    __pydantic_config__ = SECTION
    min_auc: Share | None = None
    max_logloss: NonNegativeFloat | None = None
    max_ece: Share | None = None
    max_p99_ms: PositiveFloat | None = None
    max_model_mb: PositiveFloat | None = None
    max_score_gap: Share | None = 1e-5  #: largest |server's score - trainer's score|
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    min_positives: PositiveInt = 100
    champion: AgainstChampion = field(default_factory=AgainstChampion)
    baselines: tuple[str, ...] = ("logistic", "lightgbm")
    baseline_margin: NonNegativeFloat = 0.01
    slices: Slices = field(default_factory=Slices)
    behaviour: tuple[Behaviour, ...] = ()
    dry_run: bool = False

    @property
    def score_bounds(self) -> dict[str, Bound]:
        """The bounds on metrics of the scores, by the metric's name; one without limits is not among them."""
        bounds = {
            "auc": Bound(min=self.min_auc),
            "logloss": Bound(max=self.max_logloss),
            "ece": Bound(max=self.max_ece),
        }
        return _limited(bounds)

    @property
    def measured_bounds(self) -> dict[str, Bound]:
        """The bounds on what is measured beside the scores, by name; one without limits is not among them."""
        bounds = {
            "p99_ms": Bound(max=self.max_p99_ms),
            "model_mb": Bound(max=self.max_model_mb),
            "score_gap": Bound(max=self.max_score_gap),
            **self.bounds,
        }
        return _limited(bounds)


def _limited(bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    return {name: bound for name, bound in bounds.items() if bound != Bound()}
