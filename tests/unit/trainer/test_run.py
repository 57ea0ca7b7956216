"""One job from its file to its manifest, in this process."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from include.artifacts.atomic_write import FileFacts
from include.artifacts.model_manifest import Tensor
from include.artifacts.store import Reference
from include.domain.errors import Conflict, UserMistake
from include.domain.training.families import FamilyName
from include.trainer.optim.finite_check import NonFiniteLoss
from include.trainer.process import StopSignal, TrainingStopped
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset
from tests.unit.trainer.toys import StopAfter, manifest_of, weights_digest


@pytest.mark.parametrize("family", ["dcn", "logistic", "lightgbm", "blend"])
def test_family_learns_and_its_manifest_describes_every_file(tmp_path: Path, family: FamilyName) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", family)
    run(job, StopSignal())
    manifest = manifest_of(job.out)
    assert manifest.metrics.test.auc > 0.65
    assert manifest.dataset == Reference(str(job.dataset), job.dataset_digest)
    assert manifest.signature.inputs[0] == Tensor("ids", "INT64", (-1, 3))
    assert {"model.onnx", "encoding.json", "examples.json"} < set(manifest.files)
    for name, facts in manifest.files.items():
        data = (job.out / name).read_bytes()
        assert facts == FileFacts(len(data), hashlib.sha256(data).hexdigest())
    assert not job.checkpoints.exists()


def test_finished_job_is_not_trained_again_but_a_damaged_one_is(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")
    run(job, StopSignal())
    first = (job.out / "manifest.json").stat().st_mtime_ns
    run(job, StopSignal())
    assert (job.out / "manifest.json").stat().st_mtime_ns == first
    (job.out / "model.onnx").write_bytes(b"damaged")
    run(job, StopSignal())
    assert (job.out / "manifest.json").stat().st_mtime_ns != first


def test_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    for name in "ab":
        run(make_job(dataset, tmp_path / name), StopSignal())
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")


def test_threads_that_share_a_step_learn_what_one_does_and_the_same_bits_each_time(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    for name, threads in (("one", 1), ("two", 2), ("again", 2)):
        run(make_job(dataset, tmp_path / name, threads=threads, dropout=0.0), StopSignal())
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for weight, values in one.items():
        assert np.allclose(two[weight], values, rtol=1e-3, atol=1e-3), weight
    for name, threads in (("dropping", 2), ("dropping again", 2)):
        run(make_job(dataset, tmp_path / name, threads=threads), StopSignal())
    assert weights_digest(tmp_path / "two") == weights_digest(tmp_path / "again")
    assert weights_digest(tmp_path / "dropping") == weights_digest(tmp_path / "dropping again")


def test_non_finite_loss_stops_before_the_step_and_names_it(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", learning_rate=1e30, embedding_decay=0.0)
    with pytest.raises(NonFiniteLoss, match=r"step \d+: the loss is .* on rows from 2013-01-01 to .* largest gradient"):
        run(job, StopSignal())
    assert not (job.out / "manifest.json").exists()


def test_second_trainer_of_the_same_job_is_refused_while_the_first_works(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")

    class Meanwhile(StopSignal):
        @property
        def received(self) -> bool:
            with pytest.raises(Conflict, match="another trainer is at work"):
                run(job, StopSignal())
            return False

    run(job, Meanwhile())


def test_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserMistake, match=r"1 process\(es\) want a GPU each, this machine has 0"):
        run(make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", device="cuda"), StopSignal())


def test_a_gradient_that_overflows_in_fp16_is_tried_again_with_half_the_scale(tmp_path: Path) -> None:
    """A scale that no gradient of this data can bear: the run comes down from it by itself, losing no batch."""
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", precision="fp16", batch_size=500, dropout=0.0)
    with pytest.raises(TrainingStopped):
        run(job, StopAfter(1))
    (saved,) = job.checkpoints.glob("step-*.safetensors")
    tensors = load_file(saved)
    tensors["scale"][0] = 2.0**40
    data = save(tensors, metadata={"step": "1", "job": job.identity})
    saved.unlink()
    (job.checkpoints / f"step-000000001-{hashlib.sha256(data).hexdigest()[:32]}.safetensors").write_bytes(data)
    with pytest.raises(TrainingStopped, match="after step 3 of 4"):
        run(job, StopAfter(2))
    after = load_file(max(job.checkpoints.glob("step-*.safetensors")))
    assert 1.0 < after["scale"][0] < 2.0**30
    assert all(np.isfinite(values).all() for values in after.values())


def test_nccl_without_a_gpu_is_one_line(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", backend="nccl", device="cpu")
    with pytest.raises(UserMistake, match=r"training\.backend: nccl works between GPUs and this machine lends none"):
        run(job, StopSignal())


@pytest.mark.parametrize("family", ["dcn", "lightgbm"])
def test_rows_count_for_what_their_weights_say(tmp_path: Path, family: FamilyName) -> None:
    """Rows of weight 0 teach nothing: without them the model is as with their labels turned over."""
    results = []
    for flipped in (False, True):
        path = write_dataset(tmp_path / str(flipped), weighted=True, flipped=flipped)
        job = make_job(path, tmp_path / f"out-{flipped}", family, dropout=0.0)
        run(job, StopSignal())
        results.append(manifest_of(job.out).files["model.onnx"].sha256)
    assert results[0] == results[1]


def test_weights_file_holds_the_weights_that_score(tmp_path: Path) -> None:
    job = make_job(write_dataset(tmp_path / "dataset"), tmp_path / "out", "logistic")
    run(job, StopSignal())
    weights = load_file(job.out / "model.safetensors")
    assert weights["table.rows.weight"].shape[1] == 1
    assert np.isfinite(weights["tower.weights"]).all()
