"""A dataset and the results of three jobs on it, made once."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from include.domain.training.families import FamilyName
from include.trainer.job import Job
from include.trainer.process import StopSignal
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset

FAMILIES: tuple[FamilyName, ...] = ("dcn", "lightgbm", "blend")


@pytest.fixture(scope="session")
def dataset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def finished_jobs(dataset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[FamilyName, Job]:
    out = tmp_path_factory.mktemp("out")
    jobs = {family: make_job(dataset_file, out / family, family) for family in FAMILIES}
    for job in jobs.values():
        run(job, StopSignal())
    return jobs
