"""The trainer as a program: exit codes, SIGTERM, kills, and two processes against one."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from include.adapters.training.torchrun import Torchrun
from include.domain.errors import Unavailable, UserMistake
from tests.serving import free_port
from tests.small_dataset import write_dataset, write_job

LONG: dict[str, Any] = {"epochs": 400, "checkpoint_steps": 50}  #: long enough to be interrupted wherever a test likes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def weights(out: Path) -> dict[str, np.ndarray]:
    return load_file(out / "model.safetensors")


def digest(out: Path) -> str:
    return str(json.loads((out / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"])


def await_checkpoint(job: Path) -> None:
    while not list((job.parent / "checkpoints").glob("step-*.safetensors")):
        time.sleep(0.02)


def test_progress_lines_reach_the_log_and_the_result_its_place(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "include.adapters.training.torchrun"):
        Torchrun().train(write_job(dataset, tmp_path), 1)
    assert any(line.startswith("epoch 2/2 step 32/32 loss 0.") for line in caplog.messages)
    assert caplog.messages[-1] == f"wrote {tmp_path / 'manifest.json'}"


def test_finished_job_returns_at_once(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = write_job(dataset, tmp_path, "logistic")
    Torchrun().train(job, 1)
    caplog.clear()
    with caplog.at_level(logging.INFO, "include.adapters.training.torchrun"):
        Torchrun().train(job, 1)
    assert caplog.messages == [f"{tmp_path / 'manifest.json'} is there already"]


@pytest.mark.parametrize("processes", [1, 2])
def test_mistake_is_raised_at_once_with_the_trainers_own_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, processes: int
) -> None:
    job = write_job(write_dataset(tmp_path / "dataset", classes=1), tmp_path / "out", restarts=3)
    line = "train: all 1000 labels of 2013-01-01 to 2013-01-20 are 0; learning needs both"
    with (
        pytest.raises(UserMistake, match=f"^{line}$"),
        caplog.at_level(logging.INFO, "include.adapters.training.torchrun"),
    ):
        Torchrun().train(job, processes)
    assert caplog.messages.count(line) <= processes


def test_any_other_end_is_worth_another_try(dataset: Path, tmp_path: Path) -> None:
    job = write_job(dataset, tmp_path, learning_rate=1e30)
    with pytest.raises(Unavailable, match=r"exit code 1: step .* largest gradient"):
        Torchrun().train(job, 1)


CURVE: dict[str, Any] = {
    "epochs": 12,
    "batch_size": 1000,
    "dropout": 0.0,
    "precision": "fp32",
}  #: one step an epoch, each with its line


def curve(dataset: Path, out: Path, caplog: pytest.LogCaptureFixture, processes: int, **changes: Any) -> list[float]:
    """The loss of each step."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "include.adapters.training.torchrun"):
        Torchrun().train(write_job(dataset, out, **CURVE, **changes), processes)
    return [float(line.split()[5]) for line in caplog.messages if " loss " in line]


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.mark.parametrize(
    "changes", [{"strategy": "ddp", "micro_batch": 150}, {"strategy": "sharded"}, {"strategy": "fsdp"}]
)
def test_two_processes_have_the_loss_curve_of_one(
    dataset: Path, alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    if not (alone / "curve.json").exists():
        (alone / "curve.json").write_text(json.dumps(curve(dataset, alone, caplog, 1)))
    expected = json.loads((alone / "curve.json").read_text())
    assert len(expected) == 12
    assert expected[-1] < expected[0] - 0.01
    assert curve(dataset, tmp_path, caplog, 2, **changes) == pytest.approx(expected, abs=2e-4)
    for name, values in weights(alone).items():
        assert weights(tmp_path)[name] == pytest.approx(values, abs=1e-3), name


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_lost_process_starts_all_again_from_the_last_checkpoint_to_the_same_bits(
    dataset: Path, tmp_path: Path, strategy: str
) -> None:
    plan: dict[str, Any] = {"epochs": 30, "checkpoint_steps": 40, "strategy": strategy}
    Torchrun().train(write_job(dataset, tmp_path / "whole", **plan), 2)
    job = write_job(dataset, tmp_path / "hit", **plan)
    program = [
        "include.trainer.elastic",
        "--standalone",
        "--nproc-per-node=2",
        "--max-restarts=1",
        "-m",
        "include.trainer",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", *program, str(job)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        await_checkpoint(job)
        psutil.Process(agent.pid).children()[-1].kill()
        output = agent.communicate()[0]
    assert agent.returncode == 0, output
    assert re.search(r"going on after step \d+ of 480", output)
    assert digest(tmp_path / "whole") == digest(tmp_path / "hit")


def test_machines_meet_at_a_rendezvous_and_train_as_the_processes_of_one(dataset: Path, tmp_path: Path) -> None:
    Torchrun().train(write_job(dataset, tmp_path / "one"), 2)
    job = write_job(dataset, tmp_path / "two")
    meeting = ["--nnodes=1:2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=t"]
    command = [sys.executable, "-m", "include.trainer.elastic", *meeting, "-m", "include.trainer", str(job)]
    nodes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [node.wait() for node in nodes] == [0, 0]
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_memory_that_runs_out_halves_the_micro_batch_and_training_goes_on(tmp_path: Path) -> None:
    """A real limit on the address space, which a whole batch does not fit."""
    dataset = write_dataset(tmp_path / "dataset", train=60_000)
    changes: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 60_000,
        "hidden": [1024],
        "precision": "fp32",
        "embedding": 16,
    }
    job = write_job(dataset, tmp_path / "out", **changes)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(job)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"step 1: out of memory with 60000 rows at once; going on with 30000, their gradients", done.stdout
    )
    assert (tmp_path / "out" / "manifest.json").exists()


LIMITED = """
import resource, sys
from include.trainer import __main__ as program
from include.trainer import train
from include.trainer.distributed import process_group  # libraries and their threads take their share first
import onnxruntime, torch
torch.nn.Linear(8, 8)(torch.zeros(9000, 8)).sum().backward()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 900 * 2**20, resource.RLIM_INFINITY))
sys.exit(program.main(sys.argv[1:]))
"""


def test_killed_trainer_resumes_to_the_same_bits(dataset: Path, tmp_path: Path) -> None:
    Torchrun().train(write_job(dataset, tmp_path / "whole", epochs=40, checkpoint_steps=50), 1)
    job = write_job(dataset, tmp_path / "killed", epochs=40, checkpoint_steps=50)
    with subprocess.Popen([sys.executable, "-m", "include.trainer", str(job)], stdout=subprocess.DEVNULL) as trainer:
        await_checkpoint(job)
        trainer.kill()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    Torchrun().train(job, 1)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_reaches_the_trainer_which_saves_and_ends_with_75(
    dataset: Path, tmp_path: Path, processes: int
) -> None:
    job = write_job(dataset, tmp_path, **LONG)
    elastic = ["include.trainer.elastic", "--standalone", "--nproc-per-node=2", "-m", "include.trainer"]
    program = ["include.trainer"] if processes == 1 else elastic
    with subprocess.Popen([sys.executable, "-m", *program, str(job)], stdout=subprocess.DEVNULL) as trainer:
        await_checkpoint(job)
        trainer.terminate()
    assert trainer.returncode == 75
    newest = max((tmp_path / "checkpoints").glob("step-*.safetensors"))
    assert int(newest.name.split("-")[1]) % 50, "saved where it stopped, not at the last regular step"


def test_sigterm_to_the_launcher_is_passed_on(dataset: Path, tmp_path: Path) -> None:
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
