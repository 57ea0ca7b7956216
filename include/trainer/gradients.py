"""The gradients of one batch: forward and back in parts that fit the memory, scaled where fp16 needs it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from include.trainer.batches import Batch
from include.trainer.guard import finite, refusal
from include.trainer.job import Job
from include.trainer.memory import MicroBatch, is_out_of_memory
from include.trainer.order import seed
from include.trainer.parallel import accumulating, local
from include.trainer.precision import LossScale, precision
from include.trainer.world import World


@dataclass(frozen=True)
class Gradients:
    """Fills the tower's gradients. Each of several processes does so for its share; the mean of all is the batch's."""

    tower: nn.Module
    job: Job
    world: World
    scale: LossScale
    micro: MicroBatch

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
                self.tower.zero_grad()
                self.micro.halve(len(batch.labels), batch.step)
                continue
            found = self._found(gradient)
            loss, lost = self.world.sum(torch.stack([loss / self.world.size, (~finite(found)).float()]))
            if not lost:
                self.scale.after_step()
                return loss, gradient
            if not self.scale.lower():
                raise refusal(loss, found, batch.step, batch.times)
            self.tower.zero_grad()

    def _attempt(self, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed(self.job.seed, batch.step, self.world.rank))  # dropout; a resumed run draws the same
        parts = self.micro.parts(-(-batch.size // self.world.size))
        weights = batch.weights.tensor_split(parts) if batch.weights is not None else (None,) * parts
        cut = zip(*(t.tensor_split(parts) for t in (vectors, batch.numbers, batch.labels)), weights, strict=True)
        total, gradients = torch.zeros((), device=vectors.device), []
        for part, (own, numbers, labels, weight) in enumerate(cut, 1):
            leaf = own.detach().requires_grad_()
            with accumulating(self.tower, last=part == parts):
                loss = self._loss(leaf, numbers, labels, weight) * (self.world.size / batch.size)
                (loss * self.scale.value).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            gradients.append(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf))
        return total, self._unscaled(torch.cat(gradients) if parts > 1 else gradients[0])

    def _loss(self, vectors: Tensor, numbers: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Binary cross-entropy, summed over the rows."""
        smoothing = self.job.training.label_smoothing
        with precision(self.job.training, self.world.device):
            logits = self.tower(vectors, numbers)
        targets = labels * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits.float(), targets, weights, reduction="sum")

    def _unscaled(self, gradient: Tensor) -> Tensor:
        if not self.scale.on:
            return gradient
        for tensor in self._found(gradient).values():
            tensor.div_(self.scale.value)
        return gradient

    def _found(self, gradient: Tensor) -> Mapping[str, Tensor]:
        """By the weights' names; that of the vectors stands for the table."""
        own = {name: local(p.grad) for name, p in self.tower.named_parameters() if p.grad is not None}
        return {**own, "table.rows.weight": gradient}
