"""The tasks of the watch: what starts a training, and what a person's pause holds back."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.domain.monitoring.signal import Signal, SignalState
from include.settings import ROOT
from include.stages.monitoring import snapshot
from include.stages.monitoring.snapshot import Snapshot
from plugins.tasks import watch
from tests.dags.worker import run_of
from tests.unit.toy import toy

DECISION = {
    "start": True,
    "sentence": "age: 30 days",
    "cause": "age",
    "request": "age-2026-01-03",
    "as_of": "2026-01-04T00:00:00+00:00",
    "evidence": "/home/watch/toy/watch-1.json",
}


def requested(decision: dict[str, Any]) -> list[Metadata]:
    """Return the asset events of the task `request`."""
    with DAG("toy.watch", schedule=None):
        task = watch.request(toy(), decision).operator
    return list(task.python_callable("toy", decision))


@pytest.fixture(autouse=True)
def nothing_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RETRAINING_PAUSED", "")


def test_a_decision_to_start_is_an_asset_event_with_its_cause() -> None:
    (event,) = requested(DECISION)
    reason = {name: value for name, value in DECISION.items() if name != "start"}
    assert event.extra == {**reason, "page": "/perennial/toy/reports/watch.html"}


def test_a_decision_against_it_starts_nothing_and_says_why() -> None:
    with pytest.raises(AirflowSkipException, match="no trigger fires"):
        requested({**DECISION, "start": False, "sentence": "no trigger fires"})


def test_a_pause_since_the_decision_holds_the_training_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RETRAINING_PAUSED", "clicks, toy")
    with pytest.raises(AirflowSkipException, match="a person has paused retraining since the decision"):
        requested(DECISION)


@pytest.mark.parametrize(
    ("models", "paused"), [("", False), ("toy", True), ("clicks toy", True), ("clicks,toy", True), ("toys", False)]
)
def test_the_variable_names_the_models_whose_retraining_is_paused(
    monkeypatch: pytest.MonkeyPatch, models: str, paused: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_RETRAINING_PAUSED", models)
    assert watch.retraining_paused("toy") is paused


@dataclass(frozen=True)
class RunCounter:
    """Says how many runs of the training DAG there are."""

    trainings: int

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        assert (dag_id, states) == ("flights.train", ["running", "queued"])
        return self.trainings


@pytest.mark.parametrize(
    ("paused", "trainings", "sentence"),
    [
        ("", 0, "age: 40 days"),
        ("flights", 0, "age fires, but retraining is paused by a person"),
        ("", 1, "age fires, but flights.train is still running"),
    ],
)
def test_the_decision_takes_a_pause_and_a_training_that_runs_into_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paused: str, trainings: int, sentence: str
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("PERENNIAL_MODELS", str(ROOT / "include" / "models"))
    monkeypatch.setenv("AIRFLOW_VAR_RETRAINING_PAUSED", paused)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    age = Signal("age", SignalState.FIRE, "40 days")
    measured = Snapshot(now, "2026-02-28", "1", now - timedelta(days=40), (age,))
    reference = snapshot.write(measured, tmp_path / "watch" / "watch-1.json")
    with run_of("watch-1", ti=RunCounter(trainings)):
        decision = watch.decide.function("flights", asdict(reference))
    assert (decision["start"], decision["sentence"]) == (sentence == "age: 40 days", sentence)
