"""The training loop of the torch models. It reads from top to bottom: model, optimizer, steps, epochs, result."""

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from include.domain import metrics
from include.trainer import export, gpu, model, parallel, warm
from include.trainer.batches import batches, prefetched, tensors
from include.trainer.checkpoint import Checkpoints, of_tensor
from include.trainer.dataset import Dataset, Split
from include.trainer.embedding import Embedding
from include.trainer.fitted import Fitted
from include.trainer.gradients import Gradients
from include.trainer.job import Job
from include.trainer.memory import MicroBatch
from include.trainer.model import Net, Table, Tower
from include.trainer.optimizer import Optimizer
from include.trainer.order import steps
from include.trainer.precision import LossScale
from include.trainer.progress import Progress
from include.trainer.schedule import Schedule
from include.trainer.signals import Stop, Stopped
from include.trainer.threads import threads
from include.trainer.tracking import Tracker
from include.trainer.world import World

SCORE_ROWS = 8192


def fit(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop) -> Fitted:
    """Train, from the newest checkpoint where there is one. Raises Stopped on SIGTERM and NonFiniteLoss."""
    net, progress = trained(job, data, world, tracker, stop)
    return Fitted(
        weights={"model.safetensors": save(net.state_dict())},
        onnx=export.graph(net, data.encoding),
        score=lambda ids, numbers: score(net, ids, numbers),
        seconds=progress.seconds,
        samples_per_second=progress.samples_per_second,
    )


def trained(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop) -> tuple[Net, Progress]:
    plan = job.training
    per_epoch = steps(len(data.train), plan.batch_size)
    total = plan.epochs * per_epoch
    torch.set_num_threads(threads(plan))
    schedule = Schedule.of(job, total)
    table = Embedding(data.encoding.sizes, model.width(job.family, job.model), schedule, job, world)
    tower = new_tower(job, data).to(world.device)
    if job.start:
        warm.begin(job.start, data.encoding, tower, table.rows, tracker)
    if plan.compile:
        tower.compile()
    shared = parallel.spread(tower, plan, world)
    optimizer, scale = Optimizer(tower), LossScale(plan)
    checkpoints = Checkpoints(job, world, [*table.parts(), *optimizer.parts(), of_tensor("scale", scale.state)])
    done = world.agree(checkpoints.restore())
    table.rows.resume(done)
    if done:
        tracker.say(f"going on after step {done} of {total}")
    gradients = Gradients(shared, job, world, scale, MicroBatch(job, world))
    progress = Progress(tracker, plan.epochs, per_epoch, plan.batch_size, done, gpu.of(world.device))

    for batch in progress.waiting(prefetched(batches(data.train, job, world, done))):
        found = table.find(batch.ids)
        loss, gradient = gradients.of(batch, found.vectors)
        optimizer.step(schedule.pace(batch.step))
        table.step(found, gradient)

        step = batch.step + 1
        progress.after(step, loss)
        stopping, due = world.any(stop.asked, checkpoints.due(step))
        if stopping or due:
            checkpoints.write(step)
        if stopping:
            raise Stopped(f"stopped after step {step} of {total}; a checkpoint is saved")
        if step % per_epoch == 0:
            with progress.measuring(), optimizer.averaged():
                scores = score_together(shared, table, data.validate, world)
            progress.measured(metrics.summary(data.validate.labels, scores))

    progress.ended()
    kept = new_tower(job, data)
    kept.load_state_dict(optimizer.kept(), strict=False)
    return Net(Table(data.encoding.sizes, table.averaged().cpu()), kept), progress


def new_tower(job: Job, data: Dataset) -> Tower:
    """The same in every process."""
    torch.manual_seed(job.seed)
    return model.build(job.family, job.model, data.encoding, data.train.numbers)


@torch.no_grad()
def score_together(tower: nn.Module, table: Embedding, split: Split, world: World) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic by the means of the weights; each process scores its part of the rows."""
    tower.eval()
    scores = torch.zeros(len(split), device=world.device)
    for start in range(0, len(split), SCORE_ROWS * world.size):
        rows = slice(start + SCORE_ROWS * world.rank, min(start + SCORE_ROWS * (world.rank + 1), len(split)))
        ids, numbers = tensors(split, rows, world.device)
        scores[rows] = torch.sigmoid(tower(table.find(ids, averaged=True).vectors, numbers))
    tower.train()
    return world.sum(scores).cpu().numpy().astype(np.float64)


@torch.inference_mode()
def score(net: Net, ids: NDArray[np.int32], numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic."""
    net.eval()
    parts = [
        torch.sigmoid(
            net(torch.from_numpy(ids[i : i + SCORE_ROWS].astype(np.int64)), torch.tensor(numbers[i : i + SCORE_ROWS]))
        )
        for i in range(0, len(ids), SCORE_ROWS)
    ]
    return torch.cat(parts).numpy().astype(np.float64)
