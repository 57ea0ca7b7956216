"""Whether to retrain, and why: signals in, a decision with its reason out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.bounds import SECTION, Duration, NonNegativeFloat, PositiveDuration, PositiveInt
from include.domain.monitoring.signal import Signal, State, unknown
from include.domain.windows import window_label


@dataclass(frozen=True)
class Retraining:
    """The `watch.retraining` section of a spec.

    A firing signal of `triggers` asks for a run (the first named comes first); one of `blocks` means broken input, and
    no training on garbage. `cool_down` counts on the data's clock, from the champion's data or the last request.
    """

    __pydantic_config__ = SECTION
    triggers: tuple[str, ...] = ("logloss", "auc", "calibration", "prediction_drift", "feature_drift", "labels", "age")
    blocks: tuple[str, ...] = ("missing", "unseen", "volume", "skew")
    max_age: PositiveDuration = timedelta(days=21)  #: three cool-downs
    new_labels: PositiveInt | None = (
        None  #: retrain after so many new labelled rows; left out, their number is only shown
    )
    cool_down: Duration = timedelta(days=7)
    max_hours_a_month: NonNegativeFloat | None = None  #: of training, a GPU (or process) each, over the last 30 days


@dataclass(frozen=True)
class Situation:
    """What a decision must know beside the signals, on the data's clock. `running`: the run in flight."""

    now: datetime
    trained: datetime | None = None
    requested: datetime | None = None
    running: str | None = None
    paused: bool = False
    hours_spent: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Start a run or not, and why. `request` is the same for the same cause and window, whoever decides."""

    start: bool
    sentence: str
    cause: str | None = None
    request: str | None = None


def decide(rules: Retraining, signals: Sequence[Signal], situation: Situation, newest: str) -> Decision:
    """`newest`: the label of the newest landed window."""
    state = {s.name: s for s in signals}
    firing = [state[n] for n in rules.triggers if n in state and state[n].state is State.FIRE]
    if not firing:
        return Decision(False, _quiet(rules, state))
    cause = firing[0]
    held = _held(rules, state, situation)
    if held:
        return Decision(False, f"{cause.name} fires, but {held}", cause.name)
    others = f" ({', '.join(s.name for s in firing[1:])} fired too)" if len(firing) > 1 else ""
    return Decision(True, f"{cause.name}: {cause.sentence}{others}", cause.name, f"{cause.name}-{newest}")


def age(rules: Retraining, trained: datetime, now: datetime, before: str | None = None) -> Signal:
    """Days from the newest window that the champion learnt from to now, on the data's clock.

    `before` is the window before the newest one where a clock seems to have jumped between them.
    """
    if before is not None:
        return unknown(
            "age", f"the clock jumped: after {before} the next window is the one that ends {window_label(now)}"
        )
    days, bound = (now - trained) / timedelta(days=1), rules.max_age / timedelta(days=1)
    if days < 0:
        return unknown(
            "age",
            f"the clock jumped: the data ends {window_label(now)}, before the champion's own, {window_label(trained)}",
        )
    state = State.FIRE if days >= bound else State.OK
    said = (
        f"the champion's data ends {window_label(trained)}, {days:.0f} days before the newest window; bound {bound:.0f}"
    )
    return Signal("age", state, said, days, bound, (days, days))


def new_labels(rules: Retraining, rows: int, windows: tuple[str, ...]) -> Signal:
    """Labelled rows that the champion has not seen; `windows`: those that came after its data."""
    if not windows:
        return unknown("labels", "no window has landed since the champion's data")
    bound = rules.new_labels
    state = State.FIRE if bound is not None and rows >= bound else State.OK
    said = f"{rows:,} labelled rows since the champion's data" + (f"; bound {bound:,}" if bound else "")
    return Signal("labels", state, said, rows, bound, (rows, rows), windows)


def _held(rules: Retraining, state: Mapping[str, Signal], at: Situation) -> str | None:
    """The first reason that holds a run back."""
    broken = [state[n] for n in rules.blocks if n in state and state[n].state is State.FIRE]
    if broken:
        return f"the input is broken, and training on it would learn the fault: {broken[0].sentence}"
    if at.paused:
        return "retraining is paused by a person"
    if at.running:
        return f"{at.running} is still running"
    last = max((t for t in (at.trained, at.requested) if t), default=None)
    if last and at.now < last + rules.cool_down:
        what = "request" if last == at.requested else "champion's data"
        return f"the last {what} is of {window_label(last)}: cooling down until {window_label(last + rules.cool_down)}"
    if rules.max_hours_a_month is not None and at.hours_spent >= rules.max_hours_a_month:
        return f"{at.hours_spent:.1f} of {rules.max_hours_a_month:g} training hours of the last 30 days are spent"
    return None


def _quiet(rules: Retraining, state: Mapping[str, Signal]) -> str:
    missing = [n for n in rules.triggers if n not in state or state[n].state is State.UNKNOWN]
    warned = [n for n in rules.triggers if n in state and state[n].state is State.WARN]
    said = "no trigger fires"
    said += f"; warned: {', '.join(warned)}" if warned else ""
    return said + (f"; unknown: {', '.join(missing)}" if missing else "")
