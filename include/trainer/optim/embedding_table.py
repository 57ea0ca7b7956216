"""The embedding table as the loop sees it, whole in each process or sharded over all by row: vectors out, gradients in."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from include.trainer.data.batches import TrainingBatch
from include.trainer.distributed.checkpoint import StateTensor, StoredTensor
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.row_threads import RowThreads
from include.trainer.distributed.sharding import shards_table
from include.trainer.job import Job
from include.trainer.model.network import field_offsets
from include.trainer.optim.lazy_adamw import CHUNK_ROWS, LazyAdamW, RowState, UniqueRows
from include.trainer.optim.linear_term import LinearTermPrior, append_information
from include.trainer.optim.schedule import StepSchedule

#: Rows that are worth another thread's while.
MIN_ROWS_PER_THREAD = 16_384


class RowAccess(Protocol):
    """Reads rows wherever they lie, and moves those that were read last; row ids are the whole table's."""

    def read(self, row_ids: Tensor, *, averaged: bool = False) -> Tensor:
        """Return the weights `[n, width]` of these rows, or their moving averages."""

    def step(self, unique: UniqueRows, gradients: Tensor) -> None:
        """Take the next step by the gradients `[n · C, width]` of a batch."""


class LocalRows:
    """The rows that this process holds, by ids of its own; its threads share them out."""

    def __init__(self, rows: LazyAdamW, threads: RowThreads) -> None:
        self.rows, self.threads = rows, threads
        self.read_last: list[RowState] = []

    def read(self, row_ids: Tensor, *, averaged: bool = False) -> Tensor:
        spans = self.threads.spans(len(row_ids), MIN_ROWS_PER_THREAD)
        self.read_last = self.threads.map(lambda span: self.rows.read(row_ids[span]), spans)
        return torch.cat([state.ema if averaged else state.weight for state in self.read_last])

    def step(self, unique: UniqueRows, gradients: Tensor) -> None:
        def update(state: RowState, span: slice) -> None:
            self.rows.update(state, unique.sum_by_row(gradients, span))

        spans = self.threads.spans(len(unique.row_ids), MIN_ROWS_PER_THREAD)
        self.threads.map(update, self.read_last, spans)
        self.rows.finish_step()


class ReplicatedRows:
    """All rows in every process, which take the same step, by the mean of all gradients."""

    def __init__(self, local: LocalRows, group: ProcessGroup) -> None:
        self.local, self.group = local, group

    def read(self, row_ids: Tensor, *, averaged: bool = False) -> Tensor:
        return self.local.read(row_ids, averaged=averaged)

    def step(self, unique: UniqueRows, gradients: Tensor) -> None:
        all_unique = UniqueRows.of(torch.cat(self.group.all_gather(unique.row_ids)))
        sums = torch.cat(self.group.all_gather(unique.sum_by_row(gradients)))
        self.local.read(all_unique.row_ids)
        self.local.step(all_unique, sums / self.group.size)


