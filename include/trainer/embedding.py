"""The embedding table as the loop sees it, whole in each process or spread over all by row: vectors out, gradients in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from include.trainer.checkpoint import Part
from include.trainer.job import Job
from include.trainer.model import offsets
from include.trainer.parallel import shards
from include.trainer.schedule import Schedule
from include.trainer.table import CHUNK, Grouped, Rows
from include.trainer.world import World


class Reach(Protocol):
    """Reads and moves rows wherever they lie; row numbers are the whole table's."""

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor: ...

    def step(self, rows: Tensor, gradients: Tensor) -> None: ...


class Replicated:
    """Every process holds all rows and takes the same step, by the mean of all gradients."""

    def __init__(self, rows: Rows, world: World) -> None:
        self.rows, self.world = rows, world

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        return self.rows.read(rows, averaged=averaged)

    def step(self, rows: Tensor, gradients: Tensor) -> None:
        everyone = Grouped.of(torch.cat(self.world.gather(rows)))
        self.rows.step(everyone.rows, everyone.sums(torch.cat(self.world.gather(gradients))) / self.world.size)


class Sharded:
    """Row r lies in process r mod size: ids go there, vectors come back, gradients go there again."""

    def __init__(self, rows: Rows, world: World) -> None:
        self.rows, self.world = rows, world

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        order, sent, received = self._route(rows)
        asked = self.world.exchange(rows[order], sent, received)
        answers = self.rows.read(asked // self.world.size, averaged=averaged)
        vectors = answers.new_empty(len(rows), answers.shape[1])
        vectors[order] = self.world.exchange(answers, received, sent)
        return vectors

    def step(self, rows: Tensor, gradients: Tensor) -> None:
        order, sent, received = self._route(rows)
        mine = Grouped.of(self.world.exchange(rows[order], sent, received) // self.world.size)
        sums = mine.sums(self.world.exchange(gradients[order], sent, received))
        self.rows.step(mine.rows, sums / self.world.size)

    def _route(self, rows: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """Rows in order of their owners, how many go to each process and how many come from each."""
        owners, one_each = rows % self.world.size, [1] * self.world.size
        sent = torch.bincount(owners, minlength=self.world.size)
        received = self.world.exchange(sent, one_each, one_each)
        return torch.argsort(owners, stable=True), sent.tolist(), received.tolist()


@dataclass(frozen=True)
class Found:
    """The vectors `[rows, C, width]` of a batch's ids, and which rows of the table they are."""

    vectors: Tensor
    grouped: Grouped


class Embedding:
    """The table of all categorical fields, each field's rows at its offset."""

    def __init__(self, sizes: list[int], width: int, schedule: Schedule, job: Job, world: World) -> None:
        self.world, self.offsets = world, offsets(sizes).to(world.device)
        spread = shards(job.training, world)
        share = (world.rank, world.size) if spread else (0, 1)
        self.rows = Rows(max(sum(sizes), 1), width, schedule, job.seed, world.device, *share)
        self.reach: Reach = self.rows
        if world.size > 1:
            self.reach = Sharded(self.rows, world) if spread else Replicated(self.rows, world)

    def find(self, ids: Tensor, *, averaged: bool = False) -> Found:
        """Of ids `[rows, C]`; all processes must ask together."""
        grouped = Grouped.of((ids + self.offsets).flatten())
        vectors = self.reach.read(grouped.rows, averaged=averaged)[grouped.place]
        return Found(vectors.view(*ids.shape, vectors.shape[1]), grouped)

    def step(self, found: Found, gradient: Tensor) -> None:
        """The next step of all rows, by the gradient of the vectors found."""
        self.reach.step(found.grouped.rows, found.grouped.sums(gradient.flatten(0, 1)))

    def averaged(self) -> Tensor:
        """The means of all rows, which are the table that is kept. No step may follow."""
        self.rows.settle()
        mean = self.rows.mean
        self.rows.forget()
        return mean if self.rows.stride == 1 else torch.cat([piece.cpu() for piece in self._pieces(mean)])

    def parts(self) -> Iterator[Part]:
        """For a checkpoint."""
        for name, tensor in self.rows.tensors():
            yield self._part(name, tensor)

    def _part(self, name: str, tensor: Tensor) -> Part:
        def load(stored: Any) -> None:
            rows = self.rows
            for start in range(0, len(tensor), CHUNK):
                whole = stored[start * rows.stride : (start + CHUNK) * rows.stride]
                own = whole[rows.row :: rows.stride]
                tensor[start : start + len(own)] = own.to(tensor.device)

        shape = (self.rows.count, *tensor.shape[1:])
        return Part(f"{name}.table", shape, tensor.dtype, lambda: self._pieces(tensor), load)

    def _pieces(self, tensor: Tensor) -> Iterator[Tensor]:
        """The whole table's rows from their shares, in order."""
        stride, count = self.rows.stride, self.rows.count
        for start in range(0, -(-count // stride), CHUNK):
            own = tensor[start : start + CHUNK]
            if stride == 1:
                yield own
                continue
            shares = self.world.gather(own)
            whole = own.new_empty(sum(map(len, shares)), *own.shape[1:])
            for rank, share in enumerate(shares):
                whole[rank::stride] = share
            yield whole
