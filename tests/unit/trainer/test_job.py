"""Reading a job file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from include.artifacts.model_manifest import ServingOptions
from include.domain.errors import UserMistake
from include.trainer.job import read
from tests.small_dataset import make_job, write_dataset, write_job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "forest"}, "family: 'forest' is not one of dcn, logistic, lightgbm, blend"),
        ({"seed": "many"}, "not a job: invalid literal"),
        ({"model": {}}, "the job lacks 'hidden'"),
    ],
)
def test_wrong_job_is_one_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_job(write_dataset(tmp_path / "dataset"), tmp_path / "out")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserMistake, match=message):
        read(path)


def test_job_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="cannot read the job: No such file"):
        read(tmp_path / "job.json")


def test_a_job_is_recorded_whole(dataset_file: Path, tmp_path: Path) -> None:
    tracking = {"uri": "http://127.0.0.1:9", "experiment": "toy", "run_name": "r", "tags": {"run": "r"}}
    job = make_job(dataset_file, tmp_path, start={"uri": str(dataset_file), "digest": "5" * 64}, tracking=tracking)
    job = replace(job, serving=ServingOptions(0.5))
    (tmp_path / "again.json").write_text(json.dumps(job.to_dict()))
    assert read(tmp_path / "again.json") == job
