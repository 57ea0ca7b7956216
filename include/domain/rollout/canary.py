"""The canary's judge: is the challenger, at this moment and on live traffic, not worse than the champion?

A guard is *worse*, and the challenger goes back, once the confidence sequence of the difference lies above zero and
does not lie within the margin; it is *not inferior* once the sequence lies below the margin. So the two errors each
have their own null: an equal challenger is wrongly rolled back, one worse by the margin is wrongly promoted. Between
zero and the margin the question is to which the truth is nearer, so every rollout comes to a verdict. Rolling back
needs one guard of k, so each is tested at α/k (Holm's first step, and a rollout takes no second); promotion needs every
guard, which needs no correction (an intersection-union test, Berger 1982).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from include.domain.rollout.plan import Rollout
from include.domain.rollout.sequential import (
    LargestDifference,
    MeanDifference,
    ProportionDifference,
    SequentialEvidence,
    confidence_limit,
)
from include.domain.rollout.variants import CUT_POINTS, Moments, Stratum, VariantTraffic
from include.domain.verdict import Check, Outcome, Verdict

#: Labelled or scored requests that each variant needs before a mean is taken as normal.
MIN_VALUES = 200
#: The least variance of a mean, so that values that are all the same can be judged.
MIN_VARIANCE = 1e-12
CONCLUSIONS = {Outcome.PASS: "not inferior", Outcome.FAIL: "worse", Outcome.INCONCLUSIVE: "undecided"}


class Contrast(StrEnum):
    """What a guard's number is measured against, as its sentence says it."""

    MORE = "more than the champion's"
    LESS = "less than the champion's"
    #: How far apart both are, which two models always are a little.
    APART = "apart from the champion's"
    #: There is nothing to differ from, so the margin bounds the number itself.
    OWN = "the challenger's own"


@dataclass(frozen=True)
class _Measurement:
    """The evidence on one guard; None is too little of it. With `two_sided` either direction is bad."""

    guard: str
    margin: float
    evidence: SequentialEvidence | None
    contrast: Contrast = Contrast.MORE
    two_sided: bool = False

    @property
    def worse_beyond(self) -> float:
        """The number beyond which the challenger is worse."""
        return self.margin if self.two_sided or self.contrast in (Contrast.APART, Contrast.OWN) else 0.0


def judge(rollout: Rollout, strata: Sequence[Stratum]) -> Verdict:
    """Return the verdict on the rollout's whole traffic so far, however often it is asked for.

    There is one stratum for each step. One in which stable had no traffic adds nothing to a comparison: a step at 100 %
    has no concurrent baseline, and is judged by passing it alone with `stable=None`, against the margins themselves.
    """
    measurements = list(_measurements(rollout, strata))
    enough = sum(stratum.canary.requests for stratum in strata) >= rollout.min_requests
    alpha = 1 - rollout.guards.confidence
    return Verdict("canary", tuple(_check(m, enough, alpha, alpha / len(measurements)) for m in measurements))


def _measurements(rollout: Rollout, strata: Sequence[Stratum]) -> Iterator[_Measurement]:
    guards, alone = rollout.guards, all(stratum.stable is None for stratum in strata)
    for name, margin, kind in (
        ("error_rate", guards.error_rate, "errors"),
        ("slow_share", guards.slow_share, "slow"),
    ):
        if margin is not None:
            yield _Measurement(
                name, margin, _proportions(strata, kind, alone), Contrast.OWN if alone else Contrast.MORE
            )
    if guards.logloss is not None and not alone:
        yield _Measurement("logloss", guards.logloss, _mean_difference(strata, "logloss"))
    if guards.label_rate is not None and not alone:
        swapped = [Stratum(stratum.stable, stratum.canary) for stratum in strata if stratum.stable]
        yield _Measurement("label_rate", guards.label_rate, _mean_difference(swapped, "label"), Contrast.LESS)
    if guards.score_mean is not None and not alone:
        yield _Measurement("score_mean", guards.score_mean, _mean_difference(strata, "score"), two_sided=True)
    if guards.score_shift is not None and not alone:
        yield _Measurement("score_shift", guards.score_shift, _score_shift(strata), Contrast.APART)
    if guards.calibration is not None:
        yield _Measurement("calibration", guards.calibration, _own_mean(strata, "bias"), Contrast.OWN, two_sided=True)


