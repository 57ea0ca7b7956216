"""Refuses the step that would spread a NaN into the weights."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.domain.errors import PerennialError


class NonFiniteLoss(PerennialError):
    """The loss or a gradient became NaN or infinite; the weights are those before the step."""


def all_finite(gradients: Mapping[str, Tensor]) -> Tensor:
    """Return whether every number of the gradients is finite, bool `[]`."""
    return torch.isfinite(nn.utils.get_total_norm(gradients.values()))


def non_finite_error(
    loss: Tensor, gradients: Mapping[str, Tensor], step: int, times: NDArray[np.int64]
) -> NonFiniteLoss:
    """Return the error to raise; it names the step, the span of its rows (`times`, epoch s) and the largest gradient."""
    peaks = {name: float(g.abs().nan_to_num(torch.inf).max()) for name, g in gradients.items() if g.numel()}
    largest = max(peaks, key=lambda name: peaks[name])
    first, last = (str(np.datetime64(int(t), "s").astype("datetime64[D]")) for t in (times.min(), times.max()))
    return NonFiniteLoss(
        f"step {step + 1}: the loss is {loss.item():.4g} on rows from {first} to {last}, the largest gradient "
        f"{peaks[largest]:.4g} in {largest}; stopped before the step: lower training.learning_rate"
    )
