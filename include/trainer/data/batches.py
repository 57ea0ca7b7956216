"""The batches of a training: each process's share of each, in an order that the seed alone decides, made ahead of time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from include.trainer.data.dataset import Split
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job

T = TypeVar("T")

#: Batches that are ready before the loop wants them.
PREFETCHED = 2
#: Batches after which the pages of the dataset that they were read from are let go.
BATCHES_BETWEEN_RELEASES = 32
#: The share of a GPU's free memory that the windows may fill.
MAX_GPU_MEMORY_SHARE = 0.5
#: Rows read in one piece from disk; so many blocks are shuffled together in memory.
BLOCK_ROWS = 8192
BLOCKS_TOGETHER = 32


class Arrays(NamedTuple):
    """Rows as tensors of the device that trains."""

    ids: Tensor  #: int64 `[rows, C]`
    numbers: Tensor  #: float32 `[rows, N]`, NaN where missing
    labels: Tensor  #: float32 `[rows]`
    weights: Tensor | None  #: float32 `[rows]`, with mean 1 over the training windows


@dataclass(frozen=True)
class TrainingBatch:
    """The rows of step number `step` that are this process's share, and the size of the whole batch."""

    step: int
    size: int
    rows: Arrays
    times: NDArray[np.int64]  #: epoch s `[rows]`


def read_batches(split: Split, job: Job, group: ProcessGroup, first_step: int) -> Iterator[TrainingBatch]:
    """Yield this process's share of every batch from step number `first_step` on."""
    step, on_device = 0, _copy_to_gpu(split, group.device)
    for epoch in range(job.training.epochs):
        for rows in epoch_batches(len(split), job.training.batch_size, job.seed, epoch):
            if step >= first_step:
                own = rows[group.rank :: group.size]
                arrays = _select(on_device, own) if on_device else _read_rows(split, own, group.device)
                yield TrainingBatch(step, len(rows), arrays, split.times[own])
            step += 1
            if step % BATCHES_BETWEEN_RELEASES == 0:
                split.release_pages()


def epoch_batches(rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each batch of an epoch, in an order that seed and epoch alone decide, for any number of processes.

    Blocks are read in random order and the rows of a few of them shuffled together, so that the disk is read in long
    pieces while neighbours in a batch are strangers.
    """
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-rows // BLOCK_ROWS))
    left = np.empty(0, dtype=np.int64)
    for start in range(0, len(blocks), BLOCKS_TOGETHER):
        together = [
            np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows))
            for block in blocks[start : start + BLOCKS_TOGETHER]
        ]
        shuffled = np.concatenate([left, random.permutation(np.concatenate(together))])
        in_batches = len(shuffled) // batch_size * batch_size
        yield from shuffled[:in_batches].reshape(-1, batch_size)
        left = shuffled[in_batches:]
    if len(left):
        yield left


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the number of batches in an epoch."""
    return -(-rows // batch_size)


class Prefetcher(Generic[T]):
    """The items of an iterator, made by a thread of their own; an error of it is raised where its item is wanted."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items, self._thread, self._futures = items, ThreadPoolExecutor(1), deque[Future[T | None]]()
        for _ in range(PREFETCHED):
            self.prefetch()

    def prefetch(self) -> None:
        """Have another item made: to be called once for each that was taken, when a core is idle."""
        self._futures.append(self._thread.submit(next, self._items, None))

    def __iter__(self) -> Iterator[T]:
        with self._thread:
            while (item := self._futures.popleft().result()) is not None:
                yield item


def to_tensors(split: Split, rows: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids `[rows, C]` and numbers `[rows, N]` of these rows, on the device."""
    return torch.from_numpy(split.ids[rows].astype(np.int64)).to(device), torch.tensor(split.numbers[rows]).to(device)


def _copy_to_gpu(split: Split, device: torch.device) -> Arrays | None:
    """Return the whole windows (ids as int32) on a GPU that can hold them, so that no batch crosses the bus; else None."""
    if device.type != "cuda":
        return None
    size = split.ids.nbytes + split.numbers.nbytes + 2 * split.labels.nbytes
    if size > MAX_GPU_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    ids, numbers, labels = (torch.tensor(array).to(device) for array in (split.ids, split.numbers, split.labels))
    return Arrays(ids, numbers, labels, None if split.weights is None else torch.tensor(split.weights).to(device))


def _select(arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    index = torch.from_numpy(rows).to(arrays.ids.device)
    weights = None if arrays.weights is None else arrays.weights[index]
    return Arrays(arrays.ids[index].long(), arrays.numbers[index], arrays.labels[index], weights)


def _read_rows(split: Split, rows: NDArray[np.int64], device: torch.device) -> Arrays:
    ids, numbers = to_tensors(split, rows, device)
    weights = None if split.weights is None else torch.tensor(split.weights[rows]).to(device)
    return Arrays(ids, numbers, torch.tensor(split.labels[rows]).to(device), weights)
