"""The canary's judge: is the challenger, at this moment and on live traffic, not worse than the champion?

A guard is *worse*, and the challenger goes back, once the confidence sequence of the difference lies above zero and
does not lie within the margin; it is *not inferior* once the sequence lies below the margin. So the two errors each
have their own null: an equal challenger is wrongly rolled back, one worse by the margin is wrongly promoted. Between
zero and the margin the question is to which the truth is nearer, so every rollout comes to a verdict. Rolling back
needs one guard of k, so each is tested at α/k (Holm's first step, and a rollout takes no second); promotion needs every
guard, which needs no correction (an intersection-union test, Berger 1982).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen, Predicate
from numpy.typing import ArrayLike

from include.domain.bounds import (
    SECTION,
    Confidence,
    Duration,
    PositiveDuration,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareMargin,
)
from include.domain.rollout.sequential import Evidence, Largest, Means, Shares, limit
from include.domain.verdict import Check, Outcome, Verdict

#: Labelled or scored requests that each arm needs before a mean is taken as normal.
MIN_VALUES = 200
#: Guards that take the scores of single requests, most of them with their labels.
SCORED = ("logloss", "label_rate", "score_mean", "score_shift", "calibration")
#: Where two distributions of scores are compared, from rare clicks to near certainty.
CUTS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
#: The least variance of a mean, so that values that are all the same can be weighed.
TINY = 1e-12
READING = {Outcome.PASS: "not inferior", Outcome.FAIL: "worse", Outcome.INCONCLUSIVE: "undecided"}


@dataclass(frozen=True)
class Step:
    """The challenger gets `weight` percent of the traffic for at most `hold`."""

    __pydantic_config__ = SECTION
    weight: Annotated[int, Ge(1), Le(100)]
    hold: Duration = timedelta(0)


def rise_to_all_traffic(steps: Sequence[Step]) -> bool:
    """Return True for steps whose weights rise and end at 100 percent; raises ValueError otherwise."""
    weights = [step.weight for step in steps]
    if any(later <= earlier for earlier, later in pairwise(weights)):
        raise ValueError(f"the weights must rise from step to step, and are {', '.join(map(str, weights))}")
    if weights[-1] != 100:
        raise ValueError(f"the last step must have weight 100, all of the traffic, and has {weights[-1]}")
    return True


@dataclass(frozen=True)
class Guards:
    """How much worse than the champion the challenger may be; a guard without a margin (None) is not judged.

    `error_rate` and `slow_share` (answers slower than `slow_ms`) are shares of requests; with no champion they bound
    the challenger's own share. Choose `slow_ms` near the champion's 99th percentile: slowing far below it is not seen.
    `logloss` is in nats, over requests whose label is known; `label_rate` is how much smaller the share of positive labels
    (a click-through rate) may be. `score_mean` bounds how far the mean score may be from the champion's, `score_shift` how
    far the share of scores above any of CUTS may be, and `calibration` how far the mean of score less label may be from 0,
    all both ways.

    The rest is judged when the shadow ends, on the mirrored requests that both scored: `flipped` is the share that the
    challenger may decide otherwise than the champion, `score_difference` the mean distance of their scores,
    `rank_correlation` the least that Spearman's may be.
    """

    __pydantic_config__ = SECTION
    error_rate: ShareMargin | None = 0.01
    slow_share: ShareMargin | None = 0.05
    slow_ms: PositiveFloat = 100.0
    logloss: PositiveFloat | None = None
    label_rate: ShareMargin | None = None
    score_mean: ShareMargin | None = None
    score_shift: ShareMargin | None = None
    calibration: ShareMargin | None = None
    flipped: Share | None = None
    score_difference: Share | None = None
    rank_correlation: Annotated[float, Ge(-1), Le(1)] | None = None
    confidence: Confidence = 0.95


@dataclass(frozen=True)
class Rollout:
    """The `rollout` section of a spec: mirrored for `shadow`, then `steps` of live traffic, each judged by `guards`.

    Requests of the first `warm_up` of a step are not counted. `min_requests` are the canary's, before it may pass. A
    score of at least `threshold` is a yes. A challenger approved while another is rolled out waits for its end or, as
    `newer` says, supersedes it.
    """

    __pydantic_config__ = SECTION
    shadow: Duration = timedelta(minutes=10)
    steps: Annotated[tuple[Step, ...], MinLen(1), Predicate(rise_to_all_traffic)] = (
        Step(10, timedelta(minutes=30)),
        Step(100),
    )
    guards: Guards = field(default_factory=Guards)
    warm_up: Duration = timedelta(seconds=10)
    min_requests: PositiveInt = 500
    max_duration: PositiveDuration = timedelta(hours=6)
    on_inconclusive: Literal["hold", "rollback"] = "rollback"
    newer: Literal["wait", "supersede"] = "wait"
    threshold: Confidence = 0.5


@dataclass(frozen=True)
class Moments:
    """Of one value per request: how many, their sum and their sum of squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike) -> "Moments":
        array = np.asarray(values, dtype=np.float64)
        return cls(len(array), float(array.sum()), float((array**2).sum()))

    @property
    def mean(self) -> float:
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Of the mean."""
        return max(self.squares / self.n - self.mean**2, 0.0) / self.n


@dataclass(frozen=True)
class Arm:
    """One slot's traffic over a span. `logloss`, `label` and `bias` (score less label) are of requests with a known label;
    `above` counts the scores above each of CUTS.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    logloss: Moments = Moments()
    label: Moments = Moments()
    score: Moments = Moments()
    bias: Moments = Moments()
    above: Sequence[int] = (0,) * len(CUTS)


@dataclass(frozen=True)
class Span:
    """Both slots over the same time under one split, e.g. a step; `stable` is None when there is no champion."""

    canary: Arm
    stable: Arm | None


