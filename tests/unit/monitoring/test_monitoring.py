"""The watch, from tables and logged predictions to a decision in the ledger, on fakes of the ports."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.artifacts import store
from include.domain.errors import Corrupt
from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring.signal import SIGNAL_NAMES, SignalState
from include.domain.windows import window_label
from include.reports import summary
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import monitoring, snapshot, timeline
from include.stages.monitoring.snapshot import Snapshot
from include.stages.monitoring.timeline import Timeline
from tests.watching import NOW, ROWS, SPEC, START, WatchScenario, hotter, reversed_truth, window


@pytest.fixture
def scenario(tmp_path: Path) -> WatchScenario:
    return WatchScenario(tmp_path)


def states(measured: Snapshot) -> dict[str, SignalState]:
    return {s.name: s.state for s in measured.signals}


def hotter_and_surer(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the day with higher temperatures and higher scores."""
    return {**hotter(columns), "chance": np.minimum(columns["chance"] * 1.5, 0.99)}


def decisions(scenario: WatchScenario) -> list[RetrainingDecided]:
    return scenario.ledger.read("flights", RetrainingDecided)


def test_days_like_those_of_the_training_are_ok_and_start_nothing(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50))
    measured = scenario.take_snapshot()
    assert [s.name for s in measured.signals] == list(SIGNAL_NAMES)
    assert set(states(measured).values()) == {SignalState.OK}, [
        s for s in measured.signals if s.state is not SignalState.OK
    ]
    decision = scenario.decide()
    assert (decision.start, decision.sentence) == (False, "no trigger fires")
    assert decisions(scenario)[0].champion == "1"


