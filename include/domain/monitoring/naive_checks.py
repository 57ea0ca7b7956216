"""Naive checks: the rules that are in common use, by name, for a spec that asks for them.

They take sample size and season for drift, so none of them is a trigger by default.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from include.domain.bounds import SECTION, Confidence, NonNegativeFloat
from include.domain.monitoring.signal import Signal, SignalState, describe_windows, unknown
from include.domain.monitoring.sketch import Sketch, Sketches

CheckName = Literal["ks", "mean_score"]


@dataclass(frozen=True)
class Simple:
    """The `watch.simple` section of a spec: the naive checks that are shown and can be named in `retraining.triggers`.

    `ks` fires when the p-value of any number is below `ks_p`; `mean_score` when the mean score has changed by more than the
    share `score_shift`.
    """

    __pydantic_config__ = SECTION
    checks: tuple[CheckName, ...] = ()
    ks_p: Confidence = 0.05
    score_shift: NonNegativeFloat = 0.1


def ks(rules: Simple, reference: Sketches, window: Sketches, label: str) -> Signal:
    """Return the signal `ks`: the Kolmogorov-Smirnov test of every number, not corrected for how many there are."""
    numbers = [f for f in window if f in reference and window[f].numeric]
    p_values = {f: ks_p_value(window[f], reference[f]) for f in numbers}
    if not p_values:
        return unknown("ks", f"no number to compare in {label}", (label,))
    lowest = min(p_values, key=lambda f: p_values[f])
    below = sum(p < rules.ks_p for p in p_values.values())
    sentence = (
        f"{below} of {len(p_values)} numbers have p < {rules.ks_p:g} in {label}; "
        f"smallest is {lowest}'s, {p_values[lowest]:.2g}"
    )
    state = SignalState.FIRE if below else SignalState.OK
    return Signal("ks", state, sentence, p_values[lowest], rules.ks_p, windows=(label,))


def ks_p_value(a: Sketch, b: Sketch) -> float:
    """Return the p-value of the hypothesis that the present numbers of both have one distribution, or 1 for an empty side.

    It is the two-sample test by Kolmogorov's limit, with sup|F − G| taken over the edges of the bins.
    """
    from scipy.special import kolmogorov  # imported here, because DAG files reach this module when they are parsed

    n, m = (float(s.counts[1:].sum()) for s in (a, b))
    if not n or not m:
        return 1.0
    distance = np.abs(np.cumsum(a.counts[1:]) / n - np.cumsum(b.counts[1:]) / m).max()
    return float(kolmogorov(np.sqrt(n * m / (n + m)) * distance))


def mean_score(rules: Simple, live: float, reference: float, windows: tuple[str, ...]) -> Signal:
    """Return the signal `mean_score`: the mean of the live scores against that of the test windows, `reference`."""
    change = live / reference - 1
    state = SignalState.FIRE if abs(change) > rules.score_shift else SignalState.OK
    sentence = (
        f"mean score {live:.4f} in {describe_windows(windows)}, {change:+.1%} of the {reference:.4f} of the test windows; "
        f"bound {rules.score_shift:.0%}"
    )
    return Signal("mean_score", state, sentence, abs(change), rules.score_shift, windows=windows)
