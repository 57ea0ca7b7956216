"""How weights move: AdamW with strong decay on embeddings, its rate over the run, and the running mean of the weights.

Written out rather than taken from torch.optim, whose first step imports torch's compiler and takes as long as a small
training; here each line of the algorithm has its own.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from include.trainer.job import Training
from include.trainer.model import Logistic

BETAS = (0.9, 0.999)
EPSILON = 1e-8
#: A wide model has no deep gradient to keep calm and its weights are its whole answer: it takes longer steps and bears
#: less decay than embeddings, whose scale the layers above make good.
WIDE_RATE, WIDE_DECAY = 10.0, 0.01
#: Share of the steps in which the rate rises from 0.
WARM_UP = 0.02


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2), decoupled decay on the embedding table alone, cosine rate, and an
    exponential moving average of the weights, which is the model that is kept.

    A category that the next season brings anew has an embedding near zero; strong decay teaches the rest of the model to
    live with that.
    """

    def __init__(self, model: nn.Module, plan: Training, total: int) -> None:
        self.parameters = dict(model.named_parameters())
        wide = isinstance(model, Logistic)
        self.rate = plan.learning_rate * (WIDE_RATE if wide else 1.0)
        decay = plan.embedding_decay * (WIDE_DECAY if wide else 1.0)
        self.decay = {name: decay if name.startswith("table.") else 0.0 for name in self.parameters}
        self.ema, self.total = plan.ema, total
        self.first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.means = {name: p.detach().clone() for name, p in self.parameters.items()}

    def rate_at(self, step: int) -> float:
        """A short linear warm-up, then half a cosine down to 0 (Loshchilov & Hutter 2017)."""
        warm = min(1.0, (step + 1) / max(1.0, WARM_UP * self.total))
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Step number `step`, counted from 0, by the gradients that are there; they are dropped."""
        rate = self.rate_at(step)
        beta1, beta2 = BETAS
        size = rate / (1 - beta1 ** (step + 1))
        correction = math.sqrt(1 - beta2 ** (step + 1))
        kept = min(self.ema, (1 + step) / (10 + step))  # so that short runs forget where they began
        for name, parameter in self.parameters.items():
            gradient, first, second = parameter.grad, self.first[name], self.second[name]
            if gradient is None:
                continue
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            if self.decay[name]:
                parameter.mul_(max(0.0, 1 - rate * self.decay[name]))
            parameter.addcdiv_(first, second.sqrt().div_(correction).add_(EPSILON), value=-size)
            self.means[name].lerp_(parameter, 1 - kept)
            parameter.grad = None

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and means: once before measuring, once after."""
        for name, parameter in self.parameters.items():
            held = parameter.clone()
            parameter.copy_(self.means[name])
            self.means[name].copy_(held)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that a step changes, by name: weights, moments and means."""
        for name, parameter in self.parameters.items():
            yield f"weight.{name}", parameter.detach()
            yield f"first.{name}", self.first[name]
            yield f"second.{name}", self.second[name]
            yield f"mean.{name}", self.means[name]
