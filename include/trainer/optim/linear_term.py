"""The categories' own effects, weights that are added to the logit as they are: each its posterior mean, after one pass.

Of a category with the prior N(0, s²) and n rows so far, each of which tells I about its logit, the effect is known with the
precision Λ = 1/s² + n I, and another row moves it by its residual over Λ: Laplace's approximation of the logistic posterior,
row by row (Spiegelhalter & Lauritzen 1990; Graepel et al. 2010 do so for the probit). A rare category stays near
the prior's 0 and a frequent one becomes the mean of its rows, with no rate to choose. I is the mean squared residual, which
estimates p (1 - p).

All fields move at once by the same residuals, so the batch's own rows count once for each field: what all effects do
together then never overshoots, which a batch's largest categories would otherwise.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from include.trainer.distributed.process_group import World
from include.trainer.job import Job


class Prior(NamedTuple):
    """What is known of the effects before the first row; all is a share of a batch, as gradients are."""

    precision: float
    fields: int  #: whose effects move together

    @classmethod
    def of(cls, job: Job, fields: int) -> "Prior | None":
        """None where there are no effects. A row that is seen in every epoch is still one row."""
        spread, plan = job.model.first_order, job.training
        if not spread or job.family == "logistic":
            return None
        return cls(plan.epochs / (plan.batch_size * spread**2), fields)


class Effects:
    """What the rows of a table have told of their effects so far."""

    def __init__(self, rows: int, prior: Prior, device: torch.device) -> None:
        self.prior, self.told = prior, torch.zeros(rows, 1, device=device)

    def moved(self, rows: Tensor, effects: Tensor, gradients: Tensor, told: Tensor) -> Tensor:
        """Effects `[n]` after a batch in which rows `[n]` have these gradients and are told so much, `[n]` each."""
        known = self.told.index_select(0, rows).squeeze(1) + told
        self.told.index_copy_(0, rows, known.unsqueeze(1))
        return effects - gradients / (self.prior.precision + known + self.prior.fields * told)


def with_told(gradient: Tensor, world: World) -> Tensor:
    """The gradient of a batch's vectors `[n, C, width]`, its last an effect's, and behind it what each tells of the effect."""
    told = world.sum(gradient[:, :1, -1].square().sum()) / world.size
    return torch.cat([gradient, told.expand(*gradient.shape[:2], 1)], dim=2)
