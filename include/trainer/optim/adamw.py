"""How the tower's weights move: AdamW, and the moving average of the weights, which is the model that is published.

The kernel is that of torch.optim's fused AdamW, without its classes: their first step imports torch's compiler and takes as
long as a small training.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from include.trainer.distributed.checkpoint import StateTensor, state_tensor
from include.trainer.distributed.sharding import full_tensor, local_tensor
from include.trainer.optim.schedule import BETAS, EPS, StepCoefficients


class DenseAdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) without decay, and an exponential moving average of the weights.

    Decay is for the embedding table alone (`lazy_adamw.py`): a category that the next season brings anew has an embedding
    near zero, and strong decay teaches the tower to live with that. All dictionaries are keyed by the weights' names.
    """

    def __init__(self, tower: nn.Module) -> None:
        self.parameters = dict(tower.named_parameters())
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, coefficients: StepCoefficients) -> None:
        """Move the weights that have a gradient, and drop the gradients."""
        grads = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        weights, exp_avg, exp_avg_sq, ema = (
            [local_tensor(tensors[name]) for name in grads]
            for tensors in (self.parameters, self.exp_avg, self.exp_avg_sq, self.ema)
        )
        torch._fused_adamw_(
            weights,
            [local_tensor(grad) for grad in grads.values()],
            exp_avg,
            exp_avg_sq,
            max_exp_avg_sqs=[],
            state_steps=[torch.tensor(coefficients.step, device=weight.device) for weight in weights],
            lr=coefficients.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )
        torch._foreach_lerp_(ema, weights, 1 - coefficients.ema_decay)
        for name in grads:
            self.parameters[name].grad = None

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the average in the weights' place for as long as the context lasts."""
        self._swap()
        yield
        self._swap()

    def averaged_state(self) -> dict[str, Tensor]:
        """Return the average of all weights, whole, on the CPU; all processes must call together."""
        return {name: full_tensor(tensor).cpu() for name, tensor in self.ema.items()}

    def state(self) -> Iterator[StateTensor]:
        """Yield all that a step changes, for a checkpoint."""
        for name, parameter in self.parameters.items():
            yield state_tensor(f"weight.{name}", parameter.detach())
            yield state_tensor(f"first.{name}", self.exp_avg[name])
            yield state_tensor(f"second.{name}", self.exp_avg_sq[name])
            yield state_tensor(f"mean.{name}", self.ema[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            weight, average = local_tensor(parameter), local_tensor(self.ema[name])
            copied = weight.clone()
            weight.copy_(average)
            average.copy_(copied)
