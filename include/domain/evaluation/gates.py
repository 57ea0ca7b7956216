"""Gates: may this challenger be released? Bounds, champion, baselines, slices: each a check with its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from include.domain.bounds import (
    SECTION,
    Confidence,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Share,
    in_order,
)
from include.domain.evaluation import slices
from include.domain.evaluation.behaviour import Behaviour
from include.domain.evaluation.slices import SliceEffect, Slices
from include.domain.metrics import row_losses
from include.domain.statistics import METRICS, estimate_with_interval
from include.domain.verdict import Check, Outcome, Verdict

CHALLENGER = "challenger"
CHAMPION = "champion"


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
    """Limits of a measured metric of the user's own, either end optional."""

    __pydantic_config__ = SECTION
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None:
            in_order((self.min, self.max))

    @property
    def _limits(self) -> list[tuple[str, float]]:
        return [(word, limit) for word, limit in (("at least", self.min), ("at most", self.max)) if limit is not None]

    def check(self, name: str, value: float | None, interval: tuple[float, float] | None = None) -> Check:
        """Fails closed: a metric that is missing or not a number does not pass."""
        limits = " and ".join(f"{word} {limit:g}" for word, limit in self._limits)
        bound = self.min if self.max is None else self.max
        if value is None or not np.isfinite(value):
            return Check(name, Outcome.FAIL, f"{name} was not measured; it must be {limits}", None, bound)
        within = (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
        spread = "" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g})"
        said = f"{name} is {value:.4g}{spread}; it must be {limits}"
        return Check(name, Outcome.PASS if within else Outcome.FAIL, said, value, bound, interval)


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


@dataclass(frozen=True)
class Evidence:
    """What was measured on the n test rows, in order of time.

    `labels` `[n]` of 0 and 1; `scores` `[n]` by candidate: "challenger", the baselines, and "champion" unless there is
    none yet (a champion that cannot be scored is the caller's error, never left out); `slices` `[n]` raw values by
    column; `measured` by metric ("p99_ms", "model_mb", "score_gap"); `own`, the challenger's value and interval by the
    name of a metric of the user's; `changed` `[n]`, the challenger's scores of the changed rows by a behaviour's name;
    `groups` `[n]` says which rows depend on each other, e.g. the day; `absent`, the values by column that training
    knows and no test row has.
    """

    labels: ArrayLike
    scores: Mapping[str, ArrayLike]
    slices: Mapping[str, ArrayLike] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)
    changed: Mapping[str, ArrayLike] = field(default_factory=dict)
    groups: ArrayLike | None = None
    absent: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Relation(StrEnum):
    SUPERIOR = "superior"
    NOT_INFERIOR = "not inferior"
    WORSE = "worse"
    UNDECIDED = "undecided"


def judge(gates: Gates, evidence: Evidence, seed: int) -> Verdict:
    """The verdict on the challenger; `seed` is for the bootstrap. Pure: the same evidence gives the same verdict."""
    checks = [*_unusable(evidence), *_unsound(evidence)] or list(_checks(gates, evidence, seed))
    return Verdict(CHALLENGER, (*checks, *_measured(gates, evidence)))


def _checks(gates: Gates, evidence: Evidence, seed: int) -> Iterator[Check]:
    """What sound evidence is asked; without a champion the bounds and the baselines decide."""
    rows = len(np.asarray(evidence.labels))
    yield Check("scores", Outcome.PASS, f"{rows:,} scores are sound: from 0 to 1 and not all the same")
    yield from _absolute(gates, evidence)
    if CHAMPION in evidence.scores:
        yield _compare(gates, evidence, seed, CHAMPION, gates.champion.margin)
        effects, confidence = slice_effects(gates, evidence), gates.champion.confidence
        yield from slices.judge(gates.slices, effects, evidence.slices, confidence, evidence.absent)
    for name in gates.baselines:
        if name in evidence.scores:
            yield _compare(gates, evidence, seed, name, gates.baseline_margin)
        else:
            yield Check(f"against {name}", Outcome.FAIL, f"the baseline {name} is required and was not scored")
    for check in gates.behaviour:
        yield check.judge(evidence.scores[CHALLENGER], evidence.changed.get(check.name))


def relate(interval: tuple[float, float], margin: float) -> Relation:
    """What an interval of "how much worse" says. One within the margin is not inferior, even where it is above zero."""
    low, high = interval
    if high < 0:
        return Relation.SUPERIOR
    if high < margin:
        return Relation.NOT_INFERIOR
    return Relation.WORSE if low > 0 else Relation.UNDECIDED


def slice_effects(gates: Gates, evidence: Evidence) -> list[SliceEffect]:
    """The effects that `judge` judged, for a forest plot; none without a champion."""
    if CHAMPION not in evidence.scores:
        return []
    ours, theirs = (row_losses(evidence.labels, evidence.scores[name]) for name in (CHALLENGER, CHAMPION))
    confidence = gates.champion.confidence
    return slices.effects(gates.slices, ours - theirs, evidence.slices, confidence, evidence.groups)


