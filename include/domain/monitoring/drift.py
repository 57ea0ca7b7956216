"""How far production has moved from what the model was trained on.

A feature has drifted in a window when it moved *far* (effect size) and *surely*: further than the reference's own
windows of that size move from each other, with the false-discovery rate over all features kept at `1 − confidence`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Confidence, NonNegativeFloat, PositiveInt, Share
from include.domain.monitoring import distance
from include.domain.monitoring.signal import Signal, State, span, unknown
from include.domain.monitoring.sketch import Sketch, Sketches, total

#: So few like windows (same hour, same weekday) say nothing about how windows differ; then all of them are used.
MIN_LIKE = 4


@dataclass(frozen=True)
class Drift:
    """The `watch.drift` section of a spec.

    `effect` is in standard deviations (Wasserstein) for a number, a Jensen-Shannon distance (0 to 1) for a category.
    Fires on drift in the newest window and in `windows_needed` of the last `recent_windows`, or in the newest alone when
    it is `sudden` times the effect. A feature below `min_importance` (share of the model's total, where known) only warns.
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
class History:
    """The reference: per window its sketches and its season (what makes windows alike); `knots` bin the numbers."""

    windows: Sequence[Sketches]
    seasons: Sequence[Hashable]
    knots: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Moved:
    """One feature in one window against the reference. `effect` is corrected for sample size; `p` is of the null that
    the window is one more reference window; `drifted` after false-discovery control and the effect's bound."""

    feature: str
    effect: float
    p: float
    psi: float
    drifted: bool


def compare(rules: Drift, history: History, window: Sketches, season: Hashable) -> list[Moved]:
    """Every feature that the window and all of the reference have, largest effect first."""
    shared = [f for f in window if history.windows and all(f in w for w in history.windows)]
    rows = [_moved(f, history, window[f], season) for f in shared]
    surely = distance.discoveries([m.p for m in rows], 1 - rules.confidence)
    judged = [
        Moved(m.feature, m.effect, m.p, m.psi, bool(sure and m.effect >= rules.effect))
        for m, sure in zip(rows, surely, strict=True)
    ]
    return sorted(judged, key=lambda m: -m.effect)


def signal(name: str, rules: Drift, recent: Mapping[str, Sequence[Moved]],
           importance: Mapping[str, float] | None = None) -> Signal:  # fmt: skip
    """`recent`: by window label, oldest first, what moved. `importance`: the features' shares, which sum to 1."""
    labels = tuple(recent)[-rules.recent_windows :]
    if not labels or not recent[labels[-1]]:
        return unknown(name, "no recent window has rows enough to compare", labels)
    newest = recent[labels[-1]]
    times = {m.feature: sum(_drifted(recent[w], m.feature) for w in labels) for m in newest}
    matters = {m.feature: importance is None or importance.get(m.feature, 0.0) >= rules.min_importance for m in newest}
    fired = [m for m in newest if m.drifted and matters[m.feature]
             and (times[m.feature] >= rules.windows_needed or m.effect >= rules.sudden * rules.effect)]  # fmt: skip
    seen = [m for m in newest if m.drifted]
    state = State.FIRE if fired else State.WARN if seen else State.OK
    top = (fired or seen or list(newest))[0]
    return Signal(name, state, _sentence(rules, labels, fired or seen, newest, times), top.effect, rules.effect,
                  windows=labels)  # fmt: skip


def _moved(feature: str, history: History, window: Sketch, season: Hashable) -> Moved:
    past = [w[feature] for w in history.windows]
    alike = [i for i, s in enumerate(history.seasons) if s == season]
    like = [past[i] for i in alike] if len(alike) >= MIN_LIKE else past
    reference = total(like)
    groups = distance.groups(reference.counts, window.rows, ordered=window.numeric)
    now, then = _grouped(groups, [window]), _grouped(groups, [reference])
    excess, spread = _natural(groups, past, history.seasons)
    p = distance.p_value(now[0], then[0], excess, spread)
    effect = distance.jensen_shannon(now[0], then[0])
    if window.numeric:
        effect = max(effect, distance.wasserstein(window, reference, history.knots[feature]))
    return Moved(feature, effect, p, distance.psi(now[0], then[0]), False)


def _natural(groups: NDArray[np.intp], past: Sequence[Sketch], seasons: Sequence[Hashable]) -> tuple[float, float]:
    """How far reference windows lie from the others of their season beyond noise: mean and variance of the excess."""
    if len(past) < MIN_LIKE:
        return 0.0, 0.0
    counts = _grouped(groups, past)
    rest = np.empty_like(counts)
    for season in dict.fromkeys(seasons):
        own = np.array([s == season for s in seasons])
        rest[own] = counts[own if own.sum() >= MIN_LIKE else slice(None)].sum(axis=0) - counts[own]
    excess, noise = distance.excess(counts, rest)
    return max(0.0, float(excess.mean())), max(0.0, float(excess.var(ddof=1) - noise.mean()))


def _grouped(groups: NDArray[np.intp], sketches: Sequence[Sketch]) -> NDArray[np.float64]:
    """Counts `[sketches, groups]`."""
    size = int(groups.max()) + 1
    return np.array([np.bincount(groups, weights=s.counts, minlength=size) for s in sketches])


def _drifted(moved: Sequence[Moved], feature: str) -> bool:
    return any(m.drifted for m in moved if m.feature == feature)


def _sentence(rules: Drift, labels: tuple[str, ...], drifted: Sequence[Moved], newest: Sequence[Moved],
              times: Mapping[str, int]) -> str:  # fmt: skip
    if not drifted:
        top = newest[0]
        return (f"none of {len(newest)} drifted in {labels[-1]}; furthest is {top.feature}, effect {top.effect:.2f} "
                f"(bound {rules.effect:g}), p {top.p:.2g}")  # fmt: skip
    named = ", ".join(f"{m.feature} {m.effect:.2f} ({times[m.feature]} of {len(labels)} windows)" for m in drifted[:4])
    more = f" and {len(drifted) - 4} more" if len(drifted) > 4 else ""
    return (f"{len(drifted)} of {len(newest)} drifted in {span(labels)}: {named}{more}; effect bound {rules.effect:g}, "
            f"false-discovery rate {1 - rules.confidence:.2g}")  # fmt: skip
