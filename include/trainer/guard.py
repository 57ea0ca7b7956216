"""Refuses the step that would spread a NaN into the weights."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.domain.errors import PerennialError


class NonFiniteLoss(PerennialError):
    """The loss or a gradient became NaN or infinite; the weights are those before the step."""


def refuse_non_finite(loss: Tensor, net: nn.Module, step: int, times: NDArray[np.int64]) -> None:
    """Raises NonFiniteLoss naming the step, the span of its rows (`times`, epoch s) and the largest gradient.

    Gradients are the mean over all processes by now, so that every process refuses or none does.
    """
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    if torch.isfinite(nn.utils.get_total_norm(gradients.values())):
        return
    peaks = {name: float(gradient.abs().nan_to_num(torch.inf).max()) for name, gradient in gradients.items()}
    largest = max(peaks, key=lambda name: peaks[name])
    first, last = (str(np.datetime64(int(t), "s").astype("datetime64[D]")) for t in (times.min(), times.max()))
    raise NonFiniteLoss(
        f"step {step + 1}: the loss is {loss.item():.4g} on rows from {first} to {last}, the largest gradient "
        f"{peaks[largest]:.4g} in {largest}; stopped before the step: lower training.learning_rate"
    )
