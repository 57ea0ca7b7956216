"""A signal: one property of production, measured with its uncertainty and compared with its bound."""

from dataclasses import dataclass
from enum import StrEnum

#: The signals that are always measured, in the order in which they are shown.
SIGNAL_NAMES = (
    "age",
    "labels",
    "logloss",
    "auc",
    "calibration",
    "estimated_auc",
    "label_rate",
    "feature_drift",
    "prediction_drift",
    "missing",
    "unseen",
    "volume",
    "skew",
)


class SignalState(StrEnum):
    """How a signal stands: `warn` is a change that is not certain or not large, `fire` one that is both.

    `unknown` is missing evidence, which never counts as `ok`.
    """

    OK = "ok"
    WARN = "warn"
    FIRE = "fire"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Signal:
    """One measured signal.

    `sentence` states the numbers for a person. `interval` is the lower and upper end of the confidence interval of `value`;
    `windows` are the labels of the windows that it was measured on.
    """

    name: str
    state: SignalState
    sentence: str
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None
    windows: tuple[str, ...] = ()


def fire_or_warn(*, fire: bool, warn: bool) -> SignalState:
    """Return the state that the two conditions make; `fire` goes before `warn`."""
    if fire:
        return SignalState.FIRE
    return SignalState.WARN if warn else SignalState.OK


def unknown(name: str, reason: str, windows: tuple[str, ...] = ()) -> Signal:
    """Return a signal that could not be measured, with the reason as its sentence."""
    return Signal(name, SignalState.UNKNOWN, reason, windows=windows)


def signal_from_interval(
    name: str,
    sentence: str,
    value: float,
    interval: tuple[float, float],
    *,
    bound: float,
    windows: tuple[str, ...] = (),
) -> Signal:
    """Return a signal that fires when the whole interval lies above the bound, and warns when only the value does."""
    state = fire_or_warn(fire=interval[0] > bound, warn=value > bound)
    return Signal(name, state, sentence, value, bound, interval, windows)


def describe_windows(windows: tuple[str, ...]) -> str:
    """Return the first and last label for a sentence: `2013-06-24 to 2013-06-30`."""
    if not windows:
        return "no window"
    return windows[0] if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
