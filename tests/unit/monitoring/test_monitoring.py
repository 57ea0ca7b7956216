"""The watch, from tables and logged predictions to a decision in the ledger, on fakes of the ports."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring.signal import SignalState
from include.domain.windows import window_label
from include.reports import summary
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import monitoring, timeline
from include.stages.monitoring.monitoring import SIGNAL_NAMES, Look
from include.stages.monitoring.online_comparison import Comparison
from tests.watching import ROWS, SPEC, START, World, hotter, reversed_truth, window


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def states(look: Look) -> dict[str, SignalState]:
    return {s.name: s.state for s in look.signals}


def decisions(world: World) -> list[RetrainingDecided]:
    return world.ledger.read("flights", RetrainingDecided)


def test_days_like_those_of_the_training_are_ok_and_start_nothing(world: World) -> None:
    world.live(range(42, 50))
    look = world.look()
    assert [s.name for s in look.signals] == list(SIGNAL_NAMES)
    assert set(states(look).values()) == {SignalState.OK}, [s for s in look.signals if s.state is not SignalState.OK]
    decision = world.decide()
    assert (decision.start, decision.sentence) == (False, "no trigger fires")
    assert decisions(world)[0].champion == "1"


def test_concept_drift_is_found_by_performance_alone_and_asks_for_a_training(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    found = states(world.look())
    assert {found["logloss"], found["auc"]} == {SignalState.FIRE}
    assert {found["feature_drift"], found["prediction_drift"], found["estimated_auc"]} == {SignalState.OK}
    decision = world.decide()
    assert (decision.start, decision.request) == (True, f"logloss-{window_label(START + timedelta(days=49))}")
    assert decisions(world)[0].sentence == decision.sentence


def test_only_events_whose_label_is_due_count(world: World) -> None:
    world.live(range(42, 44))
    look = world.look()
    assert look["logloss"].state is SignalState.UNKNOWN
    assert "300 predictions with due labels" in look["logloss"].sentence


def test_moved_features_fire_and_the_predictions_follow(world: World) -> None:
    world.live(range(42, 45), land=hotter, serve=lambda c: {**hotter(c), "chance": np.minimum(c["chance"] * 1.5, 0.99)})
    found = states(world.look())
    assert {found["feature_drift"], found["prediction_drift"]} == {SignalState.FIRE}


def test_drift_in_a_feature_that_the_champion_hardly_uses_only_warns(world: World) -> None:
    world.registry.champion = world.train("2", 0, importance={"temp": 0.001, "dest": 0.999})
    world.live(range(42, 45), land=hotter, serve=hotter)
    assert world.look()["feature_drift"].state is SignalState.WARN


def test_broken_input_blocks_retraining(world: World) -> None:
    def broken(columns: dict[str, Any]) -> dict[str, Any]:
        return {**reversed_truth(columns), "temp": np.full(ROWS, np.nan)}

    world.live(range(42, 50), land=broken, serve=broken)
    decision = world.decide()
    assert not decision.start
    assert "the input is broken" in decision.sentence
    assert "temp" in decision.sentence


def test_a_server_that_was_given_other_values_than_the_table_holds_is_skewed(world: World) -> None:
    world.live(range(42, 43), serve=hotter)
    assert world.look()["skew"].state is SignalState.FIRE


def test_a_day_without_traffic_is_unknown_and_never_ok(world: World) -> None:
    world.land(42)
    found = states(world.look())
    for name in ("logloss", "auc", "calibration", "estimated_auc", "label_rate", "prediction_drift", "skew"):
        assert found[name] is SignalState.UNKNOWN


def test_labels_that_never_landed_are_unknown(world: World) -> None:
    world.live(range(42, 50), land=lambda c: {**c, "late": np.full(ROWS, np.nan)})
    for day in range(42, 50):
        rows = world.tables.read("landed", [window(day)])
        nulls = rows.set_column(rows.column_names.index("late"), "late", pa.nulls(ROWS, pa.float64()))
        world.tables.replace("landed", {window(day): nulls}, "r")
    assert world.look()["logloss"].state is SignalState.UNKNOWN


def test_without_a_champion_everything_is_unknown_and_the_no_is_recorded(world: World) -> None:
    world.registry.champion = None
    assert set(states(world.look()).values()) == {SignalState.UNKNOWN}
    assert world.decide().sentence == "no champion yet"
    assert decisions(world)[0].start is False


def test_a_champion_whose_artifact_is_damaged_is_unknown_with_the_reason(world: World) -> None:
    (world.folder / "run1" / "dcn" / "encoding.json").write_text("{}")
    look = world.look()
    assert set(states(look).values()) == {SignalState.UNKNOWN}
    assert "encoding.json" in look["logloss"].sentence


def test_a_table_of_another_schema_is_unknown(world: World) -> None:
    def without(columns: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in columns.items() if k != "dest"}

    for day in range(43):
        world.land(day, without)
    look = world.look()
    assert look["feature_drift"].state is SignalState.UNKNOWN
    assert "lacks dest" in look["feature_drift"].sentence


def test_numbers_that_have_become_words_are_unknown_with_the_column(world: World) -> None:
    for day in range(50):
        world.land(day, lambda c: {**c, "temp": ["warm"] * ROWS})
    look = world.look()
    assert look["missing"].state is SignalState.UNKNOWN
    assert "lacks temp" in look["missing"].sentence
    assert world.decide().start is False


def test_a_reference_that_is_gone_is_unknown(world: World) -> None:
    world.live(range(42, 50))
    for day in range(28):
        gone = world.tables.read("features", [window(day)]).slice(0, 0)
        world.tables.replace("features", {window(day): gone}, "r")
    look = world.look()
    assert look["feature_drift"].sentence == "the champion's training windows are gone"
    assert {look[name].state for name in ("feature_drift", "missing", "unseen", "volume")} == {SignalState.UNKNOWN}


def test_a_new_category_everywhere_blocks_and_is_named(world: World) -> None:
    def renamed(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "dest": [f"terminal {d}" for d in columns["dest"]]}

    world.live(range(42, 50), land=lambda c: reversed_truth(renamed(c)), serve=renamed)
    look = world.look()
    assert (look["unseen"].state, look["feature_drift"].state) == (SignalState.FIRE, SignalState.FIRE)
    decision = world.decide()
    assert not decision.start
    assert "never saw in dest" in decision.sentence


def test_features_without_any_value_are_never_ok(world: World) -> None:
    def empty(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "temp": pa.nulls(ROWS, pa.float64()), "dest": pa.nulls(ROWS, pa.string())}

    world.live(range(42, 49))
    world.land(49, empty)
    look = world.look()
    assert (look["missing"].state, look["feature_drift"].state) == (SignalState.FIRE, SignalState.FIRE)


def test_a_window_years_ahead_is_a_clock_that_jumped(world: World) -> None:
    world.live(range(42, 50))
    world.land(2000)
    look = world.look()
    assert look["age"].state is SignalState.UNKNOWN
    assert "the clock jumped: after 2013-02-25" in look["age"].sentence
    assert look["volume"].state is SignalState.WARN
    assert len(look["volume"].sentence) < 250
    assert world.decide().start is False


def test_scores_of_the_test_windows_that_are_half_written_are_named(world: World) -> None:
    path = world.folder / "run1" / "evaluation" / "scores.npz"
    path.write_bytes(path.read_bytes()[:500])
    world.live(range(42, 50))
    look = world.look()
    assert set(states(look).values()) == {SignalState.UNKNOWN}
    assert "scores.npz: its SHA-256" in look["auc"].sentence


def test_predictions_without_a_key_or_a_time_are_left_out(world: World) -> None:
    world.land(42)
    world.serve(42, spoil=lambda c: {**c, "id": [None] * ROWS})
    world.serve(42, spoil=lambda c: {**c, "at": [None] * ROWS})
    look = world.look()
    assert look["skew"].state is SignalState.UNKNOWN
    assert look["prediction_drift"].state is SignalState.UNKNOWN


def test_a_clock_before_the_champions_data_is_unknown(world: World) -> None:
    early = monitoring.sense(SPEC, tables=world.tables, signals=world, registry=world.registry,  # type: ignore[arg-type]
                             as_of=START + timedelta(days=20))  # fmt: skip
    assert SignalState.OK not in states(early).values()


def test_the_same_run_asked_twice_gets_one_answer_and_leaves_one_row(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    assert world.decide() == world.decide()
    assert len(world.ledger.events) == 1


def news(world: World) -> bool:
    return monitoring.news(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger)  # type: ignore[arg-type]


def test_there_is_news_until_it_was_looked_at_and_again_when_anything_moved(world: World) -> None:
    world.live(range(42, 44))
    assert news(world)
    world.decide("watch-1")
    assert not news(world)
    world.serve(44)
    assert news(world)
    world.decide("watch-2")
    world.land(44)
    assert news(world)
    world.decide("watch-3")
    world.registry.champion = world.train("2", 1)
    assert news(world)


def test_why_answers_for_any_moment_with_the_decision_that_stood_then(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    world.decide("watch-1", paused=True)
    looked = datetime(2013, 3, 1, tzinfo=UTC)

    def why(at: datetime) -> str:
        return summary.why("flights", world.ledger, at)

    assert "had not looked once" in why(looked - timedelta(minutes=1))
    answer = why(looked + timedelta(minutes=4)).splitlines()
    assert answer[0] == "nothing started: logloss fires, but retraining is paused by a person"
    assert "watch-1" in answer[1]
    assert sum(line.split()[:2] == ["fire", "logloss"] for line in answer) == 1
    assert "did not look again" in why(looked + timedelta(hours=2))


def test_the_next_look_cools_down(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    world.decide("watch-1")
    assert "cooling down" in world.decide("watch-2").sentence


def test_a_pause_and_a_running_training_are_respected(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    assert "paused by a person" in world.decide("a", paused=True).sentence
    assert "t-1 is still running" in world.decide("b", running="t-1").sentence


def test_after_a_retraining_it_is_told_whether_the_cause_has_gone(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    request = world.decide("watch-1").request
    world.registry.champion = world.train("2", 8)
    for day in range(50, 58):
        world.land(day)
        world.serve(day, version="2")
    world.decide("watch-2")
    world.decide("watch-3")
    rechecks = world.ledger.read("flights", CauseRechecked)
    assert [(event.request, event.cleared, event.champion) for event in rechecks] == [(request, True, "2")]


def test_the_course_shows_every_window_since_the_training_and_when_a_request_was_made(world: World) -> None:
    world.live(range(42, 50), land=reversed_truth)
    world.decide()
    found = timeline.course(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger)  # type: ignore[arg-type]
    assert found is not None
    served = window_label(START + timedelta(days=45))
    assert list(found.points) == [window_label(START + timedelta(days=d)) for d in range(28, 50)] == list(found.moved)
    measured, promised = found.points[served].auc, found.points[served].estimated_auc
    assert measured is not None
    assert promised is not None
    assert measured[2] < found.test["auc"] - 0.1 < promised
    assert found.points[window_label(START + timedelta(days=30))].auc is None
    assert [decision.start for decision in found.decisions] == [True]


def test_without_a_champion_there_is_no_course(world: World) -> None:
    world.registry.champion = None
    assert (
        timeline.course(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger) is None
    )  # type: ignore[arg-type]


def arms(world: World) -> list[Comparison]:
    found = timeline.course(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger)  # type: ignore[arg-type]
    assert found is not None
    return list(found.arms)


def half(first: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda columns: {name: list(values)[first::2] for name, values in columns.items()}


def test_two_versions_live_at_once_are_compared_on_the_requests_that_only_one_of_them_answered(world: World) -> None:
    for day in range(42, 50):
        world.land(day)
        world.serve(day, spoil=half(0))
        world.serve(day, version="2", spoil=lambda c: {**half(1)(c), "chance": [0.5] * (ROWS // 2)})
    found = arms(world)[0]
    assert (found.version, found.other, found.rows) == ("2", "1", (7 * ROWS // 2, 7 * ROWS // 2))
    value, low, high = found.metrics["logloss"]
    assert 0 < low < value < high


def test_a_version_that_was_only_mirrored_is_no_arm(world: World) -> None:
    world.live(range(42, 50))
    for day in range(42, 50):
        world.serve(day, version="2")
    assert arms(world) == []


def test_a_simple_rule_that_the_spec_names_is_shown_and_can_start_a_training(world: World) -> None:
    world.live(range(42, 50), land=hotter, serve=lambda c: {**hotter(c), "chance": np.minimum(c["chance"] * 1.5, 0.99)})
    named = {"simple": {"checks": ["ks", "mean_score"]}, "retraining": {"triggers": ["mean_score"]}}
    spec = ModelSpec.model_validate({**SPEC.model_dump(), "watch": named})
    look = monitoring.sense(spec, tables=world.tables, signals=world, registry=world.registry)  # type: ignore[arg-type]
    assert (look["ks"].state, look["mean_score"].state) == (SignalState.FIRE, SignalState.FIRE)
    assert monitoring.decide_and_record(spec, look, world.ledger, run="r").cause == "mean_score"  # type: ignore[arg-type]
    assert "ks" not in states(world.look())
