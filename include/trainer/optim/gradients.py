"""The gradients of one batch: forward and backward in parts that fit the memory, scaled where fp16 needs it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from include.trainer.data.batches import TrainingBatch
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.row_threads import RowThreads
from include.trainer.distributed.sharding import accumulating_gradients, local_tensor
from include.trainer.job import Job, derive_seed
from include.trainer.model.network import network_type
from include.trainer.optim.finite_check import all_finite, non_finite_error
from include.trainer.optim.memory import MicroBatch, is_out_of_memory
from include.trainer.optim.precision import LossScale, autocast


@dataclass(frozen=True)
class ForwardBackward:
    """Fills the tower's gradients. Each of several processes does so for its share; the mean of all is the batch's."""

    tower: nn.Module
    threads: RowThreads
    job: Job
    group: ProcessGroup
    scale: LossScale
    micro_batch: MicroBatch

    @cached_property
    def replicas(self) -> list[nn.Module]:
        """The tower for each thread, the tower itself first."""
        return self.threads.replicas(self.tower)

    def run(self, batch: TrainingBatch, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's loss `[]` and the gradient of the vectors `[rows, C, width]`.

        Where memory runs out, or fp16 overflows, the batch is tried again, in smaller parts or scaled less. Raises
        NonFiniteLoss, in all processes alike, where nothing helps.
        """
        while True:
            try:
                loss, gradient = self._attempt(batch, vectors)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._zero_grad()
                self.micro_batch.halve(len(batch.rows.labels), batch.step)
                continue
            gradients = self._gradients(gradient)
            overflow = (~all_finite(gradients)).float()
            loss, overflows = self.group.all_reduce_sum(torch.stack([loss / self.group.size, overflow]))
            if not overflows:
                self.scale.after_step()
                return loss, gradient
            if not self.scale.halve():
                raise non_finite_error(loss, gradients, batch.step, batch.times)
            self._zero_grad()

    def _attempt(self, batch: TrainingBatch, vectors: Tensor) -> tuple[Tensor, Tensor]:
        parts, gradient = self.micro_batch.parts(-(-batch.size // self.group.size)), torch.empty_like(vectors)
        total, threads = torch.zeros((), device=vectors.device), self.threads.size
        rows = batch.rows
        for part, tensors in enumerate(_cut(parts, gradient, vectors, rows.numbers, rows.labels, rows.weights)):
            shares = zip(*_cut(threads, *tensors), strict=True)
            share_numbers = range(part * threads, (part + 1) * threads)
            with accumulating_gradients(self.tower, last=part + 1 == parts):
                total += sum(self.threads.map(partial(self._backward, batch), self.replicas, share_numbers, *shares))
        self._sum_over_threads()
        return total, self._unscale(gradient)

    def _backward(
        self,
        batch: TrainingBatch,
        tower: nn.Module,
        share_number: int,
        gradient: Tensor,
        vectors: Tensor,
        numbers: Tensor,
        labels: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        """Return what a share of the batch's rows adds to its loss; fill in the gradient of their vectors."""
        leaf = vectors.detach().requires_grad_()
        dropout_bytes = self._draw_dropout_bytes(batch, share_number, len(vectors))
        with autocast(self.job.training, self.group.device):
            logits = tower(leaf, numbers, dropout_bytes)
        loss = self._loss(logits, labels, weights) * (self.group.size / batch.size)
        (loss * self.scale.value).backward()  # type: ignore[no-untyped-call]
        gradient.copy_(leaf.grad) if leaf.grad is not None else gradient.zero_()
        return loss.detach()

    def _draw_dropout_bytes(self, batch: TrainingBatch, share_number: int, rows: int) -> Tensor | None:
        """Return random bytes `[rows, hidden units]`, None without dropout; a resumed run draws the same."""
        units, device = sum(self.job.model.hidden), self.group.device
        if not self.job.model.dropout or not network_type(self.job.family).has_layers:
            return None
        seed = derive_seed(self.job.seed, batch.step, self.group.rank, share_number)
        words = torch.empty(-(-rows * units // 8), dtype=torch.int64, device=device)
        # Whole words, for a number drawn for each unit would take longer than its layer.
        words.random_(torch.iinfo(torch.int64).min, None, generator=torch.Generator(device).manual_seed(seed))
        return words.view(torch.uint8)[: rows * units].view(rows, units)

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the binary cross-entropy of smoothed labels, summed over the rows."""
        smoothing = self.job.training.label_smoothing
        targets = labels * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), targets, weights, reduction="sum")

    def _unscale(self, gradient: Tensor) -> Tensor:
        if not self.scale.enabled:
            return gradient
        for tensor in self._gradients(gradient).values():
            tensor.div_(self.scale.value)
        return gradient

    def _sum_over_threads(self) -> None:
        """Add the gradients of all replicas to the tower's."""
        for replica in self.replicas[1:]:
            for own, other in zip(self.tower.parameters(), replica.parameters(), strict=True):
                if own.grad is not None and other.grad is not None:
                    own.grad.add_(other.grad)
            replica.zero_grad()

    def _zero_grad(self) -> None:
        for tower in self.replicas:
            tower.zero_grad()

    def _gradients(self, gradient: Tensor) -> Mapping[str, Tensor]:
        """Return all gradients by the weights' names; that of the vectors stands for the table's."""
        own = {name: local_tensor(p.grad) for name, p in self.tower.named_parameters() if p.grad is not None}
        return {**own, "table.rows.weight": gradient}


def _cut(parts: int, *tensors: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """Yield, for each of so many parts of the rows, that part of every tensor."""
    return zip(*((None,) * parts if t is None else t.tensor_split(parts) for t in tensors), strict=True)