@dataclass(frozen=True)
class _Look:
    """What a guard saw. `both_ways`: either direction is bad; `alone`: there is nothing to differ from; `less`: it counts
    how much less the canary has; `apart`: it counts how far apart both are, which two models always are a little.
    """

    name: str
    margin: float
    evidence: Evidence | None
    enough: bool
    both_ways: bool = False
    alone: bool = False
    less: bool = False
    apart: bool = False

    @property
    def against(self) -> str:
        if self.apart:
            return "apart from the champion's"
        return "the challenger's own" if self.alone else f"{'less' if self.less else 'more'} than the champion's"


def judge(rollout: Rollout, spans: Sequence[Span]) -> Verdict:
    """The verdict at this look, however many there are, from the rollout's whole traffic so far, a span for each step.

    A span in which stable had no traffic adds nothing to a comparison: a step at 100 % has no concurrent baseline, and
    is judged by passing it alone with `stable=None`, against the margins themselves.
    """
    looks = list(_looks(rollout, spans))
    level = 1 - rollout.guards.confidence
    return Verdict("canary", tuple(_check(look, level, level / len(looks)) for look in looks))


def _looks(rollout: Rollout, spans: Sequence[Span]) -> Iterator[_Look]:
    guards, requests = rollout.guards, sum(span.canary.requests for span in spans)
    enough, alone = requests >= rollout.min_requests, all(span.stable is None for span in spans)
    if guards.error_rate is not None:
        yield _Look("error_rate", guards.error_rate, _shares(spans, "errors", alone), enough, alone=alone)
    if guards.slow_share is not None:
        yield _Look("slow_share", guards.slow_share, _shares(spans, "slow", alone), enough, alone=alone)
    if guards.logloss is not None and not alone:
        yield _Look("logloss", guards.logloss, _difference(spans, "logloss"), enough)
    if guards.label_rate is not None and not alone:
        fewer = _difference([Span(span.stable, span.canary) for span in spans if span.stable], "label")
        yield _Look("label_rate", guards.label_rate, fewer, enough, less=True)
    if guards.score_mean is not None and not alone:
        yield _Look("score_mean", guards.score_mean, _difference(spans, "score"), enough, both_ways=True)
    if guards.score_shift is not None and not alone:
        yield _Look("score_shift", guards.score_shift, _shift(spans), enough, apart=True)
    if guards.calibration is not None:
        yield _Look("calibration", guards.calibration, _own(spans, "bias"), enough, both_ways=True, alone=True)


def _shares(spans: Sequence[Span], kind: str, alone: bool) -> Shares | None:
    arms = [(span.canary, span.stable or Arm()) for span in spans]
    counts = [(getattr(ours, kind), ours.requests, getattr(theirs, kind), theirs.requests) for ours, theirs in arms]
    if not any(ours and (alone or theirs) for _, ours, _, theirs in counts):
        return None
    ours, requests, theirs, stable_requests = np.array(counts, dtype=np.float64).T
    return Shares(ours, requests, theirs, stable_requests, alone)


def _shift(spans: Sequence[Span]) -> Largest | None:
    arms = [(span.canary, span.stable or Arm()) for span in spans]
    if min(sum(ours.score.n for ours, _ in arms), sum(theirs.score.n for _, theirs in arms)) < MIN_VALUES:
        return None
    ours, theirs = np.array([[arm.score.n for arm in pair] for pair in arms], dtype=np.float64).T
    above = np.array([[arm.above for arm in pair] for pair in arms], dtype=np.float64)
    return Largest([Shares(above[:, 0, cut], ours, above[:, 1, cut], theirs) for cut in range(len(CUTS))])


def _difference(spans: Sequence[Span], kind: str) -> Means | None:
    """The spans' differences of means, weighted by their precision."""
    arms = [(getattr(span.canary, kind), getattr(span.stable or Arm(), kind)) for span in spans]
    return _pooled([(a.mean - b.mean, a.variance + b.variance) for a, b in arms if min(a.n, b.n) >= MIN_VALUES])


def _own(spans: Sequence[Span], kind: str) -> Means | None:
    arms = [getattr(span.canary, kind) for span in spans]
    return _pooled([(a.mean, a.variance) for a in arms if a.n >= MIN_VALUES])


def _pooled(found: list[tuple[float, float]]) -> Means | None:
    if not found:
        return None
    values, variances = np.array(found).T
    precision = 1 / np.maximum(variances, TINY)
    return Means(float((values * precision).sum() / precision.sum()), float(1 / precision.sum()))


def _check(look: _Look, level: float, level_to_fail: float) -> Check:
    name, margin, evidence = look.name, look.margin, look.evidence
    if evidence is None:
        return Check(name, Outcome.INCONCLUSIVE, f"{name}: too little traffic or too few labels to judge", bound=margin)
    if look.both_ways:
        level = level_to_fail = level_to_fail / 2
    low = limit(evidence, 1, level_to_fail, margin)
    high = limit(evidence, -1, level, margin)
    outcome = _outcome(look, low, high)
    found = f"{evidence.estimate:+.4f} ({low:+.4f} to {high:+.4f})"
    sentence = f"{READING[outcome]}: {name} {found}, {look.against}, margin {margin:g}"
    return Check(name, outcome, sentence, evidence.estimate, margin, (low, high))


def _outcome(look: _Look, low: float, high: float) -> Outcome:
    within = high < look.margin and (not look.both_ways or low > -look.margin)
    line = look.margin if look.alone or look.both_ways or look.apart else 0.0
    if not within and (low > line or (look.both_ways and high < -line)):
        return Outcome.FAIL
    return Outcome.PASS if within and look.enough else Outcome.INCONCLUSIVE
