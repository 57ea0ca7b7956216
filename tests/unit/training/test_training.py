"""Training asks for a model once, and trusts a finished one only when it is whole and of the same data and spec."""

from pathlib import Path

import pytest

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.stages.training.training import TrainingRun, train
from tests.fakes import FakeLauncher
from tests.records import dataset_manifest
from tests.unit.toy import toy


@pytest.fixture
def dataset(tmp_path: Path) -> Reference:
    return store.write(tmp_path / "dataset" / "dataset.json", dataset_manifest())


def test_the_job_says_all_that_the_trainer_needs(tmp_path: Path, dataset: Reference) -> None:
    launcher, spec = FakeLauncher(), toy(training={"processes": 2, "seed": 3}, model={"family": "logistic"})
    run = TrainingRun(dataset, tmp_path, tracking_url="http://mlflow", tags={"cause": "drift"})
    result = train(spec, run, launcher)
    (job,) = launcher.jobs
    assert job["dataset"] == {"uri": dataset.uri, "digest": dataset.digest}
    assert (job["family"], job["seed"], job["processes"]) == ("logistic", 3, 2)
    assert job["tracking"]["experiment"] == "toy"
    assert job["tracking"]["tags"] == {"run": "r1", "family": "logistic", "spec_digest": spec.digest, "cause": "drift"}
    assert store.read(result, ModelManifest).family == "logistic"


def test_a_finished_model_is_not_trained_again(tmp_path: Path, dataset: Reference) -> None:
    launcher = FakeLauncher()
    first = train(toy(), TrainingRun(dataset, tmp_path), launcher)
    assert train(toy(), TrainingRun(dataset, tmp_path), launcher) == first
    assert len(launcher.jobs) == 1


def test_families_of_one_run_lie_apart(tmp_path: Path, dataset: Reference) -> None:
    launcher = FakeLauncher()
    results = {train(toy(), TrainingRun(dataset, tmp_path), launcher, family=f).uri for f in ("logistic", "lightgbm")}
    assert len(results) == 2


def test_the_result_of_other_data_is_not_taken_nor_overwritten(tmp_path: Path, dataset: Reference) -> None:
    first = train(toy(), TrainingRun(dataset, tmp_path), FakeLauncher())
    other = store.write(tmp_path / "dataset" / "dataset.json", dataset_manifest(notes=("other",)))
    with pytest.raises(UserMistake, match="another dataset or spec"):
        train(toy(), TrainingRun(other, tmp_path), FakeLauncher())
    assert store.read(first, ModelManifest)


def test_a_damaged_artifact_is_named(tmp_path: Path, dataset: Reference) -> None:
    train(toy(), TrainingRun(dataset, tmp_path), FakeLauncher())
    (tmp_path / "dcn" / "model.onnx").write_text("cut")
    with pytest.raises(Corrupt, match=r"model\.onnx"):
        train(toy(), TrainingRun(dataset, tmp_path), FakeLauncher())


def test_a_trainer_that_leaves_no_manifest_is_a_fault(tmp_path: Path, dataset: Reference) -> None:
    with pytest.raises(Corrupt, match="no manifest"):
        train(toy(), TrainingRun(dataset, tmp_path), FakeLauncher(broken=True))


def test_a_changed_dataset_record_is_refused(tmp_path: Path, dataset: Reference) -> None:
    Path(dataset.uri).write_text("{}")
    with pytest.raises(Corrupt, match=r"dataset\.json"):
        train(toy(), TrainingRun(dataset, tmp_path), FakeLauncher())
