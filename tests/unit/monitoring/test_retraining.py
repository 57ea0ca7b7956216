"""The decision to retrain: one reason, one request, and an answer to every `why not`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from include.domain.monitoring.retraining import Retraining, RetrainingContext, age, decide, new_labels
from include.domain.monitoring.signal import Signal, SignalState

NOW = datetime(2013, 7, 1, tzinfo=UTC)
RULES = Retraining()
QUIET = RetrainingContext(NOW, data_ends=datetime(2013, 4, 1, tzinfo=UTC))


def signal(name: str, state: SignalState = SignalState.FIRE) -> Signal:
    return Signal(name, state, f"{name} says so")


def test_the_first_trigger_that_fires_is_the_cause() -> None:
    signals = [signal("feature_drift"), signal("logloss"), signal("age", SignalState.OK)]
    decision = decide(RULES, signals, QUIET, "2013-06-30")
    assert decision.start
    assert (decision.cause, decision.request) == ("logloss", "logloss-2013-06-30")
    assert decision.sentence == "logloss: logloss says so (feature_drift fired too)"


def test_the_same_cause_and_window_make_the_same_request() -> None:
    later = replace(QUIET, now=NOW + timedelta(hours=1))
    first, second = (decide(RULES, [signal("auc")], at, "2013-06-30") for at in (QUIET, later))
    assert first.request == second.request


def test_quiet_signals_start_nothing_and_unknown_ones_are_named() -> None:
    decision = decide(RULES, [signal("age", SignalState.OK), signal("logloss", SignalState.UNKNOWN)], QUIET, "w")
    assert not decision.start
    assert "unknown: logloss" in decision.sentence


def test_a_signal_that_is_no_trigger_starts_nothing() -> None:
    assert not decide(RULES, [signal("label_rate")], QUIET, "w").start


@pytest.mark.parametrize(
    ("signals", "context", "reason"),
    [
        ([signal("missing")], QUIET, "the input is broken"),
        ([], replace(QUIET, paused=True), "paused by a person"),
        ([], replace(QUIET, running="flights-2"), "flights-2 is still running"),
        ([], replace(QUIET, data_ends=NOW - timedelta(days=3)), "cooling down until 2013-07-05"),
        ([], replace(QUIET, requested=NOW - timedelta(days=2)), "the last request is of 2013-06-29"),
    ],
)
def test_a_run_is_held_back_with_its_reason(signals: list[Signal], context: RetrainingContext, reason: str) -> None:
    decision = decide(RULES, [signal("logloss"), *signals], context, "w")
    assert not decision.start
    assert decision.request is None
    assert decision.sentence.startswith("logloss fires, but ")
    assert reason in decision.sentence


def test_a_spent_budget_holds_a_run_back() -> None:
    rules = replace(RULES, max_hours_a_month=10.0)
    assert decide(rules, [signal("age")], replace(QUIET, hours_spent=9.9), "w").start
    assert "10.0 of 10" in decide(rules, [signal("age")], replace(QUIET, hours_spent=10.0), "w").sentence


def test_age_fires_at_its_bound_and_is_unknown_when_the_clock_jumps_back() -> None:
    trained = datetime(2013, 4, 1, tzinfo=UTC)
    assert age(RULES, trained, trained + timedelta(days=20)).state is SignalState.OK
    assert age(RULES, trained, trained + timedelta(days=21)).state is SignalState.FIRE
    assert age(RULES, trained, trained - timedelta(days=1)).state is SignalState.UNKNOWN


def test_new_labels_fire_only_when_the_spec_says_how_many() -> None:
    assert new_labels(RULES, 10**6, ("w",)).state is SignalState.OK
    assert new_labels(replace(RULES, new_labels=1000), 1000, ("w",)).state is SignalState.FIRE
    assert new_labels(RULES, 0, ()).state is SignalState.UNKNOWN
