"""Gates: may this challenger be released? Bounds, champion, baselines, slices: each a check with its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from include.domain.evaluation import slices
from include.domain.evaluation.candidates import CHALLENGER, CHAMPION
from include.domain.evaluation.gate_settings import Gates
from include.domain.evaluation.slices import SliceEffect
from include.domain.metrics import row_losses
from include.domain.statistics import METRICS, estimate_with_interval
from include.domain.verdict import Check, Outcome, Verdict


@dataclass(frozen=True)
class Evidence:
    """What was measured on the n test rows, in order of time.

    `labels` `[n]` are 0 and 1. `scores` `[n]` are by candidate: "challenger", the baselines by family, and "champion" unless
    there is none yet (a champion that cannot be scored is the caller's error, never left out). `slices` has raw values `[n]` by
    column. `measured` has what was measured beside the scores, by name. `own_metrics` has the challenger's value and
    interval by the name of a metric of the user's own. `changed_scores` has the challenger's scores `[n]` of the changed rows
    by a behaviour check's name. `groups` `[n]` says which rows depend on each other, e.g. the day. `values_without_rows` has
    by column the values that the training rows hold and no test row has.
    """

    labels: ArrayLike
    scores: Mapping[str, ArrayLike]
    slices: Mapping[str, ArrayLike] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    own_metrics: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)
    changed_scores: Mapping[str, ArrayLike] = field(default_factory=dict)
    groups: ArrayLike | None = None
    values_without_rows: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Relation(StrEnum):
    """How a challenger relates to a rival, as an interval of the difference and a margin show it."""

    SUPERIOR = "superior"
    NOT_INFERIOR = "not inferior"
    WORSE = "worse"
    UNDECIDED = "undecided"


def judge(gates: Gates, evidence: Evidence, seed: int) -> Verdict:
    """Return the verdict on the challenger. The same evidence and the same `seed`, the bootstrap's, give the same verdict."""
    problems = [*_input_errors(evidence), *_broken_scores(evidence)]
    checks = problems or list(_score_checks(gates, evidence, seed))
    measured = [bound.check(name, evidence.measured.get(name)) for name, bound in gates.measured_bounds.items()]
    return Verdict(CHALLENGER, (*checks, *measured))


def relate(interval: tuple[float, float], margin: float) -> Relation:
    """Return what a confidence interval of "how much worse" shows.

    A challenger whose interval lies below the margin is not inferior, even where the interval lies above zero.
    """
    lower, upper = interval
    if upper < 0:
        return Relation.SUPERIOR
    if upper < margin:
        return Relation.NOT_INFERIOR
    return Relation.WORSE if lower > 0 else Relation.UNDECIDED


def slice_effects(gates: Gates, evidence: Evidence) -> list[SliceEffect]:
    """Return the effects on slices that `judge` judges, the most suspect first; none without a champion."""
    if CHAMPION not in evidence.scores:
        return []
    losses, champion_losses = (row_losses(evidence.labels, evidence.scores[name]) for name in (CHALLENGER, CHAMPION))
    confidence = gates.champion.confidence
    return slices.effects(gates.slices, losses - champion_losses, evidence.slices, confidence, evidence.groups)


def _score_checks(gates: Gates, evidence: Evidence, seed: int) -> Iterator[Check]:
    """Yield the checks of sound scores; without a champion the bounds and the baselines decide."""
    rows = len(np.asarray(evidence.labels))
    yield Check("scores", Outcome.PASS, f"{rows:,} scores are sound: from 0 to 1 and not all the same")
    yield from _metric_checks(gates, evidence)
    if CHAMPION in evidence.scores:
        yield _compare(gates, evidence, seed, CHAMPION, gates.champion.margin)
        effects, confidence = slice_effects(gates, evidence), gates.champion.confidence
        yield from slices.judge(gates.slices, effects, evidence.slices, confidence, evidence.values_without_rows)
    for name in gates.baselines:
        if name in evidence.scores:
            yield _compare(gates, evidence, seed, name, gates.baseline_margin)
        else:
            yield Check(f"against {name}", Outcome.FAIL, f"the baseline {name} is required and was not scored")
    for behaviour in gates.behaviour:
        yield behaviour.judge(evidence.scores[CHALLENGER], evidence.changed_scores.get(behaviour.name))


def _input_errors(evidence: Evidence) -> Iterator[Check]:
    """Yield what stops any judgement: nothing to judge, or arrays that are not of the same rows."""
    labels = np.asarray(evidence.labels)
    if not len(labels):
        yield Check("rows", Outcome.ERROR, "the test windows hold no labelled row; land them, or give the model more")
    elif not np.isin(labels, (0, 1)).all():
        yield Check("labels", Outcome.ERROR, "the labels hold something other than 0 and 1")
    if CHALLENGER not in evidence.scores:
        yield Check(CHALLENGER, Outcome.ERROR, "there are no scores of the challenger")
    for name, values in {**evidence.scores, **evidence.slices, **evidence.changed_scores}.items():
        if (count := len(np.asarray(values))) != len(labels):
            yield Check(name, Outcome.ERROR, f"{name}: {count:,} values for {len(labels):,} labels")


def _broken_scores(evidence: Evidence) -> Iterator[Check]:
    """Yield a check for scores that are no probabilities: the challenger's fail it, a rival's are an error of the comparison."""
    for name, values in evidence.scores.items():
        scores = np.asarray(values, dtype=np.float64)
        outcome = Outcome.FAIL if name == CHALLENGER else Outcome.ERROR
        not_finite = int((~np.isfinite(scores)).sum())
        if not_finite:
            yield Check("scores", outcome, f"{name}: {not_finite:,} of {len(scores):,} scores are not numbers")
        elif len(scores) and (scores.min() < 0 or scores.max() > 1):
            yield Check("scores", outcome, f"{name}: scores from {scores.min():g} to {scores.max():g}, not 0 to 1")
        elif len(scores) > 1 and scores.min() == scores.max() and name == CHALLENGER:
            yield Check("scores", outcome, f"{name}: every score is {scores[0]:g}")


def _too_few_rows(gates: Gates, evidence: Evidence) -> str | None:
    """Return a sentence where a class has too few rows to compare anything, else None."""
    positives = int(np.asarray(evidence.labels).sum())
    negatives = len(np.asarray(evidence.labels)) - positives
    if min(positives, negatives) >= gates.min_positives:
        return None
    return f"{positives:,} positives and {negatives:,} negatives, at least {gates.min_positives:,} of each are needed"


def _metric_checks(gates: Gates, evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of the challenger's own metrics against their bounds."""
    too_few = _too_few_rows(gates, evidence)
    scores, confidence = evidence.scores[CHALLENGER], gates.champion.confidence
    for name, bound in gates.score_bounds.items():
        if too_few:
            yield Check(name, Outcome.INCONCLUSIVE, f"{name}: {too_few}")
        else:
            yield bound.check(name, *estimate_with_interval(name, evidence.labels, scores, confidence, evidence.groups))
    for name, metric in gates.metrics.items():
        yield metric.bound.check(name, *evidence.own_metrics.get(name, (None,)))


def _compare(gates: Gates, evidence: Evidence, seed: int, rival: str, margin: float) -> Check:
    """Check by how much the challenger is worse than the rival on the same rows: bootstrap-t for logloss, DeLong for AUC."""
    title, metric, confidence = f"against {rival}", gates.champion.metric, gates.champion.confidence
    if too_few := _too_few_rows(gates, evidence):
        return Check(title, Outcome.INCONCLUSIVE, f"not compared with the {rival}: {too_few}")
    challenger, other = (METRICS[metric](evidence.labels, evidence.scores[name]) for name in (CHALLENGER, rival))
    if metric == "auc":
        difference = other - challenger
        lower, upper = difference.interval(confidence, evidence.groups)
    else:
        difference = challenger - other
        lower, upper = difference.bootstrap_t_interval(confidence, seed, evidence.groups)
    relation = relate((lower, upper), margin)
    sentence = (
        f"{relation}: {metric} {challenger.value:.4f}, the {rival}'s {other.value:.4f} on the same rows; worse by "
        f"{difference.value:+.4f} ({lower:+.4f} to {upper:+.4f} at {confidence:.0%}), margin {margin:g}"
    )
    must_be_superior = rival == CHAMPION and gates.champion.require == "superior"
    return Check(title, _outcome(relation, must_be_superior), sentence, difference.value, margin, (lower, upper))


def _outcome(relation: Relation, must_be_superior: bool) -> Outcome:
    if relation is Relation.WORSE:
        return Outcome.FAIL
    passes = relation is Relation.SUPERIOR or (relation is Relation.NOT_INFERIOR and not must_be_superior)
    return Outcome.PASS if passes else Outcome.INCONCLUSIVE
