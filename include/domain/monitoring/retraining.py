"""Retraining: whether to train again, and why. Signals come in, a decision with its reason goes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.bounds import SECTION, Duration, NonNegativeFloat, PositiveDuration, PositiveInt
from include.domain.monitoring.signal import Signal, SignalState, unknown
from include.domain.windows import window_label


@dataclass(frozen=True)
class Retraining:
    """The `watch.retraining` section of a spec.

    A signal of `triggers` that fires asks for a training; the first named is the cause. A signal of `blocks` that fires means
    broken input, on which nothing is trained. `cool_down` counts on the data's clock, from the champion's data or the last
    request. `new_labels` is how many new labelled rows ask for a training; without it their number is only shown.
    `max_hours_a_month` bounds the hours of training, those of each GPU or process added up, over the last 30 days.
    """

    __pydantic_config__ = SECTION
    triggers: tuple[str, ...] = ("logloss", "auc", "calibration", "prediction_drift", "feature_drift", "labels", "age")
    blocks: tuple[str, ...] = ("missing", "unseen", "volume", "skew")
    max_age: PositiveDuration = timedelta(days=21)  #: three times the cool-down
    new_labels: PositiveInt | None = None
    cool_down: Duration = timedelta(days=7)
    max_hours_a_month: NonNegativeFloat | None = None


@dataclass(frozen=True)
class RetrainingContext:
    """What a decision depends on beside the signals; all times are on the data's clock.

    `now` is the end of the newest landed window, `data_ends` the end of the champion's newest window, `requested` the time of
    the last request, `running` the training that is running, and `paused` whether a person has paused retraining.
    """

    now: datetime
    data_ends: datetime | None = None
    requested: datetime | None = None
    running: str | None = None
    paused: bool = False
    hours_spent: float = 0.0


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether to start a training, and why.

    `cause` names the trigger that fired first. `request` names the request for a training: it is the same for the same cause
    and window, whoever decides.
    """

    start: bool
    sentence: str
    cause: str | None = None
    request: str | None = None


def decide(
    rules: Retraining, signals: Sequence[Signal], context: RetrainingContext, newest_window: str
) -> RetrainingDecision:
    """Return the decision that follows from the signals, with the label of the newest landed window in its request."""
    by_name = {s.name: s for s in signals}
    firing = [by_name[n] for n in rules.triggers if n in by_name and by_name[n].state is SignalState.FIRE]
    if not firing:
        return RetrainingDecision(False, _no_trigger_fires(rules, by_name))
    cause = firing[0]
    if obstacle := _obstacle(rules, by_name, context):
        return RetrainingDecision(False, f"{cause.name} fires, but {obstacle}", cause.name)
    others = f" ({', '.join(s.name for s in firing[1:])} fired too)" if len(firing) > 1 else ""
    sentence = f"{cause.name}: {cause.sentence}{others}"
    return RetrainingDecision(True, sentence, cause.name, f"{cause.name}-{newest_window}")


def age(rules: Retraining, data_ends: datetime, now: datetime, before_jump: str | None = None) -> Signal:
    """Return the signal `age`: days from the end of the champion's data to now, on the data's clock.

    `before_jump` is the label of the window before the newest one, where the clock seems to have jumped between them.
    """
    if before_jump is not None:
        return unknown(
            "age", f"the clock jumped: after {before_jump} the next window is the one that ends {window_label(now)}"
        )
    days, bound = (now - data_ends) / timedelta(days=1), rules.max_age / timedelta(days=1)
    if days < 0:
        reason = (
            f"the clock jumped: the data ends {window_label(now)}, before the champion's own, {window_label(data_ends)}"
        )
        return unknown("age", reason)
    state = SignalState.FIRE if days >= bound else SignalState.OK
    ends = window_label(data_ends)
    sentence = f"the champion's data ends {ends}, {days:.0f} days before the newest window; bound {bound:.0f}"
    return Signal("age", state, sentence, days, bound, (days, days))


def new_labels(rules: Retraining, rows: int, windows: tuple[str, ...]) -> Signal:
    """Return the signal `labels`: the labelled rows in `windows`, the windows that came after the champion's data."""
    if not windows:
        return unknown("labels", "no window has landed since the champion's data")
    bound = rules.new_labels
    state = SignalState.FIRE if bound is not None and rows >= bound else SignalState.OK
    sentence = f"{rows:,} labelled rows since the champion's data" + (f"; bound {bound:,}" if bound else "")
    return Signal("labels", state, sentence, rows, bound, (rows, rows), windows)


def _obstacle(rules: Retraining, by_name: Mapping[str, Signal], context: RetrainingContext) -> str | None:
    """Return the first reason not to train now, None where there is none."""
    broken = [by_name[n] for n in rules.blocks if n in by_name and by_name[n].state is SignalState.FIRE]
    if broken:
        return f"the input is broken, and training on it would learn the fault: {broken[0].sentence}"
    if context.paused:
        return "retraining is paused by a person"
    if context.running:
        return f"{context.running} is still running"
    last = max((t for t in (context.data_ends, context.requested) if t), default=None)
    if last and context.now < last + rules.cool_down:
        what = "request" if last == context.requested else "champion's data"
        return f"the last {what} is of {window_label(last)}: cooling down until {window_label(last + rules.cool_down)}"
    if rules.max_hours_a_month is not None and context.hours_spent >= rules.max_hours_a_month:
        return f"{context.hours_spent:.1f} of {rules.max_hours_a_month:g} training hours of the last 30 days are spent"
    return None


def _no_trigger_fires(rules: Retraining, by_name: Mapping[str, Signal]) -> str:
    """Return the sentence for that, with the triggers that warn or are unknown."""
    unknown_names = [n for n in rules.triggers if n not in by_name or by_name[n].state is SignalState.UNKNOWN]
    warning = [n for n in rules.triggers if n in by_name and by_name[n].state is SignalState.WARN]
    sentence = "no trigger fires"
    sentence += f"; warned: {', '.join(warning)}" if warning else ""
    return sentence + (f"; unknown: {', '.join(unknown_names)}" if unknown_names else "")