class ShardedRows:
    """Row r in process r mod size alone: ids go there, vectors come back, gradients go there again."""

    def __init__(self, local: LocalRows, group: ProcessGroup) -> None:
        self.local, self.group = local, group

    def read(self, row_ids: Tensor, *, averaged: bool = False) -> Tensor:
        order, sent, received = self._route(row_ids)
        requested = self.group.all_to_all(row_ids[order], sent, received)
        answers = self.local.read(requested // self.group.size, averaged=averaged)
        vectors = answers.new_empty(len(row_ids), answers.shape[1])
        vectors[order] = self.group.all_to_all(answers, received, sent)
        return vectors

    def step(self, unique: UniqueRows, gradients: Tensor) -> None:
        order, sent, received = self._route(unique.row_ids)
        own = UniqueRows.of(self.group.all_to_all(unique.row_ids[order], sent, received) // self.group.size)
        sums = self.group.all_to_all(unique.sum_by_row(gradients)[order], sent, received)
        self.local.read(own.row_ids)
        self.local.step(own, sums / self.group.size)

    def _route(self, row_ids: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """Return the order of the rows by their owners, how many go to each process and how many come from each."""
        owners, one_each = row_ids % self.group.size, [1] * self.group.size
        sent = torch.bincount(owners, minlength=self.group.size)
        received = self.group.all_to_all(sent, one_each, one_each)
        return torch.argsort(owners, stable=True), sent.tolist(), received.tolist()


class EmbeddingTable:
    """The table of all categorical fields, each field's rows at its offset; all processes must call together."""

    def __init__(
        self, sizes: list[int], width: int, schedule: StepSchedule, job: Job, group: ProcessGroup, threads: RowThreads
    ) -> None:
        self.group, self.threads, self.offsets = group, threads, field_offsets(sizes).to(group.device)
        sharded = shards_table(job.training, group)
        first, stride = (group.rank, group.size) if sharded else (0, 1)
        prior = LinearTermPrior.of(job, len(sizes))
        self.rows = LazyAdamW(max(sum(sizes), 1), width, schedule, job.seed, group.device, first, stride, prior)
        local = LocalRows(self.rows, threads)
        self.access: RowAccess = local
        if group.size > 1:
            self.access = ShardedRows(local, group) if sharded else ReplicatedRows(local, group)

    def with_unique_rows(self, batches: Iterable[TrainingBatch]) -> Iterator[tuple[TrainingBatch, UniqueRows]]:
        """Yield each batch with the rows of its ids."""
        for batch in batches:
            yield batch, self.unique_rows(batch.rows.ids)

    def unique_rows(self, ids: Tensor) -> UniqueRows:
        """Return the rows of ids `[n, C]`."""
        return UniqueRows.of(ids + self.offsets)

    def lookup(self, unique: UniqueRows, *, averaged: bool = False) -> Tensor:
        """Return the vectors `[n, C, width]` of a batch's ids, or their moving averages."""
        rows, index = self.access.read(unique.row_ids, averaged=averaged), unique.inverse.flatten()
        vectors = rows.new_empty(len(index), rows.shape[1])

        def select(span: slice) -> None:
            torch.index_select(rows, 0, index[span], out=vectors[span])

        self.threads.map(select, self.threads.spans(len(index), MIN_ROWS_PER_THREAD))
        return vectors.view(*unique.inverse.shape, rows.shape[1])

    def step(self, unique: UniqueRows, gradient: Tensor) -> None:
        """Take the next step of all rows, by the gradient `[n, C, width]` of the vectors that were looked up last."""
        if self.rows.linear_term:
            gradient = append_information(gradient, self.group)
        self.access.step(unique, gradient.flatten(0, 1))

    def averaged_weight(self) -> Tensor:
        """Return the moving average of all rows `[rows, width]`, which is the table that is published. No step may follow."""
        self.rows.apply_pending_updates()
        average = self.rows.ema
        self.rows.release_memory()
        return average if self.rows.stride == 1 else torch.cat([chunk.cpu() for chunk in self._chunks(average)])

    def state(self) -> Iterator[StateTensor]:
        """Yield all that a step changes, for a checkpoint."""
        for name, tensor in self.rows.state():
            yield self._state_tensor(name, tensor)

    def _state_tensor(self, name: str, tensor: Tensor) -> StateTensor:
        def load(stored: StoredTensor) -> None:
            rows = self.rows
            for start in range(0, len(tensor), CHUNK_ROWS):
                chunk = stored[start * rows.stride : (start + CHUNK_ROWS) * rows.stride]
                own = chunk[rows.first :: rows.stride]
                tensor[start : start + len(own)] = own.to(tensor.device)

        shape = (self.rows.rows, *tensor.shape[1:])
        return StateTensor(f"{name}.table", shape, tensor.dtype, lambda: self._chunks(tensor), load)

    def _chunks(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield the whole table's rows from the processes' shares, in order."""
        stride, rows = self.rows.stride, self.rows.rows
        for start in range(0, -(-rows // stride), CHUNK_ROWS):
            own = tensor[start : start + CHUNK_ROWS]
            if stride == 1:
                yield own
                continue
            shares = self.group.all_gather(own)
            chunk = own.new_empty(sum(map(len, shares)), *own.shape[1:])
            for rank, share in enumerate(shares):
                chunk[rank::stride] = share
            yield chunk
