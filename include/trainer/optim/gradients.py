"""The gradients of one batch: forward and back in parts that fit the memory, scaled where fp16 needs it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from include.trainer.data.batches import Batch
from include.trainer.distributed.process_group import World
from include.trainer.distributed.row_threads import Crew
from include.trainer.distributed.sharding import accumulating, local
from include.trainer.job import Job, derive_seed
from include.trainer.optim.finite_check import finite, refusal
from include.trainer.optim.memory import MicroBatch, is_out_of_memory
from include.trainer.optim.precision import LossScale, precision


@dataclass(frozen=True)
class Gradients:
    """Fills the tower's gradients. Each of several processes does so for its share; the mean of all is the batch's."""

    tower: nn.Module
    crew: Crew
    job: Job
    world: World
    scale: LossScale
    micro: MicroBatch

    @cached_property
    def towers(self) -> list[nn.Module]:
        return self.crew.towers(self.tower)

    def of(self, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's loss and the gradient of the vectors `[rows, C, width]`.

        Where memory runs out, or fp16 overflows, the batch is tried again, in smaller parts or scaled less. Raises
        NonFiniteLoss, in all processes alike, where nothing helps.
        """
        while True:
            try:
                loss, gradient = self._attempt(batch, vectors)
            except (RuntimeError, MemoryError) as fault:
                if not is_out_of_memory(fault):
                    raise
                self._drop()
                self.micro.halve(len(batch.labels), batch.step)
                continue
            found = self._found(gradient)
            loss, lost = self.world.sum(torch.stack([loss / self.world.size, (~finite(found)).float()]))
            if not lost:
                self.scale.after_step()
                return loss, gradient
            if not self.scale.lower():
                raise refusal(loss, found, batch.step, batch.times)
            self._drop()

    def _attempt(self, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
        parts, gradient = self.micro.parts(-(-batch.size // self.world.size)), torch.empty_like(vectors)
        total = torch.zeros((), device=vectors.device)
        for part, rows in enumerate(_cut(parts, gradient, vectors, batch.numbers, batch.labels, batch.weights)):
            shares = zip(*_cut(self.crew.size, *rows), strict=True)
            numbers = range(part * self.crew.size, (part + 1) * self.crew.size)
            with accumulating(self.tower, last=part + 1 == parts):
                total += sum(self.crew.map(partial(self._back, batch), self.towers, numbers, *shares))
        self._sum_up()
        return total, self._unscaled(gradient)

    def _back(
        self, batch: Batch, tower: nn.Module, number: int, gradient: Tensor, vectors: Tensor, *rows: Tensor
    ) -> Tensor:
        """What some rows, the batch's share of this number, add to its loss; the gradient of their vectors is filled in."""
        leaf = vectors.detach().requires_grad_()
        loss = self._loss(tower, leaf, self._drawn(batch, number, len(vectors)), *rows) * (self.world.size / batch.size)
        (loss * self.scale.value).backward()  # type: ignore[no-untyped-call]
        gradient.copy_(leaf.grad) if leaf.grad is not None else gradient.zero_()
        return loss.detach()

    def _drawn(self, batch: Batch, number: int, rows: int) -> Tensor | None:
        """Random bytes for dropout; a resumed run draws the same."""
        units, device = sum(self.job.model.hidden), self.world.device
        if not self.job.model.dropout or self.job.family == "logistic":
            return None
        source = torch.Generator(device).manual_seed(derive_seed(self.job.seed, batch.step, self.world.rank, number))
        words = torch.empty(-(-rows * units // 8), dtype=torch.int64, device=device)
        # Whole words, for a number drawn for each unit would take longer than its layer.
        words.random_(torch.iinfo(torch.int64).min, None, generator=source)
        return words.view(torch.uint8)[: rows * units].view(rows, units)

    def _loss(
        self, tower: nn.Module, vectors: Tensor, drawn: Tensor | None, numbers: Tensor, labels: Tensor,
        weights: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Binary cross-entropy, summed over the rows."""
        smoothing = self.job.training.label_smoothing
        with precision(self.job.training, self.world.device):
            logits = tower(vectors, numbers, drawn)
        targets = labels * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), targets, weights, reduction="sum")

    def _unscaled(self, gradient: Tensor) -> Tensor:
        if not self.scale.on:
            return gradient
        for tensor in self._found(gradient).values():
            tensor.div_(self.scale.value)
        return gradient

    def _sum_up(self) -> None:
        """The tower gets the gradients of all."""
        for twin in self.towers[1:]:
            for own, other in zip(self.tower.parameters(), twin.parameters(), strict=True):
                if own.grad is not None and other.grad is not None:
                    own.grad.add_(other.grad)
            twin.zero_grad()

    def _drop(self) -> None:
        for tower in self.towers:
            tower.zero_grad()

    def _found(self, gradient: Tensor) -> Mapping[str, Tensor]:
        """By the weights' names; that of the vectors stands for the table."""
        own = {name: local(p.grad) for name, p in self.tower.named_parameters() if p.grad is not None}
        return {**own, "table.rows.weight": gradient}


def _cut(parts: int, *tensors: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """So many parts of the rows of each."""
    return zip(*((None,) * parts if t is None else t.tensor_split(parts) for t in tensors), strict=True)
