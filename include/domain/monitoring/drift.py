"""Drift: how far the features of a window lie from those that the model was trained on.

A feature has drifted in a window when its distance is both *large* (effect size) and *significant*: larger than the distances
among the reference windows themselves, with the false-discovery rate over all features kept at `1 − confidence`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Confidence, NonNegativeFloat, PositiveInt, Share
from include.domain.monitoring import distance
from include.domain.monitoring.signal import Signal, describe_windows, fire_or_warn, unknown
from include.domain.monitoring.sketch import Sketch, Sketches, merge

#: Fewer reference windows of one season (same weekday or hour) than this do not show how windows differ; then all are used.
MIN_SEASON_WINDOWS = 4
#: Drifted features that a sentence names.
NAMED_FEATURES = 4


@dataclass(frozen=True)
class Drift:
    """The `watch.drift` section of a spec.

    `effect` is the least distance that counts: standard deviations (Wasserstein) for a number, a Jensen-Shannon distance (0
    to 1) for a category. The signal fires when a feature has drifted in the newest window and in `windows_needed` of the last
    `recent_windows`, or in the newest alone by `sudden` times the effect. A feature whose share of the model's importance is
    known and below `min_importance` only warns. Windows with fewer than `min_rows` rows are not compared.
    """

    __pydantic_config__ = SECTION
    recent_windows: PositiveInt = 3
    windows_needed: PositiveInt = 2
    min_rows: PositiveInt = 100
    effect: NonNegativeFloat = 0.1
    sudden: Annotated[float, Ge(1)] = 3.0
    confidence: Confidence = 0.99
    min_importance: Share = 0.01

    def __post_init__(self) -> None:
        if self.windows_needed > self.recent_windows:
            raise ValueError(f"windows_needed: {self.windows_needed} of the last {self.recent_windows} can never be")


@dataclass(frozen=True)
class ReferenceWindows:
    """The windows of the model's training data.

    `seasons[i]` is what window i has in common with windows that are like it; `knots` are the bin edges of each number.
    """

    windows: Sequence[Sketches]
    seasons: Sequence[Hashable]
    knots: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class FeatureDrift:
    """How far one feature of one window lies from the reference.

    `effect` and `psi` are corrected for the sample size. `p_value` is of the null hypothesis that the window is one more
    reference window. `drifted` is the judgement after control of the false-discovery rate and comparison with the least effect.
    """

    feature: str
    effect: float
    p_value: float
    psi: float
    drifted: bool


def compare(rules: Drift, reference: ReferenceWindows, window: Sketches, season: Hashable) -> list[FeatureDrift]:
    """Return the drift of each feature that the window and all reference windows have, largest effect first."""
    features = [f for f in window if reference.windows and all(f in w for w in reference.windows)]
    measured = [_feature_drift(f, reference, window[f], season) for f in features]
    significant = distance.benjamini_hochberg([d.p_value for d in measured], 1 - rules.confidence)
    judged = [
        replace(drift, drifted=bool(rejected and drift.effect >= rules.effect))
        for drift, rejected in zip(measured, significant, strict=True)
    ]
    return sorted(judged, key=lambda drift: -drift.effect)


def signal(
    name: str,
    rules: Drift,
    recent: Mapping[str, Sequence[FeatureDrift]],
    importance: Mapping[str, float] | None = None,
) -> Signal:
    """Return the signal `name` from the drift of the recent windows, by label, oldest first.

    `importance` is each feature's share of the model's importance; the shares sum to 1.
    """
    labels = tuple(recent)[-rules.recent_windows :]
    if not labels or not recent[labels[-1]]:
        return unknown(name, "no recent window has rows enough to compare", labels)
    newest = recent[labels[-1]]
    counts = {d.feature: sum(_has_drifted(recent[label], d.feature) for label in labels) for d in newest}
    drifted = [d for d in newest if d.drifted]
    firing = [
        d
        for d in drifted
        if (importance is None or importance.get(d.feature, 0.0) >= rules.min_importance)
        and (counts[d.feature] >= rules.windows_needed or d.effect >= rules.sudden * rules.effect)
    ]
    state = fire_or_warn(fire=bool(firing), warn=bool(drifted))
    strongest = (firing or drifted or list(newest))[0]
    sentence = _sentence(rules, labels, firing or drifted, newest, counts)
    return Signal(name, state, sentence, strongest.effect, rules.effect, windows=labels)


def _feature_drift(feature: str, reference: ReferenceWindows, window: Sketch, season: Hashable) -> FeatureDrift:
    past = [w[feature] for w in reference.windows]
    of_season = [sketch for sketch, s in zip(past, reference.seasons, strict=True) if s == season]
    total = merge(of_season if len(of_season) >= MIN_SEASON_WINDOWS else past)
    groups = distance.pool_bins(total.counts, window.rows, ordered=window.numeric)
    now, then = _grouped_counts(groups, [window])[0], _grouped_counts(groups, [total])[0]
    excess, spread = _natural_excess(groups, past, reference.seasons)
    effect = distance.jensen_shannon(now, then)
    if window.numeric:
        effect = max(effect, distance.wasserstein(window, total, reference.knots[feature]))
    p_value = distance.p_value(now, then, excess, spread)
    return FeatureDrift(feature, effect, p_value, distance.psi(now, then), drifted=False)


def _natural_excess(
    groups: NDArray[np.intp], past: Sequence[Sketch], seasons: Sequence[Hashable]
) -> tuple[float, float]:
    """Return mean and variance of the excess χ² distance of each reference window from the others of its season."""
    if len(past) < MIN_SEASON_WINDOWS:
        return 0.0, 0.0
    counts = _grouped_counts(groups, past)
    others = np.empty_like(counts)
    for season in dict.fromkeys(seasons):
        own = np.array([s == season for s in seasons])
        compared = own if own.sum() >= MIN_SEASON_WINDOWS else slice(None)
        others[own] = counts[compared].sum(axis=0) - counts[own]
    excess, sampling_variance = distance.chi_square_excess(counts, others)
    return max(0.0, float(excess.mean())), max(0.0, float(excess.var(ddof=1) - sampling_variance.mean()))


def _grouped_counts(groups: NDArray[np.intp], sketches: Sequence[Sketch]) -> NDArray[np.float64]:
    """Return the rows of each sketch in each group of bins, `[sketches, groups]`."""
    size = int(groups.max()) + 1
    return np.array([np.bincount(groups, weights=s.counts, minlength=size) for s in sketches])


def _has_drifted(window: Sequence[FeatureDrift], feature: str) -> bool:
    return any(drift.drifted for drift in window if drift.feature == feature)


def _sentence(
    rules: Drift,
    labels: tuple[str, ...],
    drifted: Sequence[FeatureDrift],
    newest: Sequence[FeatureDrift],
    counts: Mapping[str, int],
) -> str:
    if not drifted:
        top = newest[0]
        return (
            f"none of {len(newest)} drifted in {labels[-1]}; furthest is {top.feature}, effect {top.effect:.2f} "
            f"(bound {rules.effect:g}), p {top.p_value:.2g}"
        )
    named = ", ".join(
        f"{d.feature} {d.effect:.2f} ({counts[d.feature]} of {len(labels)} windows)" for d in drifted[:NAMED_FEATURES]
    )
    more = f" and {len(drifted) - NAMED_FEATURES} more" if len(drifted) > NAMED_FEATURES else ""
    return (
        f"{len(drifted)} of {len(newest)} drifted in {describe_windows(labels)}: {named}{more}; "
        f"effect bound {rules.effect:g}, false-discovery rate {1 - rules.confidence:.2g}"
    )
