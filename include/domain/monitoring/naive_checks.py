"""The common simple rules, as checks by name for who wants them: they mistake sample size and season for drift."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from include.domain.bounds import SECTION, Confidence, NonNegativeFloat
from include.domain.monitoring.signal import Signal, State, span, unknown
from include.domain.monitoring.sketch import Sketch, Sketches

Rule = Literal["ks", "mean_score"]


@dataclass(frozen=True)
class Simple:
    """The `watch.simple` section of a spec: the checks that are shown and can be named in `retraining.triggers`.

    `ks` fires when any number's p falls below `ks_p`; `mean_score` when the mean score moved by more than the share
    `score_shift`.
    """

    __pydantic_config__ = SECTION
    checks: tuple[Rule, ...] = ()
    ks_p: Confidence = 0.05
    score_shift: NonNegativeFloat = 0.1


def ks(rules: Simple, reference: Sketches, window: Sketches, label: str) -> Signal:
    """Kolmogorov and Smirnov's test of every number, uncorrected for how many there are."""
    ps = {f: ks_p_value(window[f], reference[f]) for f in window if f in reference and window[f].numeric}
    if not ps:
        return unknown("ks", f"no number to compare in {label}", (label,))
    worst = min(ps, key=lambda f: ps[f])
    below = sum(p < rules.ks_p for p in ps.values())
    sentence = (
        f"{below} of {len(ps)} numbers have p < {rules.ks_p:g} in {label}; smallest is {worst}'s, {ps[worst]:.2g}"
    )
    return Signal("ks", State.FIRE if below else State.OK, sentence, ps[worst], rules.ks_p, windows=(label,))


def ks_p_value(a: Sketch, b: Sketch) -> float:
    """P(sup|F − G| this large) for equal distributions of the known numbers, at the bins' edges (Kolmogorov's limit)."""
    from scipy.special import kolmogorov

    n, m = (float(s.counts[1:].sum()) for s in (a, b))
    if not n or not m:
        return 1.0
    apart = np.abs(np.cumsum(a.counts[1:]) / n - np.cumsum(b.counts[1:]) / m).max()
    return float(kolmogorov(np.sqrt(n * m / (n + m)) * apart))


def mean_score(rules: Simple, now: float, usual: float, windows: tuple[str, ...]) -> Signal:
    """`now` of the live scores against `usual`, that of the test windows."""
    shift = now / usual - 1
    moved = f"mean score {now:.4f} in {span(windows)}, {shift:+.1%} of the {usual:.4f} of the test windows"
    state = State.FIRE if abs(shift) > rules.score_shift else State.OK
    sentence = f"{moved}; bound {rules.score_shift:.0%}"
    return Signal("mean_score", state, sentence, abs(shift), rules.score_shift, windows=windows)
