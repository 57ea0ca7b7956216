"""The training loop of the networks. It reads from top to bottom: network, optimizers, steps, epochs, result."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from include.domain import metrics
from include.trainer.data.batches import Prefetcher, read_batches, steps_per_epoch, to_tensors
from include.trainer.data.dataset import Dataset, Split, read_encoding
from include.trainer.distributed.checkpoint import Checkpoints, state_tensor
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.row_threads import RowThreads
from include.trainer.distributed.sharding import distribute_tower
from include.trainer.export.trained_model import TrainedModel
from include.trainer.job import Job
from include.trainer.model.network import FieldEmbedding, Network, Tower, build_tower, embedding_width
from include.trainer.model.warm_start import load_champion
from include.trainer.optim.adamw import DenseAdamW
from include.trainer.optim.embedding_table import EmbeddingTable
from include.trainer.optim.gradients import ForwardBackward
from include.trainer.optim.memory import MicroBatch, keep_freed_memory
from include.trainer.optim.precision import LossScale
from include.trainer.optim.schedule import StepSchedule
from include.trainer.process import StopSignal, TrainingStopped
from include.trainer.tracking.gpu import open_gpu
from include.trainer.tracking.progress import Progress
from include.trainer.tracking.tracker import Tracker

SCORE_ROWS = 2048


def fit(job: Job, data: Dataset, group: ProcessGroup, tracker: Tracker, stop: StopSignal, folder: Path) -> TrainedModel:
    """Train and write the model's files into the folder. Raises TrainingStopped on SIGTERM and NonFiniteLoss."""
    from include.trainer.export import onnx_model  # its onnx is no use before

    network, progress = train(job, data, group, tracker, stop)
    weights, graph = folder / "model.safetensors", folder / "net.onnx"
    onnx_model.write(network, graph)
    save_file(network.state_dict(), weights)
    weights.chmod(graph.stat().st_mode)  # safetensors lets its owner alone read it
    return TrainedModel([weights], graph, score(network, data.test), progress.seconds, progress.samples_per_second)


def train(job: Job, data: Dataset, group: ProcessGroup, tracker: Tracker, stop: StopSignal) -> tuple[Network, Progress]:
    """Return the trained network and how its training went.

    It goes on from the newest checkpoint where there is one. All processes must call together.
    """
    settings = job.training
    epoch_steps = steps_per_epoch(len(data.train), settings.batch_size)
    total_steps = settings.epochs * epoch_steps
    threads = RowThreads(settings, group)
    keep_freed_memory()
    schedule = StepSchedule.of(job, total_steps)
    table = EmbeddingTable(data.fields.sizes, embedding_width(job.family, job.model), schedule, job, group, threads)
    tower = new_tower(job, data).to(group.device)
    if job.start:
        rows, encoding = table.rows, read_encoding(data.folder / "encoding.json")
        load_champion(job.start, encoding, tower, rows.weight, rows.first, rows.stride, tracker)
        rows.restart_average()
    if settings.compile:
        tower.compile()
    shared_tower = distribute_tower(tower, settings, group)
    optimizer, scale = DenseAdamW(tower), LossScale(settings)
    checkpoints = Checkpoints(job, group, [*table.state(), *optimizer.state(), state_tensor("scale", scale.state)])
    first_step = group.check_same_step(checkpoints.restore())
    table.rows.resume(first_step)
    if first_step:
        tracker.log(f"going on after step {first_step} of {total_steps}")
    forward_backward = ForwardBackward(shared_tower, threads, job, group, scale, MicroBatch(job, group))
    progress = Progress(tracker, settings.epochs, epoch_steps, first_step, open_gpu(group.device))

    batches = Prefetcher(table.with_unique_rows(read_batches(data.train, job, group, first_step)))
    for batch, unique_rows in progress.time_waits(batches):
        loss, gradient = forward_backward.run(batch, table.lookup(unique_rows))
        batches.prefetch()  # what follows is small, and leaves a core to it
        optimizer.step(schedule.coefficients(batch.step))
        table.step(unique_rows, gradient)

        step = batch.step + 1
        progress.after_step(step, batch.size, loss)
        stopping, checkpoint_due = group.any(stop.received, checkpoints.is_due(step))
        if stopping or checkpoint_due:
            checkpoints.save(step)
        if stopping:
            raise TrainingStopped(f"stopped after step {step} of {total_steps}; a checkpoint is saved")
        if step % epoch_steps == 0:
            with progress.paused(), optimizer.averaged_weights():
                scores = score_together(shared_tower, table, data.validate, group, threads)
            progress.after_epoch(metrics.all_metrics(data.validate.labels, scores))

    progress.finish()
    torch.set_num_threads(threads.arithmetic_threads)
    averaged_tower = new_tower(job, data)
    averaged_tower.load_state_dict(optimizer.averaged_state(), strict=False)
    return Network(FieldEmbedding(data.fields.sizes, table.averaged_weight().cpu()), averaged_tower), progress


def new_tower(job: Job, data: Dataset) -> Tower:
    """Return a tower with random weights, the same in every process."""
    torch.manual_seed(job.seed)
    return build_tower(job.family, job.model, data.fields, data.train.numbers)


def score_together(
    tower: nn.Module, table: EmbeddingTable, split: Split, group: ProcessGroup, threads: RowThreads
) -> NDArray[np.float64]:
    """Return probabilities `[n]` in float32 arithmetic by the averaged weights; each process scores its part of the rows."""

    @torch.no_grad()
    def fill(scores: Tensor, vectors: Tensor, numbers: Tensor) -> None:
        torch.sigmoid(tower(vectors, numbers), out=scores)

    scores = torch.zeros(len(split), device=group.device)
    for start in range(0, len(split), SCORE_ROWS * group.size):
        rows = slice(start + SCORE_ROWS * group.rank, min(start + SCORE_ROWS * (group.rank + 1), len(split)))
        ids, numbers = to_tensors(split, rows, group.device)
        vectors = table.lookup(table.unique_rows(ids), averaged=True)
        spans = threads.spans(len(ids))
        threads.map(fill, *([tensor[span] for span in spans] for tensor in (scores[rows], vectors, numbers)))
    return group.all_reduce_sum(scores).cpu().numpy().astype(np.float64)


@torch.inference_mode()
def score(network: Network, split: Split) -> NDArray[np.float64]:
    """Return probabilities `[n]` in float32 arithmetic."""
    slices = [slice(start, start + SCORE_ROWS) for start in range(0, len(split), SCORE_ROWS)]
    parts = [torch.sigmoid(network(*to_tensors(split, rows, torch.device("cpu")))) for rows in slices]
    return torch.cat(parts).numpy().astype(np.float64)
