"""The training loop of the torch models. It reads from top to bottom: model, optimizer, steps, epochs, result."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from include.domain import metrics
from include.trainer.data.batches import Prefetched, batches, steps, tensors
from include.trainer.data.dataset import Dataset, Split, encoding
from include.trainer.distributed import sharding
from include.trainer.distributed.checkpoint import Checkpoints, of_tensor
from include.trainer.distributed.process_group import World
from include.trainer.distributed.row_threads import Crew
from include.trainer.export.trained_model import Fitted
from include.trainer.job import Job
from include.trainer.model import network, warm_start
from include.trainer.model.network import Net, Table, Tower
from include.trainer.optim.adamw import Optimizer
from include.trainer.optim.embedding_table import Embedding
from include.trainer.optim.gradients import Gradients
from include.trainer.optim.memory import MicroBatch, keep_freed
from include.trainer.optim.precision import LossScale
from include.trainer.optim.schedule import Schedule
from include.trainer.process import Stop, Stopped
from include.trainer.tracking import gpu
from include.trainer.tracking.progress import Progress
from include.trainer.tracking.tracker import Tracker

SCORE_ROWS = 2048


def fit(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop, folder: Path) -> Fitted:
    """Train and write the model's files into the folder. Raises Stopped on SIGTERM and NonFiniteLoss."""
    from include.trainer.export import onnx_model  # its onnx is no use before

    net, progress = trained(job, data, world, tracker, stop)
    weights, graph = folder / "model.safetensors", folder / "net.onnx"
    onnx_model.write(net, graph)
    save_file(net.state_dict(), weights)
    weights.chmod(graph.stat().st_mode)  # safetensors lets its owner alone read it
    return Fitted([weights], graph, score(net, data.test), progress.seconds, progress.samples_per_second)


def trained(job: Job, data: Dataset, world: World, tracker: Tracker, stop: Stop) -> tuple[Net, Progress]:
    """The model and how it went, from the newest checkpoint where there is one; all processes must ask together."""
    plan = job.training
    per_epoch = steps(len(data.train), plan.batch_size)
    total = plan.epochs * per_epoch
    crew = Crew(plan, world)
    keep_freed()
    schedule = Schedule.of(job, total)
    table = Embedding(data.fields.sizes, network.width(job.family, job.model), schedule, job, world, crew)
    tower = new_tower(job, data).to(world.device)
    if job.start:
        rows, fitted = table.rows, encoding(data.folder / "encoding.json")
        warm_start.begin(job.start, fitted, tower, rows.weight, rows.row, rows.stride, tracker)
        rows.mean.copy_(rows.weight)
    if plan.compile:
        tower.compile()
    shared = sharding.spread(tower, plan, world)
    optimizer, scale = Optimizer(tower), LossScale(plan)
    checkpoints = Checkpoints(job, world, [*table.parts(), *optimizer.parts(), of_tensor("scale", scale.state)])
    done = world.agree(checkpoints.restore())
    table.rows.resume(done)
    if done:
        tracker.say(f"going on after step {done} of {total}")
    gradients = Gradients(shared, crew, job, world, scale, MicroBatch(job, world))
    progress = Progress(tracker, plan.epochs, per_epoch, done, gpu.of(world.device))

    coming = Prefetched(table.grouped(batches(data.train, job, world, done)))
    for batch, grouped in progress.waiting(coming):
        loss, gradient = gradients.of(batch, table.find(grouped))
        coming.make_another()  # what follows is small, and leaves a core to it
        optimizer.step(schedule.pace(batch.step))
        table.step(grouped, gradient)

        step = batch.step + 1
        progress.after(step, batch.size, loss)
        stopping, due = world.any(stop.asked, checkpoints.due(step))
        if stopping or due:
            checkpoints.write(step)
        if stopping:
            raise Stopped(f"stopped after step {step} of {total}; a checkpoint is saved")
        if step % per_epoch == 0:
            with progress.measuring(), optimizer.averaged():
                scores = score_together(shared, table, data.validate, world, crew)
            progress.measured(metrics.all_metrics(data.validate.labels, scores))

    progress.ended()
    torch.set_num_threads(crew.threads)
    kept = new_tower(job, data)
    kept.load_state_dict(optimizer.kept(), strict=False)
    return Net(Table(data.fields.sizes, table.averaged().cpu()), kept), progress


def new_tower(job: Job, data: Dataset) -> Tower:
    """The same in every process."""
    torch.manual_seed(job.seed)
    return network.build(job.family, job.model, data.fields, data.train.numbers)


def score_together(tower: nn.Module, table: Embedding, split: Split, world: World, crew: Crew) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic by the means of the weights; each process scores its part of the rows."""

    @torch.no_grad()
    def fill(found: Tensor, vectors: Tensor, numbers: Tensor) -> None:
        torch.sigmoid(tower(vectors, numbers), out=found)

    scores = torch.zeros(len(split), device=world.device)
    for start in range(0, len(split), SCORE_ROWS * world.size):
        rows = slice(start + SCORE_ROWS * world.rank, min(start + SCORE_ROWS * (world.rank + 1), len(split)))
        ids, numbers = tensors(split, rows, world.device)
        vectors = table.find(table.group(ids), averaged=True)
        crew.map(fill, *([t[span] for span in crew.spans(len(ids))] for t in (scores[rows], vectors, numbers)))
    return world.sum(scores).cpu().numpy().astype(np.float64)


@torch.inference_mode()
def score(net: Net, split: Split) -> NDArray[np.float64]:
    """Probabilities `[n]` in float32 arithmetic."""
    slices = [slice(start, start + SCORE_ROWS) for start in range(0, len(split), SCORE_ROWS)]
    parts = [torch.sigmoid(net(*tensors(split, rows, torch.device("cpu")))) for rows in slices]
    return torch.cat(parts).numpy().astype(np.float64)