def test_concept_drift_is_shown_by_performance_alone_and_asks_for_a_training(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    state = states(scenario.take_snapshot())
    assert {state["logloss"], state["auc"]} == {SignalState.FIRE}
    assert {state["feature_drift"], state["prediction_drift"], state["estimated_auc"]} == {SignalState.OK}
    decision = scenario.decide()
    assert (decision.start, decision.request) == (True, f"logloss-{window_label(START + timedelta(days=49))}")
    assert decisions(scenario)[0].sentence == decision.sentence


def test_only_events_whose_label_is_due_count(scenario: WatchScenario) -> None:
    scenario.live(range(42, 44))
    measured = scenario.take_snapshot()
    assert measured["logloss"].state is SignalState.UNKNOWN
    assert "300 predictions with due labels" in measured["logloss"].sentence


def test_moved_features_fire_and_the_predictions_follow(scenario: WatchScenario) -> None:
    scenario.live(range(42, 45), land=hotter, serve=hotter_and_surer)
    state = states(scenario.take_snapshot())
    assert {state["feature_drift"], state["prediction_drift"]} == {SignalState.FIRE}


def test_drift_in_a_feature_that_the_champion_hardly_uses_only_warns(scenario: WatchScenario) -> None:
    scenario.promote(scenario.train("2", 0, importance={"temp": 0.001, "dest": 0.999}))
    scenario.live(range(42, 45), land=hotter, serve=hotter)
    assert scenario.take_snapshot()["feature_drift"].state is SignalState.WARN


def test_broken_input_blocks_retraining(scenario: WatchScenario) -> None:
    def broken(columns: dict[str, Any]) -> dict[str, Any]:
        return {**reversed_truth(columns), "temp": np.full(ROWS, np.nan)}

    scenario.live(range(42, 50), land=broken, serve=broken)
    decision = scenario.decide()
    assert not decision.start
    assert "the input is broken" in decision.sentence
    assert "temp" in decision.sentence


def test_a_server_that_reads_other_values_than_the_table_holds_is_skewed(scenario: WatchScenario) -> None:
    scenario.live(range(42, 43), serve=hotter)
    assert scenario.take_snapshot()["skew"].state is SignalState.FIRE


def test_a_day_without_traffic_is_unknown_and_never_ok(scenario: WatchScenario) -> None:
    scenario.land(42)
    state = states(scenario.take_snapshot())
    for name in ("logloss", "auc", "calibration", "estimated_auc", "label_rate", "prediction_drift", "skew"):
        assert state[name] is SignalState.UNKNOWN


def test_labels_that_never_landed_are_unknown(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=lambda c: {**c, "late": np.full(ROWS, np.nan)})
    for day in range(42, 50):
        rows = scenario.tables.read("landed", [window(day)])
        nulls = rows.set_column(rows.column_names.index("late"), "late", pa.nulls(ROWS, pa.float64()))
        scenario.tables.replace("landed", {window(day): nulls}, "r")
    assert scenario.take_snapshot()["logloss"].state is SignalState.UNKNOWN


def test_without_a_champion_everything_is_unknown_and_the_no_is_recorded(scenario: WatchScenario) -> None:
    scenario.registry.aliases.clear()
    assert set(states(scenario.take_snapshot()).values()) == {SignalState.UNKNOWN}
    assert scenario.decide().sentence == "no champion yet"
    assert decisions(scenario)[0].start is False


def test_a_champion_whose_artifact_is_damaged_is_unknown_with_the_reason(scenario: WatchScenario) -> None:
    (scenario.folder / "run1" / "dcn" / "encoding.json").write_text("{}")
    measured = scenario.take_snapshot()
    assert set(states(measured).values()) == {SignalState.UNKNOWN}
    assert "encoding.json" in measured["logloss"].sentence


def test_a_table_of_another_schema_is_unknown(scenario: WatchScenario) -> None:
    def without(columns: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in columns.items() if k != "dest"}

    for day in range(43):
        scenario.land(day, without)
    measured = scenario.take_snapshot()
    assert measured["feature_drift"].state is SignalState.UNKNOWN
    assert "lacks dest" in measured["feature_drift"].sentence


def test_numbers_that_have_become_words_are_unknown_with_the_column(scenario: WatchScenario) -> None:
    for day in range(50):
        scenario.land(day, lambda c: {**c, "temp": ["warm"] * ROWS})
    measured = scenario.take_snapshot()
    assert measured["missing"].state is SignalState.UNKNOWN
    assert "lacks temp" in measured["missing"].sentence
    assert scenario.decide().start is False


def test_a_reference_that_is_gone_is_unknown(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50))
    for day in range(28):
        gone = scenario.tables.read("features", [window(day)]).slice(0, 0)
        scenario.tables.replace("features", {window(day): gone}, "r")
    measured = scenario.take_snapshot()
    assert measured["feature_drift"].sentence == "the champion's training windows are gone"
    assert {measured[name].state for name in ("feature_drift", "missing", "unseen", "volume")} == {SignalState.UNKNOWN}


def test_a_new_category_everywhere_blocks_and_is_named(scenario: WatchScenario) -> None:
    def renamed(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "dest": [f"terminal {d}" for d in columns["dest"]]}

    scenario.live(range(42, 50), land=lambda c: reversed_truth(renamed(c)), serve=renamed)
    measured = scenario.take_snapshot()
    assert (measured["unseen"].state, measured["feature_drift"].state) == (SignalState.FIRE, SignalState.FIRE)
    decision = scenario.decide()
    assert not decision.start
    assert "never saw in dest" in decision.sentence


def test_features_without_any_value_are_never_ok(scenario: WatchScenario) -> None:
    def empty(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "temp": pa.nulls(ROWS, pa.float64()), "dest": pa.nulls(ROWS, pa.string())}

    scenario.live(range(42, 49))
    scenario.land(49, empty)
    measured = scenario.take_snapshot()
    assert (measured["missing"].state, measured["feature_drift"].state) == (SignalState.FIRE, SignalState.FIRE)


def test_a_window_years_ahead_is_a_clock_that_jumped(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50))
    scenario.land(2000)
    measured = scenario.take_snapshot()
    assert measured["age"].state is SignalState.UNKNOWN
    assert "the clock jumped: after 2013-02-25" in measured["age"].sentence
    assert measured["volume"].state is SignalState.WARN
    assert len(measured["volume"].sentence) < 250
    assert scenario.decide().start is False


