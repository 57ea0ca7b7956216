"""The trainer as a program: exit codes, SIGTERM, kills, and two processes against one."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from include.adapters.torchrun import Torchrun
from include.domain.errors import Unavailable, UserMistake
from tests.small_dataset import write_dataset, write_job

LONG = {"epochs": 400, "checkpoint_steps": 50}  #: long enough to be interrupted wherever a test likes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def weights(out: Path) -> dict[str, np.ndarray]:
    return load_file(out / "model.safetensors")


def digest(out: Path) -> str:
    return json.loads((out / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"]


def await_checkpoint(job: Path) -> None:
    while not list((job.parent / "checkpoints").glob("step-*.safetensors")):
        time.sleep(0.02)


def test_progress_lines_reach_the_log_and_the_result_its_place(dataset, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "include.adapters.torchrun"):
        Torchrun().train(write_job(dataset, tmp_path), 1)
    assert any(line.startswith("epoch 2/2 step 32/32 loss 0.") for line in caplog.messages)
    assert caplog.messages[-1] == f"wrote {tmp_path / 'manifest.json'}"


def test_finished_job_returns_at_once(dataset, tmp_path, caplog):
    job = write_job(dataset, tmp_path, "logistic")
    Torchrun().train(job, 1)
    caplog.clear()
    with caplog.at_level(logging.INFO, "include.adapters.torchrun"):
        Torchrun().train(job, 1)
    assert caplog.messages == [f"{tmp_path / 'manifest.json'} is there already"]


@pytest.mark.parametrize("processes", [1, 2])
def test_mistake_is_raised_with_the_trainers_own_line(tmp_path, processes):
    job = write_job(write_dataset(tmp_path / "dataset", classes=1), tmp_path / "out")
    with pytest.raises(
        UserMistake, match=r"^train: all 1000 labels of 2013-01-01 to 2013-01-20 are 0; learning needs both$"
    ):
        Torchrun().train(job, processes)


def test_any_other_end_is_worth_another_try(dataset, tmp_path):
    job = write_job(dataset, tmp_path, learning_rate=1e30)
    with pytest.raises(Unavailable, match=r"exit code 1: step .* largest gradient"):
        Torchrun().train(job, 1)


def test_two_processes_learn_what_one_does(dataset, tmp_path):
    for processes in (1, 2):
        Torchrun().train(write_job(dataset, tmp_path / str(processes), dropout=0.0, precision="fp32"), processes)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name, values in one.items():
        assert two[name] == pytest.approx(values, abs=2e-4), name


def test_killed_trainer_resumes_to_the_same_bits(dataset, tmp_path):
    Torchrun().train(write_job(dataset, tmp_path / "whole", epochs=40, checkpoint_steps=50), 1)
    job = write_job(dataset, tmp_path / "killed", epochs=40, checkpoint_steps=50)
    with subprocess.Popen([sys.executable, "-m", "include.trainer", str(job)], stdout=subprocess.DEVNULL) as trainer:
        await_checkpoint(job)
        trainer.kill()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    Torchrun().train(job, 1)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_reaches_the_trainer_which_saves_and_ends_with_75(dataset, tmp_path, processes):
    job = write_job(dataset, tmp_path, **LONG)
    program = ["include.trainer"] if processes == 1 else [
        "include.trainer.elastic", "--standalone", "--nproc-per-node=2", "-m", "include.trainer"]  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", *program, str(job)], stdout=subprocess.DEVNULL) as trainer:
        await_checkpoint(job)
        trainer.terminate()
    assert trainer.returncode == 75
    newest = max((tmp_path / "checkpoints").glob("step-*.safetensors"))
    assert int(newest.name.split("-")[1]) % 50, "saved where it stopped, not at the last regular step"


def test_sigterm_to_the_launcher_is_passed_on(dataset, tmp_path):
    job = write_job(dataset, tmp_path, **LONG)

    def terminate() -> None:
        await_checkpoint(job)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(Unavailable, match=r"stopped after step \d+ of 6400; a checkpoint is saved"):
        Torchrun().train(job, 1)
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
