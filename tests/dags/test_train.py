"""The tasks of a training run: one run answers a request, and its hours are counted once for the watch's budget."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowSkipException

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.errors import UserMistake
from include.domain.events import RequestClaimed, TrainingFinished
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.wiring import parts
from plugins import kubernetes_operators
from plugins.tasks import search, train
from tests.dags.worker import run_of
from tests.fakes import write_manifest
from tests.records import dataset_manifest

SPEC = """
name: toy
description: Is y true?
source: {path: inbox/toy.csv, format: csv}
columns: {time: at, label: y, keys: [key], numeric: [x], categorical: [c]}
schedule: {start: 2026-01-01T00:00:00Z}
training: {processes: 2}
"""
AS_OF = "2026-01-05T00:00:00+00:00"
SECONDS = 1.5  #: of each training that `tests.records` describes


@dataclass(frozen=True)
class AssetEvent:
    """An event of the asset by which the watch asks for a training."""

    extra: Mapping[str, str]


@dataclass(frozen=True)
class ValidatedRun:
    """What the run's first task returned, and what the present one pushes."""

    validated: dict[str, Any] = field(default_factory=lambda: {"cause": "age", "request": "r", "as_of": AS_OF})
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_pull(self, task_ids: str) -> dict[str, Any]:
        assert task_ids == "validate"
        return self.validated

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelSpec]:
    """A model whose home is this test's folder."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(SPEC)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("PERENNIAL_MODELS", str(tmp_path / "models"))
    yield find("toy", tmp_path / "models")


def requested_run(run_id: str, request: str) -> AbstractContextManager[Context]:
    """A run that an event of the watch has started."""
    event = AssetEvent({"request": request, "sentence": "age: 30 days", "as_of": ""})
    return run_of(run_id, params={"as_of": None}, triggering_asset_events={"toy": [event]})


def check_windows(run_id: str, request: str) -> None:
    """Run the first task of a training that the watch asked for; there is no window to train on yet."""
    with requested_run(run_id, request), pytest.raises(UserMistake, match="no window has landed yet"):
        train.check_windows.function("toy")


def finished_training(spec: ModelSpec, run_id: str) -> tuple[Reference, Reference]:
    """Write the dataset of a run and the model that was trained on it; return the references to both."""
    folder = parts().run_folder(spec, run_id)
    dataset = store.write(folder / "dataset" / "dataset.json", dataset_manifest())
    return dataset, write_manifest(folder / spec.model.family, spec.model.family, dataset, spec.digest)


def train_beside_airflow(spec: ModelSpec, run_id: str) -> None:
    """Run the task `train` of a run whose training has finished already."""
    dataset, _ = finished_training(spec, run_id)
    with DAG("toy.train", schedule=None):
        task = train.train(spec, asdict(dataset)).operator
    with run_of(run_id, ti=ValidatedRun()):
        task.python_callable("toy", asdict(dataset))


def choose_from_search(spec: ModelSpec, run_id: str) -> None:
    """Run the last task of a search that tried one setting."""
    _, model = finished_training(spec, run_id)
    with run_of(run_id, ti=ValidatedRun()):
        search.choose.function("toy", [[{"settings": {}, "logloss": 0.5, "result": asdict(model)}]])


def train_in_pod(spec: ModelSpec, run_id: str) -> None:
    """End the task `train` whose pod has trained the model."""
    dataset, model = finished_training(spec, run_id)
    ti = ValidatedRun()
    with run_of(run_id, ti=ti):
        kubernetes_operators.training_operator(spec, asdict(dataset)).push_results({"ti": ti})
    assert ti.pushed == {"return_value": asdict(model)}


def claims() -> list[tuple[str, str]]:
    return [(event.request, event.run) for event in parts().ledger().read("toy", RequestClaimed)]


def test_the_run_that_answers_a_request_is_recorded_once_however_often_it_is_retried(spec: ModelSpec) -> None:
    for _ in range(2):
        check_windows("first", "age-2026-01-03")
    check_windows("second", "drift-2026-02-01")
    assert claims() == [("age-2026-01-03", "first"), ("drift-2026-02-01", "second")]


def test_a_second_run_for_the_same_request_is_skipped_after_a_replayed_event(spec: ModelSpec) -> None:
    check_windows("first", "age-2026-01-03")
    with requested_run("second", "age-2026-01-03"), pytest.raises(AirflowSkipException, match="is run first already"):
        train.check_windows.function("toy")


def test_a_run_that_nobody_requested_claims_nothing(spec: ModelSpec) -> None:
    with (
        run_of("manual", params={"as_of": None, "cause": "a person"}, triggering_asset_events={}),
        pytest.raises(UserMistake, match="no window has landed yet"),
    ):
        train.check_windows.function("toy")
    assert claims() == []


@pytest.mark.parametrize("end_training", [train_beside_airflow, choose_from_search, train_in_pod])
def test_the_hours_of_a_training_count_once_for_the_budget_times_its_processes(
    spec: ModelSpec, end_training: Callable[[ModelSpec, str], None]
) -> None:
    for run_id in ("first", "first", "second"):
        end_training(spec, run_id)
    recorded = parts().ledger().read("toy", TrainingFinished)
    assert [(event.run, event.as_of.isoformat()) for event in recorded] == [("first", AS_OF), ("second", AS_OF)]
    assert [event.hours for event in recorded] == [pytest.approx(2 * SECONDS / 3600)] * 2
