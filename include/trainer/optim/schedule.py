"""How large a step is: the numbers of AdamW and of the weights' moving average that depend on the step alone."""

import math
from dataclasses import dataclass

from include.trainer.job import Job
from include.trainer.model.network import network_type

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True)
class StepCoefficients:
    """The numbers of one step of AdamW.

    The step does:

        p ← decay_factor · p - step_size · exp_avg / (√exp_avg_sq / bias_correction + ε)
        ema ← ema_decay · ema + (1 - ema_decay) · p

    `decay_factor` is what the weight decay leaves of an embedding; the dense weights do not decay. Step size and bias
    correction come from `lr` and `step`, which is counted from 1.
    """

    lr: float
    step: float
    step_size: float
    bias_correction: float
    decay_factor: float
    ema_decay: float


@dataclass(frozen=True)
class StepSchedule:
    """AdamW's learning rate over `total_steps`: a linear rise in the share `warm_up` of them, then half a cosine down to 0."""

    lr: float
    weight_decay: float
    ema_decay: float
    warm_up: float
    total_steps: int

    @classmethod
    def of(cls, job: Job, total_steps: int) -> "StepSchedule":
        """Return the schedule of a job's training."""
        settings, network = job.training, network_type(job.family)
        lr, weight_decay = settings.learning_rate, settings.embedding_decay
        return cls(
            lr=lr * network.lr_factor,
            weight_decay=weight_decay * network.weight_decay_factor,
            ema_decay=settings.ema,
            warm_up=settings.warm_up,
            total_steps=total_steps,
        )

    def lr_at(self, step: int) -> float:
        """Return the rate of step number `step`, counted from 0.

        Loshchilov & Hutter 2017 (SGDR) after the warm-up of Goyal et al. 2017, which large batches need.
        """
        warm_up = min(1.0, (step + 1) / max(1.0, self.warm_up * self.total_steps))
        return self.lr * warm_up * 0.5 * (1 + math.cos(math.pi * step / self.total_steps))

    def coefficients(self, step: int) -> StepCoefficients:
        """Return the numbers of step number `step`, counted from 0 (Loshchilov & Hutter 2019, algorithm 2)."""
        lr = self.lr_at(step)
        return StepCoefficients(
            lr=lr,
            step=step + 1.0,
            step_size=lr / (1 - BETAS[0] ** (step + 1)),
            bias_correction=math.sqrt(1 - BETAS[1] ** (step + 1)),
            decay_factor=max(0.0, 1 - lr * self.weight_decay),
            ema_decay=min(self.ema_decay, (1 + step) / (10 + step)),  # so that short runs forget where they began
        )
