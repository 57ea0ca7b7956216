"""The linear term: a weight a category, its own effect, added to the logit as it is; each is its posterior mean after one pass.

Take a category with the prior N(0, s²) and n rows so far, each of which holds the information I about its logit. Then its
effect is known with the precision Λ = 1/s² + n I, and another row moves it by its residual over Λ: Laplace's approximation
of the logistic posterior, row by row (Spiegelhalter & Lauritzen 1990; Graepel et al. 2010 do so for the probit). A rare
category stays near the prior's 0 and a frequent one becomes the mean of its rows, with no rate to choose. I is the mean
squared residual, which estimates p (1 - p).

All fields move at once by the same residuals, so the batch's own rows count once for each field: what all effects do
together then never overshoots, which a batch's largest categories would otherwise.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job
from include.trainer.model.network import network_type


class LinearTermPrior(NamedTuple):
    """The prior of all effects, in the unit of gradients: of a batch's mean loss."""

    precision: float
    fields: int  #: whose effects move together

    @classmethod
    def of(cls, job: Job, fields: int) -> "LinearTermPrior | None":
        """Return the job's prior, or None without a linear term. A row that is read in every epoch is still one row."""
        spread, settings = job.model.first_order, job.training
        if not spread or not network_type(job.family).has_layers:
            return None
        return cls(settings.epochs / (settings.batch_size * spread**2), fields)


class LinearTerm:
    """The information that the rows of a table have gathered about their effects, `[rows, 1]`."""

    def __init__(self, rows: int, prior: LinearTermPrior, device: torch.device) -> None:
        self.prior, self.information = prior, torch.zeros(rows, 1, device=device)

    def update(self, row_ids: Tensor, effects: Tensor, gradients: Tensor, information: Tensor) -> Tensor:
        """Return the effects `[n]` of these rows after a batch with their gradients `[n]` and information `[n]`."""
        total = self.information.index_select(0, row_ids).squeeze(1) + information
        self.information.index_copy_(0, row_ids, total.unsqueeze(1))
        return effects - gradients / (self.prior.precision + total + self.prior.fields * information)


def append_information(gradient: Tensor, group: ProcessGroup) -> Tensor:
    """Append to the gradients of a batch's vectors `[n, C, width]`, the last an effect's, what each row tells of the effect.

    Returns `[n, C, width + 1]`. All processes must call together.
    """
    information = group.all_reduce_sum(gradient[:, :1, -1].square().sum()) / group.size
    return torch.cat([gradient, information.expand(*gradient.shape[:2], 1)], dim=2)
