"""The training loop of the torch models. It reads from top to bottom: model, optimizer, steps, epochs, result."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from include.domain import metrics
from include.domain.errors import PerennialError
from include.trainer import checkpoint, export, model, optimizer
from include.trainer.dataset import Dataset, Split, order, steps
from include.trainer.fitted import Fitted
from include.trainer.job import Job
from include.trainer.signals import Stop, Stopped
from include.trainer.tracking import Tracker
from include.trainer.world import World

SCORE_ROWS = 8192
PROGRESS_SECONDS = 2.0


class NonFiniteLoss(PerennialError):
    """The loss or a gradient became NaN or infinite; the weights are those before the step."""


@dataclass(frozen=True)
class Batch:
    """A global batch's rows that are this process's share, and the size of the whole."""

    step: int
    epoch: int
    rows: Split
    size: int


def fit(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop) -> Fitted:
    """Train, from the newest checkpoint where there is one. Raises Stopped on SIGTERM and NonFiniteLoss."""
    plan = job.training
    torch.manual_seed(job.seed)
    net = model.build(job.family, job.model, data.encoding, data.train.numbers).to(world.device)
    adam = optimizer.build(net, plan)
    average = optimizer.Average(net.parameters(), plan.ema)
    state = checkpoint.State(net, adam, average)
    done = checkpoint.restore(job.checkpoints, state, job.identity)
    if done:
        tracker.say(f"resumed after step {done}")
    shared = DistributedDataParallel(net) if world.size > 1 else net
    per_epoch = steps(len(data.train), plan.batch_size)
    pace = Pace(tracker, plan.epochs, per_epoch, plan.batch_size, done)

    for batch in share(data.train, job, world, done):
        torch.manual_seed(hash((job.seed, batch.step, world.rank)))
        loss = loss_of(shared, batch, job, world)
        adam.zero_grad()
        loss.backward()
        refuse_non_finite(loss, net, batch)
        adam.step()
        average.update(batch.step)

        step = batch.step + 1
        pace.after(step, loss)
        if world.shares(stop.asked):
            if world.first:
                checkpoint.write(job.checkpoints, state, step, job.identity)
            raise Stopped(f"stopped after step {step} of {plan.epochs * per_epoch}; a checkpoint is saved")
        if world.first and step % plan.checkpoint_steps == 0:
            checkpoint.write(job.checkpoints, state, step, job.identity)
        if world.first and step % per_epoch == 0:
            average.swap()
            scores = score(net, data.validate.ids, data.validate.numbers)
            average.swap()
            measured = metrics.summary(data.validate.labels, scores)
            tracker.say(f"epoch {step // per_epoch}/{plan.epochs} validate " + " ".join(f"{k} {v:.4f}" for k, v in measured.items()))
            tracker.metrics({f"validate_{k}": v for k, v in measured.items()}, step)

    average.swap()
    net = net.cpu().eval()
    weights = save({name: tensor.contiguous() for name, tensor in net.state_dict().items()})
    return Fitted("model.safetensors", weights, export.graph(net, data.encoding), lambda ids, numbers: score(net, ids, numbers),
                  pace.seconds, pace.samples_per_second)  # fmt: skip


def share(split: Split, job: Job, world: World, done: int) -> Iterator[Batch]:
    """This process's share of every batch after the first `done` steps."""
    plan = job.training
    step = 0
    for epoch in range(plan.epochs):
        for rows in order(len(split), plan.batch_size, job.seed, epoch):
            if step >= done:
                yield Batch(step, epoch, split.take(rows[world.rank :: world.size]), len(rows))
            step += 1


def loss_of(net: nn.Module, batch: Batch, job: Job, world: World) -> Tensor:
    """Binary cross-entropy summed over this process's rows, so scaled that the mean over processes is the batch's mean."""
    ids, numbers = tensors(batch.rows.ids, batch.rows.numbers, world.device)
    labels = torch.from_numpy(batch.rows.labels).to(world.device)
    smooth = job.training.label_smoothing
    with precision(job, world.device):
        logits = net(ids, numbers)
    total = binary_cross_entropy_with_logits(logits.float(), labels * (1 - smooth) + smooth / 2, reduction="sum")
    return total * world.size / batch.size


def refuse_non_finite(loss: Tensor, net: nn.Module, batch: Batch) -> None:
    """Raises NonFiniteLoss before the step that would spread it, naming the step, the rows' days and the largest gradient."""
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    if torch.isfinite(nn.utils.get_total_norm(gradients.values())) and torch.isfinite(loss):
        return
    largest = max(gradients, key=lambda name: float(gradients[name].abs().nan_to_num(torch.inf).max()))
    days = np.array([batch.rows.times.min(), batch.rows.times.max()], dtype="datetime64[s]").astype("datetime64[D]")
    raise NonFiniteLoss(
        f"step {batch.step + 1}: the loss is {loss.item():.4g}; rows from {days[0]} to {days[1]}; largest gradient "
        f"{float(gradients[largest].abs().max()):.4g} in {largest}; try a lower training.learning_rate"
    )


@torch.inference_mode()
def score(net: nn.Module, ids: NDArray[np.int32], numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic."""
    was = net.training
    net.eval()
    device = next(net.parameters()).device
    parts = [torch.sigmoid(net(*tensors(ids[i : i + SCORE_ROWS], numbers[i : i + SCORE_ROWS], device))).cpu().numpy()
             for i in range(0, len(ids), SCORE_ROWS)]  # fmt: skip
    net.train(was)
    return np.concatenate(parts).astype(np.float64)


def tensors(ids: NDArray[np.int32], numbers: NDArray[np.float32], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(ids.astype(np.int64)).to(device), torch.from_numpy(np.array(numbers)).to(device)


def precision(job: Job, device: torch.device) -> torch.autocast:
    """bf16 for matrix products where the processor multiplies it faster than fp32 and the batch is large enough to gain."""
    wanted = job.training.precision
    if wanted == "auto":
        wanted = "bf16" if _gains_from_bf16(job.training.batch_size, device) else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted == "bf16")


@cache
def _gains_from_bf16(batch_size: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return batch_size >= 2048 and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class Pace:
    """Progress lines and the speed of the steps since the start."""

    def __init__(self, tracker: Tracker, epochs: int, per_epoch: int, batch_size: int, done: int) -> None:
        self.tracker, self.epochs, self.per_epoch = tracker, epochs, per_epoch
        self.batch_size, self.done, self.step = batch_size, done, done
        self.began = self.told = time.monotonic()

    def after(self, step: int, loss: Tensor) -> None:
        """Say so every two seconds and at the end of an epoch."""
        self.step = step
        if time.monotonic() - self.told < PROGRESS_SECONDS and step % self.per_epoch:
            return
        self.told = time.monotonic()
        epoch = -(-step // self.per_epoch)
        speed = self.samples_per_second
        self.tracker.say(f"epoch {epoch}/{self.epochs} step {step}/{self.epochs * self.per_epoch} loss {loss.item():.4f} "
                         f"samples/s {speed:,.0f}")  # fmt: skip
        self.tracker.metrics({"loss": loss.item(), "samples_per_second": speed}, step)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def samples_per_second(self) -> float:
        return (self.step - self.done) * self.batch_size / max(self.seconds, 1e-9)