def _proportions(strata: Sequence[Stratum], kind: str, alone: bool) -> ProportionDifference | None:
    pairs = [(stratum.canary, stratum.stable or VariantTraffic()) for stratum in strata]
    counts = [(getattr(c, kind), c.requests, getattr(s, kind), s.requests) for c, s in pairs]
    if not any(requests and (alone or stable_requests) for _, requests, _, stable_requests in counts):
        return None
    events, requests, stable_events, stable_requests = np.array(counts, dtype=np.float64).T
    return ProportionDifference(events, requests, stable_events, stable_requests, alone)


def _score_shift(strata: Sequence[Stratum]) -> LargestDifference | None:
    pairs = [(stratum.canary, stratum.stable or VariantTraffic()) for stratum in strata]
    if min(sum(canary.score.n for canary, _ in pairs), sum(stable.score.n for _, stable in pairs)) < MIN_VALUES:
        return None
    canary, stable = np.array([[variant.score.n for variant in pair] for pair in pairs], dtype=np.float64).T
    above = np.array([[variant.above for variant in pair] for pair in pairs], dtype=np.float64)
    return LargestDifference(
        [ProportionDifference(above[:, 0, cut], canary, above[:, 1, cut], stable) for cut in range(len(CUT_POINTS))]
    )


def _mean_difference(strata: Sequence[Stratum], kind: str) -> MeanDifference | None:
    """Pool the strata's differences of means, canary less stable."""
    pairs: list[tuple[Moments, Moments]] = [
        (getattr(stratum.canary, kind), getattr(stratum.stable or VariantTraffic(), kind)) for stratum in strata
    ]
    return _pooled(
        [
            (canary.mean - stable.mean, canary.variance_of_mean + stable.variance_of_mean)
            for canary, stable in pairs
            if min(canary.n, stable.n) >= MIN_VALUES
        ]
    )


def _own_mean(strata: Sequence[Stratum], kind: str) -> MeanDifference | None:
    """Pool the canary's own means."""
    canaries: list[Moments] = [getattr(stratum.canary, kind) for stratum in strata]
    return _pooled([(canary.mean, canary.variance_of_mean) for canary in canaries if canary.n >= MIN_VALUES])


def _pooled(estimates: list[tuple[float, float]]) -> MeanDifference | None:
    """Weight estimates, each with its variance, by their precision; None where there are none."""
    if not estimates:
        return None
    values, variances = np.array(estimates).T
    precision = 1 / np.maximum(variances, MIN_VARIANCE)
    return MeanDifference(float((values * precision).sum() / precision.sum()), float(1 / precision.sum()))


def _check(measurement: _Measurement, enough: bool, alpha: float, alpha_to_fail: float) -> Check:
    name, margin, evidence = measurement.guard, measurement.margin, measurement.evidence
    if evidence is None:
        return Check(name, Outcome.INCONCLUSIVE, f"{name}: too little traffic or too few labels to judge", bound=margin)
    if measurement.two_sided:
        alpha = alpha_to_fail = alpha_to_fail / 2
    lower = confidence_limit(evidence, 1, alpha_to_fail, margin)
    upper = confidence_limit(evidence, -1, alpha, margin)
    outcome = _outcome(measurement, enough, lower, upper)
    numbers = f"{evidence.estimate:+.4f} ({lower:+.4f} to {upper:+.4f})"
    sentence = f"{CONCLUSIONS[outcome]}: {name} {numbers}, {measurement.contrast}, margin {margin:g}"
    return Check(name, outcome, sentence, evidence.estimate, margin, (lower, upper))


def _outcome(measurement: _Measurement, enough: bool, lower: float, upper: float) -> Outcome:
    margin, worse_beyond = measurement.margin, measurement.worse_beyond
    within = upper < margin and (not measurement.two_sided or lower > -margin)
    worse = lower > worse_beyond or (measurement.two_sided and upper < -worse_beyond)
    if worse and not within:
        return Outcome.FAIL
    return Outcome.PASS if within and enough else Outcome.INCONCLUSIVE
