"""The embedding table as the loop sees it, whole in each process or spread over all by row: vectors out, gradients in."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from include.trainer.data.batches import Batch
from include.trainer.distributed.checkpoint import Part
from include.trainer.distributed.process_group import World
from include.trainer.distributed.row_threads import Crew
from include.trainer.distributed.sharding import shards
from include.trainer.job import Job
from include.trainer.model.network import offsets
from include.trainer.optim.lazy_adamw import CHUNK, Grouped, Rows, Settled
from include.trainer.optim.linear_term import Prior, with_told
from include.trainer.optim.schedule import Schedule

#: Rows that are worth another thread's while.
FEW = 16_384


class Reach(Protocol):
    """Reads rows wherever they lie, and moves those that were read last; row numbers are the whole table's."""

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor: ...

    def step(self, grouped: Grouped, gradients: Tensor) -> None: ...


class Own:
    """The rows that this process holds, by number of its own; its threads share them out."""

    def __init__(self, rows: Rows, crew: Crew) -> None:
        self.rows, self.crew = rows, crew
        self.taken: list[Settled] = []

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        self.taken = self.crew.map(lambda span: self.rows.take(rows[span]), self.crew.spans(len(rows), FEW))
        return torch.cat([piece.mean if averaged else piece.weight for piece in self.taken])

    def step(self, grouped: Grouped, gradients: Tensor) -> None:
        def move(taken: Settled, span: slice) -> None:
            self.rows.move(taken, grouped.sums(gradients, span))

        self.crew.map(move, self.taken, self.crew.spans(len(grouped.rows), FEW))
        self.rows.pass_step()


class Replicated:
    """Every process holds all rows and takes the same step, by the mean of all gradients."""

    def __init__(self, own: Own, world: World) -> None:
        self.own, self.world = own, world

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        return self.own.read(rows, averaged=averaged)

    def step(self, grouped: Grouped, gradients: Tensor) -> None:
        everyone = Grouped.of(torch.cat(self.world.gather(grouped.rows)))
        sums = torch.cat(self.world.gather(grouped.sums(gradients)))
        self.own.read(everyone.rows)
        self.own.step(everyone, sums / self.world.size)


class Sharded:
    """Row r lies in process r mod size: ids go there, vectors come back, gradients go there again."""

    def __init__(self, own: Own, world: World) -> None:
        self.own, self.world = own, world

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        order, sent, received = self._route(rows)
        asked = self.world.exchange(rows[order], sent, received)
        answers = self.own.read(asked // self.world.size, averaged=averaged)
        vectors = answers.new_empty(len(rows), answers.shape[1])
        vectors[order] = self.world.exchange(answers, received, sent)
        return vectors

    def step(self, grouped: Grouped, gradients: Tensor) -> None:
        order, sent, received = self._route(grouped.rows)
        mine = Grouped.of(self.world.exchange(grouped.rows[order], sent, received) // self.world.size)
        sums = self.world.exchange(grouped.sums(gradients)[order], sent, received)
        self.own.read(mine.rows)
        self.own.step(mine, sums / self.world.size)

    def _route(self, rows: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """Rows in order of their owners, how many go to each process and how many come from each."""
        owners, one_each = rows % self.world.size, [1] * self.world.size
        sent = torch.bincount(owners, minlength=self.world.size)
        received = self.world.exchange(sent, one_each, one_each)
        return torch.argsort(owners, stable=True), sent.tolist(), received.tolist()


class Embedding:
    """The table of all categorical fields, each field's rows at its offset; all processes must ask together."""

    def __init__(self, sizes: list[int], width: int, schedule: Schedule, job: Job, world: World, crew: Crew) -> None:
        self.world, self.crew, self.offsets = world, crew, offsets(sizes).to(world.device)
        spread = shards(job.training, world)
        share = (world.rank, world.size) if spread else (0, 1)
        prior = Prior.of(job, len(sizes))
        self.rows = Rows(max(sum(sizes), 1), width, schedule, job.seed, world.device, *share, prior)
        own = Own(self.rows, crew)
        self.reach: Reach = own
        if world.size > 1:
            self.reach = Sharded(own, world) if spread else Replicated(own, world)

    def grouped(self, made: Iterable[Batch]) -> Iterator[tuple[Batch, Grouped]]:
        """Each batch with the rows of its ids."""
        for batch in made:
            yield batch, self.group(batch.ids)

    def group(self, ids: Tensor) -> Grouped:
        return Grouped.of(ids + self.offsets)

    def find(self, grouped: Grouped, *, averaged: bool = False) -> Tensor:
        """The vectors `[rows, C, width]` of a batch's ids."""
        vectors, place = self.reach.read(grouped.rows, averaged=averaged), grouped.place.flatten()
        found = vectors.new_empty(len(place), vectors.shape[1])

        def spread(span: slice) -> None:
            torch.index_select(vectors, 0, place[span], out=found[span])

        self.crew.map(spread, self.crew.spans(len(place), FEW))
        return found.view(*grouped.place.shape, vectors.shape[1])

    def step(self, grouped: Grouped, gradient: Tensor) -> None:
        """The next step of all rows, by the gradient of the vectors that were found last."""
        self.reach.step(grouped, (with_told(gradient, self.world) if self.rows.effects else gradient).flatten(0, 1))

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
