"""One job from its file to its manifest, in this process."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from include.domain.errors import Conflict, UserMistake
from include.trainer.job import read
from include.trainer.optim.finite_check import NonFiniteLoss
from include.trainer.process import StopSignal, TrainingStopped
from include.trainer.run import run
from tests.small_dataset import job, write_dataset, write_job


class AfterSteps:
    """SIGTERM during step number `steps`."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def received(self) -> bool:
        self.left -= 1
        return self.left <= 0


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def weights_digest(out: Path) -> str:
    return manifest_of(out)["files"]["model.safetensors"]["sha256"]


@pytest.mark.parametrize("family", ["dcn", "logistic", "lightgbm", "blend"])
def test_family_learns_and_its_manifest_describes_every_file(tmp_path, family):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", family)
    run(given, StopSignal())
    manifest = manifest_of(given.out)
    assert manifest["metrics"]["test"]["auc"] > 0.65
    assert manifest["dataset"] == {"uri": str(given.dataset), "digest": given.dataset_digest}
    assert manifest["signature"]["inputs"][0] == {"name": "ids", "datatype": "INT64", "shape": [-1, 3]}
    assert {"model.onnx", "encoding.json", "examples.json"} < set(manifest["files"])
    for name, facts in manifest["files"].items():
        data = (given.out / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert not given.checkpoints.exists()


def test_finished_job_is_not_trained_again_but_a_damaged_one_is(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")
    run(given, StopSignal())
    first = (given.out / "manifest.json").stat().st_mtime_ns
    run(given, StopSignal())
    assert (given.out / "manifest.json").stat().st_mtime_ns == first
    (given.out / "model.onnx").write_bytes(b"damaged")
    run(given, StopSignal())
    assert (given.out / "manifest.json").stat().st_mtime_ns != first


def test_same_seed_gives_the_same_bits(tmp_path):
    dataset = write_dataset(tmp_path / "dataset")
    for name in "ab":
        run(job(dataset, tmp_path / name), StopSignal())
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")


def test_threads_that_share_a_step_learn_what_one_does_and_the_same_bits_each_time(tmp_path):
    dataset = write_dataset(tmp_path / "dataset")
    for name, threads in (("one", 1), ("two", 2), ("again", 2)):
        run(job(dataset, tmp_path / name, threads=threads, dropout=0.0), StopSignal())
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for weight, values in one.items():
        assert np.allclose(two[weight], values, rtol=1e-3, atol=1e-3), weight
    for name, threads in (("dropping", 2), ("dropping again", 2)):
        run(job(dataset, tmp_path / name, threads=threads), StopSignal())
    assert weights_digest(tmp_path / "two") == weights_digest(tmp_path / "again")
    assert weights_digest(tmp_path / "dropping") == weights_digest(tmp_path / "dropping again")


@pytest.mark.parametrize("steps", [1, 16, 23])
def test_stopped_and_resumed_run_ends_with_the_same_bits(tmp_path, steps):
    dataset = write_dataset(tmp_path / "dataset")
    run(job(dataset, tmp_path / "whole"), StopSignal())
    interrupted = job(dataset, tmp_path / "interrupted")
    with pytest.raises(TrainingStopped, match=f"stopped after step {steps} of 32"):
        run(interrupted, AfterSteps(steps))
    run(interrupted, StopSignal())
    assert weights_digest(tmp_path / "whole") == weights_digest(tmp_path / "interrupted")


def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, capsys):
    dataset = write_dataset(tmp_path / "dataset")
    run(job(dataset, tmp_path / "whole", checkpoint_steps=5), StopSignal())
    given = job(dataset, tmp_path / "out", checkpoint_steps=5)
    with pytest.raises(TrainingStopped):
        run(given, AfterSteps(12))
    newest = max(given.checkpoints.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    run(given, StopSignal())
    said = capsys.readouterr().out
    assert f"{newest.name} is damaged" in said
    assert "going on after step 10 of 32" in said
    assert weights_digest(tmp_path / "whole") == weights_digest(given.out)


def test_checkpoint_of_another_job_is_not_used(tmp_path):
    dataset = write_dataset(tmp_path / "dataset")
    with pytest.raises(TrainingStopped):
        run(job(dataset, tmp_path / "out", dropout=0.1), AfterSteps(5))
    run(job(dataset, tmp_path / "out"), StopSignal())
    run(job(dataset, tmp_path / "fresh"), StopSignal())
    assert weights_digest(tmp_path / "out") == weights_digest(tmp_path / "fresh")


def test_only_two_checkpoints_are_kept(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", checkpoint_steps=2)
    with pytest.raises(TrainingStopped):
        run(given, AfterSteps(9))
    assert [path.name[:14] for path in sorted(given.checkpoints.glob("step-*"))] == ["step-000000008", "step-000000009"]


def test_non_finite_loss_stops_before_the_step_and_names_it(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", learning_rate=1e30, embedding_decay=0.0)
    with pytest.raises(NonFiniteLoss, match=r"step \d+: the loss is .* on rows from 2013-01-01 to .* largest gradient"):
        run(given, StopSignal())
    assert not (given.out / "manifest.json").exists()


def test_second_trainer_of_the_same_job_is_refused_while_the_first_works(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")

    class Meanwhile:
        @property
        def received(self) -> bool:
            with pytest.raises(Conflict, match="another trainer is at work"):
                run(given, StopSignal())
            return False

    run(given, Meanwhile())


def test_gpu_that_is_not_there_is_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserMistake, match=r"1 process\(es\) want a GPU each, this machine has 0"):
        run(job(write_dataset(tmp_path / "dataset"), tmp_path / "out", device="cuda"), StopSignal())


def test_a_gradient_that_overflows_in_fp16_is_tried_again_with_half_the_scale(tmp_path):
    """A scale that no gradient of this data can bear: the run comes down from it by itself, losing no batch."""
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", precision="fp16", batch_size=500, dropout=0.0)
    with pytest.raises(TrainingStopped):
        run(given, AfterSteps(1))
    (saved,) = given.checkpoints.glob("step-*.safetensors")
    tensors = load_file(saved)
    tensors["scale"][0] = 2.0**40
    facts = {"step": "1", "job": given.identity}
    data = save(tensors, metadata=facts)
    saved.unlink()
    (given.checkpoints / f"step-000000001-{hashlib.sha256(data).hexdigest()[:32]}.safetensors").write_bytes(data)
    with pytest.raises(TrainingStopped, match="after step 3 of 4"):
        run(given, AfterSteps(2))
    after = load_file(max(given.checkpoints.glob("step-*.safetensors")))
    assert 1.0 < after["scale"][0] < 2.0**30
    assert all(np.isfinite(values).all() for values in after.values())


def test_nccl_without_a_gpu_is_one_line(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", backend="nccl", device="cpu")
    with pytest.raises(UserMistake, match=r"training\.backend: nccl works between GPUs and this machine lends none"):
        run(given, StopSignal())


@pytest.mark.parametrize("family", ["dcn", "lightgbm"])
def test_rows_count_for_what_their_weights_say(tmp_path, family):
    """Rows of weight 0 teach nothing: without them the model is as with their labels turned over."""
    results = []
    for flipped in (False, True):
        path = write_dataset(tmp_path / str(flipped), weighted=True, flipped=flipped)
        given = job(path, tmp_path / f"out-{flipped}", family, dropout=0.0)
        run(given, StopSignal())
        results.append(manifest_of(given.out)["files"]["model.onnx"]["sha256"])
    assert results[0] == results[1]


def test_weights_file_holds_the_weights_that_score(tmp_path):
    given = job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")
    run(given, StopSignal())
    weights = load_file(given.out / "model.safetensors")
    assert weights["table.rows.weight"].shape[1] == 1
    assert np.isfinite(weights["tower.weights"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "forest"}, "family: 'forest' is not one of dcn, logistic, lightgbm, blend"),
        ({"seed": "many"}, "not a job: invalid literal"),
        ({"model": {}}, "the job lacks 'hidden'"),
    ],
)
def test_wrong_job_is_one_line(tmp_path, change, message):
    path = write_job(write_dataset(tmp_path / "dataset"), tmp_path / "out")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserMistake, match=message):
        read(path)


def test_job_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserMistake, match="cannot read the job: No such file"):
        read(tmp_path / "job.json")
