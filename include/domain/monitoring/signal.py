"""A signal: one thing seen in production, how sure it is, and what it says."""

from dataclasses import dataclass
from enum import StrEnum

#: Every signal that is always measured, in the order in which they are shown.
NAMES = (
    "age", "labels", "logloss", "auc", "calibration", "estimated_auc", "label_rate",
    "feature_drift", "prediction_drift", "missing", "unseen", "volume", "skew",
)  # fmt: skip


class State(StrEnum):
    """`warn` is seen but not sure or not large; `fire` is both. `unknown` is missing evidence, and never `ok`."""

    OK = "ok"
    WARN = "warn"
    FIRE = "fire"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Signal:
    """`sentence` carries the numbers for a person; `interval` is (low, high) of `value`; `windows` it rests on."""

    name: str
    state: State
    sentence: str
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None
    windows: tuple[str, ...] = ()


def unknown(name: str, reason: str, windows: tuple[str, ...] = ()) -> Signal:
    return Signal(name, State.UNKNOWN, reason, windows=windows)


def rise(name: str, sentence: str, value: float, interval: tuple[float, float], *, bound: float,
         windows: tuple[str, ...] = ()) -> Signal:  # fmt: skip
    """Fires when the whole interval lies above the bound, warns when the value alone does."""
    state = State.FIRE if interval[0] > bound else State.WARN if value > bound else State.OK
    return Signal(name, state, sentence, value, bound, interval, windows)


def span(windows: tuple[str, ...]) -> str:
    """`2013-06-24 to 2013-06-30`, for a sentence."""
    if not windows:
        return "no window"
    return windows[0] if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