def test_scores_of_the_test_windows_that_are_half_written_are_named(scenario: WatchScenario) -> None:
    path = scenario.folder / "run1" / "evaluation" / "scores.npz"
    path.write_bytes(path.read_bytes()[:500])
    scenario.live(range(42, 50))
    measured = scenario.take_snapshot()
    assert set(states(measured).values()) == {SignalState.UNKNOWN}
    assert "scores.npz: its SHA-256" in measured["auc"].sentence


def test_predictions_without_a_key_or_a_time_are_left_out(scenario: WatchScenario) -> None:
    scenario.land(42)
    scenario.serve(42, change=lambda c: {**c, "id": [None] * ROWS})
    scenario.serve(42, change=lambda c: {**c, "at": [None] * ROWS})
    measured = scenario.take_snapshot()
    assert measured["skew"].state is SignalState.UNKNOWN
    assert measured["prediction_drift"].state is SignalState.UNKNOWN


def test_a_clock_before_the_champions_data_is_unknown(scenario: WatchScenario) -> None:
    early = monitoring.take_snapshot(SPEC, scenario.services, as_of=START + timedelta(days=20))
    assert SignalState.OK not in states(early).values()


def test_the_same_run_asked_twice_gets_one_answer_and_leaves_one_row(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    assert scenario.decide() == scenario.decide()
    assert len(scenario.ledger.events) == 1


def has_new_evidence(scenario: WatchScenario) -> bool:
    return monitoring.has_new_evidence(SPEC, scenario.services)


def test_there_is_new_evidence_until_a_decision_rests_on_it_and_again_when_anything_changes(
    scenario: WatchScenario,
) -> None:
    scenario.live(range(42, 44))
    assert has_new_evidence(scenario)
    scenario.decide("watch-1")
    assert not has_new_evidence(scenario)
    scenario.serve(44)
    assert has_new_evidence(scenario)
    scenario.decide("watch-2")
    scenario.land(44)
    assert has_new_evidence(scenario)
    scenario.decide("watch-3")
    scenario.promote(scenario.train("2", 1))
    assert has_new_evidence(scenario)


def test_why_answers_for_any_moment_with_the_decision_that_stood_then(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    scenario.decide("watch-1", paused=True)

    def why(at: datetime) -> str:
        return summary.why("flights", scenario.ledger, at)

    assert "had not looked once" in why(NOW - timedelta(minutes=1))
    answer = why(NOW + timedelta(minutes=4)).splitlines()
    assert answer[0] == "nothing started: logloss fires, but retraining is paused by a person"
    assert "watch-1" in answer[1]
    assert sum(line.split()[:2] == ["fire", "logloss"] for line in answer) == 1
    assert "did not look again" in why(NOW + timedelta(hours=2))


def test_the_next_decision_cools_down(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    scenario.decide("watch-1")
    assert "cooling down" in scenario.decide("watch-2").sentence


def test_a_pause_and_a_running_training_are_respected(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    assert "paused by a person" in scenario.decide("a", paused=True).sentence
    assert "t-1 is still running" in scenario.decide("b", running="t-1").sentence


def test_after_a_retraining_it_is_recorded_whether_the_cause_has_gone(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    request = scenario.decide("watch-1").request
    scenario.promote(scenario.train("2", 8))
    for day in range(50, 58):
        scenario.land(day)
        scenario.serve(day, version="2")
    scenario.decide("watch-2")
    scenario.decide("watch-3")
    rechecks = scenario.ledger.read("flights", CauseRechecked)
    assert [(event.request, event.cleared, event.champion) for event in rechecks] == [(request, True, "2")]


def built(scenario: WatchScenario) -> Timeline:
    built_timeline = timeline.build_timeline(SPEC, scenario.services)
    assert built_timeline is not None
    return built_timeline


def test_the_timeline_shows_every_window_since_the_training_and_when_a_request_was_made(
    scenario: WatchScenario,
) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    scenario.decide()
    result = built(scenario)
    served = window_label(START + timedelta(days=45))
    windows = [window_label(START + timedelta(days=d)) for d in range(28, 50)]
    assert list(result.metrics) == windows == list(result.feature_drift)
    auc, estimated = result.metrics[served].auc, result.metrics[served].estimated_auc
    assert auc is not None
    assert estimated is not None
    assert auc[2] < result.test_metrics["auc"] - 0.1 < estimated
    assert result.metrics[window_label(START + timedelta(days=30))].auc is None
    assert [decision.start for decision in result.decisions] == [True]


def test_without_a_champion_there_is_no_timeline(scenario: WatchScenario) -> None:
    scenario.registry.aliases.clear()
    assert timeline.build_timeline(SPEC, scenario.services) is None


def half(first: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change that leaves every second row."""
    return lambda columns: {name: list(values)[first::2] for name, values in columns.items()}


def test_two_versions_live_at_once_are_compared_on_the_requests_that_only_one_of_them_answered(
    scenario: WatchScenario,
) -> None:
    for day in range(42, 50):
        scenario.land(day)
        scenario.serve(day, change=half(0))
        scenario.serve(day, version="2", change=lambda c: {**half(1)(c), "chance": [0.5] * (ROWS // 2)})
    (comparison,) = built(scenario).comparisons
    assert (comparison.version, comparison.champion) == ("2", "1")
    assert comparison.rows == (7 * ROWS // 2, 7 * ROWS // 2)
    value, lower, upper = comparison.differences["logloss"]
    assert 0 < lower < value < upper


def test_a_version_that_was_only_mirrored_is_not_compared(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50))
    for day in range(42, 50):
        scenario.serve(day, version="2")
    assert built(scenario).comparisons == []


def test_a_naive_check_that_the_spec_names_is_shown_and_can_start_a_training(scenario: WatchScenario) -> None:
    scenario.live(range(42, 50), land=hotter, serve=hotter_and_surer)
    named = {"simple": {"checks": ["ks", "mean_score"]}, "retraining": {"triggers": ["mean_score"]}}
    spec = ModelSpec.model_validate({**SPEC.model_dump(), "watch": named})
    measured = monitoring.take_snapshot(spec, scenario.services)
    assert (measured["ks"].state, measured["mean_score"].state) == (SignalState.FIRE, SignalState.FIRE)
    assert monitoring.decide_and_record(spec, measured, scenario.ledger, run="r").cause == "mean_score"
    assert "ks" not in states(scenario.take_snapshot())


def test_a_snapshot_comes_back_from_its_file(scenario: WatchScenario, tmp_path: Path) -> None:
    scenario.live(range(42, 50), land=reversed_truth)
    measured = scenario.take_snapshot()
    assert snapshot.read(snapshot.write(measured, tmp_path / "watch-1.json")) == measured


def test_a_snapshot_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """The file beside this one was written by the release before snapshots were typed."""
    measured = snapshot.read(store.reference_to(Path(__file__).with_name("snapshot.json")))
    assert (measured.champion_version, measured.newest_window) == ("1", "2013-02-25")
    assert (measured.as_of, measured.data_ends) == (
        datetime(2013, 2, 26, tzinfo=UTC),
        datetime(2013, 2, 18, tzinfo=UTC),
    )
    assert measured.evidence == "champion 1, landed 49, features 49, log 2400"
    assert (measured["logloss"].state, len(measured["logloss"].windows)) == (SignalState.FIRE, 7)


def test_a_snapshot_that_was_changed_is_refused(scenario: WatchScenario, tmp_path: Path) -> None:
    reference = snapshot.write(scenario.take_snapshot(), tmp_path / "watch-1.json")
    path = tmp_path / "watch-1.json"
    path.write_text(path.read_text().replace("unknown", "ok"))
    with pytest.raises(Corrupt, match=r"watch-1\.json"):
        snapshot.read(reference)
