"""The batches of a training: each process's share of each, in an order that the seed alone decides, made ahead of time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from include.trainer.data.dataset import Split
from include.trainer.distributed.process_group import World
from include.trainer.job import Job

T = TypeVar("T")

#: Batches that are ready before they are asked for.
AHEAD = 2
#: Batches after which the pages of the dataset that they were read from are no longer held.
BATCHES_HELD = 32
#: Of a GPU's free memory, what the windows may fill.
SHARE = 0.5
#: Rows read in one piece from disk; so many blocks are shuffled together in memory.
BLOCK = 8192
BLOCKS_TOGETHER = 32


@dataclass(frozen=True)
class Batch:
    """The rows of a global batch that are this process's share, and the size of the whole."""

    step: int
    size: int
    ids: Tensor  #: int64 `[rows, C]`
    numbers: Tensor  #: float32 `[rows, N]`, NaN where missing
    labels: Tensor  #: float32 `[rows]`
    weights: Tensor | None  #: float32 `[rows]`, with mean 1 over the training windows
    times: NDArray[np.int64]  #: epoch s `[rows]`


def batches(split: Split, job: Job, world: World, done: int) -> Iterator[Batch]:
    """This process's share of every batch after the first `done` steps."""
    plan, step = job.training, 0
    tensors = _resident(split, world.device)
    for epoch in range(plan.epochs):
        for rows in order(len(split), plan.batch_size, job.seed, epoch):
            if step >= done:
                own = rows[world.rank :: world.size]
                yield Batch(step, len(rows), *_taken(split, tensors, own, world.device), split.times[own])
            step += 1
            if step % BATCHES_HELD == 0:
                split.let_go()


class Prefetched(Generic[T]):
    """The same, each made by a thread of its own when it is told to; a fault of it is raised where the batch is asked for."""

    def __init__(self, made: Iterator[T]) -> None:
        self._made, self._thread, self._coming = made, ThreadPoolExecutor(1), deque[Future[T | None]]()
        for _ in range(AHEAD):
            self.make_another()

    def make_another(self) -> None:
        """One for each that was taken, when a core is idle."""
        self._coming.append(self._thread.submit(next, self._made, None))

    def __iter__(self) -> Iterator[T]:
        with self._thread:
            while (batch := self._coming.popleft().result()) is not None:
                yield batch


def tensors(split: Split, rows: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and numbers of these rows, on the device."""
    return torch.from_numpy(split.ids[rows].astype(np.int64)).to(device), torch.tensor(split.numbers[rows]).to(device)


def _resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor | None] | None:
    """The whole windows as tensors of a GPU that can hold them: then no batch crosses the bus."""
    if device.type != "cuda":
        return None
    size = split.ids.nbytes + split.numbers.nbytes + 2 * split.labels.nbytes
    if size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    ids, numbers, labels = (torch.tensor(part).to(device) for part in (split.ids, split.numbers, split.labels))
    return ids, numbers, labels, None if split.weights is None else torch.tensor(split.weights).to(device)


def _taken(
    split: Split, resident: tuple[Tensor, Tensor, Tensor, Tensor | None] | None, rows: NDArray[np.int64],
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    if resident is None:
        ids, numbers = tensors(split, rows, device)
        weights = None if split.weights is None else torch.tensor(split.weights[rows]).to(device)
        return ids, numbers, torch.tensor(split.labels[rows]).to(device), weights
    at = torch.from_numpy(rows).to(device)
    ids, numbers, labels, weights = resident
    return ids[at].long(), numbers[at], labels[at], None if weights is None else weights[at]


def order(rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch of an epoch, in an order that seed and epoch alone decide, for any number of processes.

    Blocks are read in random order and the rows of a few of them shuffled together, so that the disk is read in long
    pieces while neighbours in a batch are strangers.
    """
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-rows // BLOCK))
    left = np.empty(0, dtype=np.int64)
    for start in range(0, len(blocks), BLOCKS_TOGETHER):
        together = [np.arange(b * BLOCK, min((b + 1) * BLOCK, rows)) for b in blocks[start : start + BLOCKS_TOGETHER]]
        mixed = np.concatenate([left, random.permutation(np.concatenate(together))])
        whole = len(mixed) // batch_size * batch_size
        yield from mixed[:whole].reshape(-1, batch_size)
        left = mixed[whole:]
    if len(left):
        yield left


def steps(rows: int, batch_size: int) -> int:
    """Batches in an epoch."""
    return -(-rows // batch_size)