def _unusable(evidence: Evidence) -> Iterator[Check]:
    """What stops any judgement: nothing to judge, or arrays that are not of the same rows."""
    labels = np.asarray(evidence.labels)
    if not len(labels):
        yield Check("rows", Outcome.ERROR, "the test windows hold no labelled row; land them, or give the model more")
    elif not np.isin(labels, (0, 1)).all():
        yield Check("labels", Outcome.ERROR, "the labels hold something other than 0 and 1")
    if CHALLENGER not in evidence.scores:
        yield Check(CHALLENGER, Outcome.ERROR, "there are no scores of the challenger")
    for name, values in {**evidence.scores, **evidence.slices, **evidence.changed}.items():
        if len(np.asarray(values)) != len(labels):
            found = f"{name}: {len(np.asarray(values)):,} values for {len(labels):,} labels"
            yield Check(name, Outcome.ERROR, found)


def _unsound(evidence: Evidence) -> Iterator[Check]:
    """Broken scores: the challenger's fail it, another candidate's are an error of the comparison."""
    for name, given in evidence.scores.items():
        scores = np.asarray(given, dtype=np.float64)
        outcome = Outcome.FAIL if name == CHALLENGER else Outcome.ERROR
        finite = scores[np.isfinite(scores)]
        if len(finite) < len(scores):
            bad = len(scores) - len(finite)
            yield Check("scores", outcome, f"{name}: {bad:,} of {len(scores):,} scores are not numbers")
        elif len(scores) and (scores.min() < 0 or scores.max() > 1):
            yield Check("scores", outcome, f"{name}: scores from {scores.min():g} to {scores.max():g}, not 0 to 1")
        elif len(scores) > 1 and scores.min() == scores.max() and name == CHALLENGER:
            yield Check("scores", outcome, f"{name}: every score is {scores[0]:g}")


def _too_few(gates: Gates, evidence: Evidence) -> str | None:
    positives = int(np.asarray(evidence.labels).sum())
    negatives = len(np.asarray(evidence.labels)) - positives
    if min(positives, negatives) >= gates.min_positives:
        return None
    return f"{positives:,} positives and {negatives:,} negatives, at least {gates.min_positives:,} of each are needed"


def _absolute(gates: Gates, evidence: Evidence) -> Iterator[Check]:
    rules = {"auc": Bound(min=gates.min_auc), "logloss": Bound(max=gates.max_logloss), "ece": Bound(max=gates.max_ece)}
    few = _too_few(gates, evidence)
    for name, bound in rules.items():
        if bound == Bound():
            continue
        if few:
            yield Check(name, Outcome.INCONCLUSIVE, f"{name}: {few}")
            continue
        scores, confidence = evidence.scores[CHALLENGER], gates.champion.confidence
        yield bound.check(name, *estimate_with_interval(name, evidence.labels, scores, confidence, evidence.groups))
    for name, asked in gates.metrics.items():
        yield asked.bound.check(name, *evidence.own.get(name, (None,)))


def _measured(gates: Gates, evidence: Evidence) -> Iterator[Check]:
    rules = {
        "p99_ms": Bound(max=gates.max_p99_ms),
        "model_mb": Bound(max=gates.max_model_mb),
        "score_gap": Bound(max=gates.max_score_gap),
        **gates.bounds,
    }
    return (bound.check(name, evidence.measured.get(name)) for name, bound in rules.items() if bound != Bound())


def _compare(gates: Gates, evidence: Evidence, seed: int, rival: str, margin: float) -> Check:
    """How much worse than the rival on the same rows: bootstrap-t for logloss, DeLong for AUC."""
    title, metric, confidence = f"against {rival}", gates.champion.metric, gates.champion.confidence
    if few := _too_few(gates, evidence):
        return Check(title, Outcome.INCONCLUSIVE, f"not compared with the {rival}: {few}")
    ours, theirs = (METRICS[metric](evidence.labels, evidence.scores[name]) for name in (CHALLENGER, rival))
    if metric == "auc":
        worse = theirs - ours
        low, high = worse.interval(confidence, evidence.groups)
    else:
        worse = ours - theirs
        low, high = worse.bootstrap_t_interval(confidence, seed, evidence.groups)
    relation = relate((low, high), margin)
    sentence = (
        f"{relation}: {metric} {ours.value:.4f}, the {rival}'s {theirs.value:.4f} on the same rows; worse by "
        f"{worse.value:+.4f} ({low:+.4f} to {high:+.4f} at {confidence:.0%}), margin {margin:g}"
    )
    superior = rival == CHAMPION and gates.champion.require == "superior"
    return Check(title, _outcome(relation, superior), sentence, worse.value, margin, (low, high))


def _outcome(relation: Relation, superior: bool) -> Outcome:
    if relation is Relation.WORSE:
        return Outcome.FAIL
    enough = relation is Relation.SUPERIOR or (relation is Relation.NOT_INFERIOR and not superior)
    return Outcome.PASS if enough else Outcome.INCONCLUSIVE
