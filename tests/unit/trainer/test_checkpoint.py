"""Checkpoints: a training goes on from them to the same bits, from no damaged one and from no other job's."""

from pathlib import Path

import pytest

from include.trainer.process import StopSignal, TrainingStopped
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset
from tests.unit.trainer.toys import StopAfter, weights_digest


@pytest.mark.parametrize("steps", [1, 16, 23])
def test_stopped_and_resumed_run_ends_with_the_same_bits(tmp_path: Path, steps: int) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    run(make_job(dataset, tmp_path / "whole"), StopSignal())
    interrupted = make_job(dataset, tmp_path / "interrupted")
    with pytest.raises(TrainingStopped, match=f"stopped after step {steps} of 32"):
        run(interrupted, StopAfter(steps))
    run(interrupted, StopSignal())
    assert weights_digest(tmp_path / "whole") == weights_digest(tmp_path / "interrupted")


def test_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    run(make_job(dataset, tmp_path / "whole", checkpoint_steps=5), StopSignal())
    job = make_job(dataset, tmp_path / "out", checkpoint_steps=5)
    with pytest.raises(TrainingStopped):
        run(job, StopAfter(12))
    newest = max(job.checkpoints.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    run(job, StopSignal())
    output = capsys.readouterr().out
    assert f"{newest.name} is damaged" in output
    assert "going on after step 10 of 32" in output
    assert weights_digest(tmp_path / "whole") == weights_digest(job.out)


def test_checkpoint_of_another_job_is_not_used(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    with pytest.raises(TrainingStopped):
        run(make_job(dataset, tmp_path / "out", dropout=0.1), StopAfter(5))
    run(make_job(dataset, tmp_path / "out"), StopSignal())
    run(make_job(dataset, tmp_path / "fresh"), StopSignal())
    assert weights_digest(tmp_path / "out") == weights_digest(tmp_path / "fresh")


def test_only_two_checkpoints_remain(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", checkpoint_steps=2)
    with pytest.raises(TrainingStopped):
        run(job, StopAfter(9))
    assert [path.name[:14] for path in sorted(job.checkpoints.glob("step-*"))] == ["step-000000008", "step-000000009"]
