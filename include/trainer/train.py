"""The training loop of the torch models. It reads from top to bottom: model, optimizer, steps, epochs, result."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from include.domain import metrics
from include.trainer import checkpoint, export, model
from include.trainer.dataset import Dataset, Split, order, steps
from include.trainer.fitted import Fitted
from include.trainer.guard import refuse_non_finite
from include.trainer.job import Job
from include.trainer.optimizer import Optimizer
from include.trainer.precision import precision
from include.trainer.progress import Progress
from include.trainer.signals import Stop, Stopped
from include.trainer.threads import threads
from include.trainer.tracking import Tracker
from include.trainer.world import World

SCORE_ROWS = 8192


@dataclass(frozen=True)
class Batch:
    """The rows of a global batch that are this process's share, and the size of the whole."""

    step: int
    rows: Split
    size: int


def fit(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop) -> Fitted:
    """Train, from the newest checkpoint where there is one. Raises Stopped on SIGTERM and NonFiniteLoss."""
    plan = job.training
    per_epoch = steps(len(data.train), plan.batch_size)
    total = plan.epochs * per_epoch
    torch.set_num_threads(threads(plan))
    torch.manual_seed(job.seed)
    net = model.build(job.family, job.model, data.encoding, data.train.numbers).to(world.device)
    shared = DistributedDataParallel(net) if world.size > 1 else net
    optimizer = Optimizer(net, plan, total)
    done = checkpoint.restore(job.checkpoints, optimizer, job.identity)
    if done:
        tracker.say(f"going on after step {done} of {total}")
    progress = Progress(tracker, plan.epochs, per_epoch, plan.batch_size, done)

    for batch in share(data.train, job, world, done):
        torch.manual_seed(hash((job.seed, batch.step, world.rank)))  # dropout; a resumed run draws the same
        loss = loss_of(shared, batch, job, world)
        loss.backward()  # type: ignore[no-untyped-call]
        refuse_non_finite(loss, net, batch.step, batch.rows.times)
        optimizer.step(batch.step)

        step = batch.step + 1
        progress.after(step, loss)
        stopping = world.any(stop.asked)
        if world.first and (stopping or step % plan.checkpoint_steps == 0):
            checkpoint.write(job.checkpoints, optimizer, step, job.identity)
        if stopping:
            raise Stopped(f"stopped after step {step} of {total}; a checkpoint is saved")
        if world.first and step % per_epoch == 0:
            began = time.monotonic()
            optimizer.swap()
            scores = score(net, data.validate.ids, data.validate.numbers)
            optimizer.swap()
            progress.measured(metrics.summary(data.validate.labels, scores), time.monotonic() - began)

    optimizer.swap()
    net = net.cpu()
    return Fitted(
        weights={"model.safetensors": save({name: tensor.contiguous() for name, tensor in net.state_dict().items()})},
        onnx=export.graph(net, data.encoding),
        score=lambda ids, numbers: score(net, ids, numbers),
        seconds=progress.seconds,
        samples_per_second=progress.samples_per_second,
    )


def share(split: Split, job: Job, world: World, done: int) -> Iterator[Batch]:
    """This process's share of every batch after the first `done` steps."""
    plan = job.training
    step = 0
    for epoch in range(plan.epochs):
        for rows in order(len(split), plan.batch_size, job.seed, epoch):
            if step >= done:
                yield Batch(step, split.take(rows[world.rank :: world.size]), len(rows))
            step += 1


def loss_of(net: nn.Module, batch: Batch, job: Job, world: World) -> Tensor:
    """Binary cross-entropy summed over this process's rows, scaled so that its mean over processes is the batch's mean."""
    ids, numbers = tensors(batch.rows.ids, batch.rows.numbers, world.device)
    labels = torch.from_numpy(batch.rows.labels).to(world.device)
    smoothing = job.training.label_smoothing
    with precision(job.training, world.device):
        logits = net(ids, numbers)
    targets = labels * (1 - smoothing) + smoothing / 2
    total = binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return total * (world.size / batch.size)


@torch.inference_mode()
def score(net: nn.Module, ids: NDArray[np.int32], numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic."""
    was = net.training
    net.eval()
    device = next(net.parameters()).device
    parts = [
        torch.sigmoid(net(*tensors(ids[i : i + SCORE_ROWS], numbers[i : i + SCORE_ROWS], device))).cpu().numpy()
        for i in range(0, len(ids), SCORE_ROWS)
    ]
    net.train(was)
    return np.concatenate(parts).astype(np.float64)


def tensors(ids: NDArray[np.int32], numbers: NDArray[np.float32], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(ids.astype(np.int64)).to(device), torch.from_numpy(np.array(numbers)).to(device)
