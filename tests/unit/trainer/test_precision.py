"""`auto` is resolved once, by how long a product takes here, and the same in all processes and after a restart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job
from include.trainer.optim.precision import resolve_precision
from include.trainer.process import StopSignal
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


class BesideASlowOne(ProcessGroup):
    """One of two processes, the other of which multiplies fp32 faster."""

    def any(self, *flags: bool) -> list[bool]:
        return [True for _ in flags]


def taking(bf16: float, fp32: float) -> Callable[[torch.dtype], float]:
    return {torch.bfloat16: bf16, torch.float32: fp32}.__getitem__


@pytest.fixture
def large(tmp_path: Path) -> Job:
    return make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", precision="auto", batch_size=4096)


@pytest.mark.parametrize(("bf16", "fp32", "precision"), [(1, 4, "bf16"), (2, 1, "fp32"), (0.9, 1, "fp32")])
def test_auto_is_bf16_where_its_products_are_much_faster(large: Job, bf16: float, fp32: float, precision: str) -> None:
    assert resolve_precision(large, ALONE, taking(bf16, fp32)).training.precision == precision


def test_small_batches_stay_in_fp32(tmp_path: Path) -> None:
    small = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", precision="auto", batch_size=512)
    assert resolve_precision(small, ALONE, taking(1, 4)).training.precision == "fp32"


def test_restart_keeps_what_the_first_start_chose(large: Job) -> None:
    resolve_precision(large, ALONE, taking(1, 4))
    assert resolve_precision(large, ALONE, taking(4, 1)).training.precision == "bf16"


def test_process_on_a_fast_machine_follows_one_on_a_slow_machine(large: Job) -> None:
    group = BesideASlowOne(0, 2, torch.device("cpu"))
    assert resolve_precision(large, group, taking(1, 4)).training.precision == "fp32"


def test_precision_of_the_spec_is_left_alone(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", precision="bf16")
    assert resolve_precision(job, ALONE, taking(4, 1)) is job


def test_the_record_holds_the_resolved_precision_and_the_result_is_the_jobs(large: Job) -> None:
    resolve_precision(large, ALONE, taking(1, 4))
    run(large, StopSignal())
    record = json.loads((large.out / "record" / "job.json").read_text())
    assert record["training"]["precision"] == "bf16"
    first = (large.out / "manifest.json").stat().st_mtime_ns
    run(large, StopSignal())
    assert (large.out / "manifest.json").stat().st_mtime_ns == first
