"""How weights move: AdamW with strong decay on embeddings, and the running mean of the weights that is the result."""

from collections.abc import Iterable

import torch
from torch import nn

from include.trainer.job import Training
from include.trainer.model import Logistic


#: A wide model has no deep gradient to keep calm; at a deep model's rate three epochs would leave it half trained.
WIDE_RATE = 10.0


def build(model: nn.Module, plan: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019): decoupled decay on the embedding table alone.

    A category that the next season brings anew has an embedding near zero; strong decay teaches the rest of the model
    to live with that.
    """
    tables = [p for name, p in model.named_parameters() if name.startswith("table.")]
    others = [p for name, p in model.named_parameters() if not name.startswith("table.")]
    groups = [{"params": tables, "weight_decay": plan.embedding_decay}, {"params": others, "weight_decay": 0.0}]
    rate = plan.learning_rate * (WIDE_RATE if isinstance(model, Logistic) else 1)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


class Average:
    """Exponential moving average of the weights; short runs forget their start faster than `decay` alone would let them."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.means = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`, counted from 0."""
        kept = min(self.decay, (1 + step) / (10 + step))
        for mean, parameter in zip(self.means, self.parameters, strict=True):
            mean.lerp_(parameter, 1 - kept)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and means: once before measuring, once after."""
        for mean, parameter in zip(self.means, self.parameters, strict=True):
            held = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(held)
