"""How the tower's weights move: AdamW, and the running mean of the weights, which is the model that is kept.

The kernel is that of torch.optim's fused AdamW, without its classes: their first step imports torch's compiler and takes as
long as a small training.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from include.trainer.distributed.checkpoint import Part, of_tensor
from include.trainer.distributed.sharding import local, whole
from include.trainer.optim.schedule import BETAS, EPSILON, Pace


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) without decay, and an exponential moving average of the weights.

    Decay is for the embedding table alone (`lazy_adamw.py`): a category that the next season brings anew has an embedding near
    zero, and strong decay teaches the tower to live with that.
    """

    def __init__(self, tower: nn.Module) -> None:
        self.parameters = dict(tower.named_parameters())
        self.first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.means = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, pace: Pace) -> None:
        """One step by the gradients that are there; they are dropped."""
        given = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        moved, gradients = list(given), [local(gradient) for gradient in given.values()]
        weights, first, second, means = (
            [local(group[name]) for name in moved] for group in (self.parameters, self.first, self.second, self.means)
        )
        steps = [torch.tensor(pace.step, device=w.device) for w in weights]
        torch._fused_adamw_(
            weights, gradients, first, second, [], steps, lr=pace.rate, beta1=BETAS[0], beta2=BETAS[1],
            eps=EPSILON, weight_decay=0.0, amsgrad=False, maximize=False,
        )  # fmt: skip
        torch._foreach_lerp_(means, weights, 1 - pace.kept)
        for name in moved:
            self.parameters[name].grad = None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Weights and their means trade places for as long as one measures."""
        self._swap()
        yield
        self._swap()

    def kept(self) -> dict[str, Tensor]:
        """The means of all weights, whole, on the CPU; all processes must ask together."""
        return {name: whole(mean).cpu() for name, mean in self.means.items()}

    def parts(self) -> Iterator[Part]:
        """All that a step changes, for a checkpoint."""
        for name, parameter in self.parameters.items():
            yield of_tensor(f"weight.{name}", parameter.detach())
            yield of_tensor(f"first.{name}", self.first[name])
            yield of_tensor(f"second.{name}", self.second[name])
            yield of_tensor(f"mean.{name}", self.means[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            weight, mean = local(parameter), local(self.means[name])
            held = weight.clone()
            weight.copy_(mean)
            mean.copy_(held)
