"""How large a step is: the numbers of AdamW and of the running mean that depend on the step alone."""

import math
from dataclasses import dataclass

from include.trainer.job import Job

BETAS = (0.9, 0.999)
EPSILON = 1e-8
#: A wide model has no deep gradient to keep calm and its weights are its whole answer: it takes longer steps and bears
#: less decay than embeddings, whose scale the layers above make good.
WIDE_RATE, WIDE_DECAY = 10.0, 0.01


@dataclass(frozen=True)
class Pace:
    """Of one step: `p ← keep · p - size · m / (√v / correction + ε)`, then `mean ← kept · mean + (1 - kept) · p`.

    `keep` is what the decay leaves of an embedding; the dense weights do not decay. `rate` and `step`, counted from 1, are what
    size and correction come from.
    """

    rate: float
    step: float
    size: float
    correction: float
    keep: float
    kept: float


@dataclass(frozen=True)
class Schedule:
    """AdamW's rate over `total` steps: a linear rise in the first share `warm_up`, then half a cosine down to 0."""

    rate: float
    decay: float
    ema: float
    warm_up: float
    total: int

    @classmethod
    def of(cls, job: Job, total: int) -> "Schedule":
        plan, wide = job.training, job.family == "logistic"
        rate, decay = (
            plan.learning_rate * (WIDE_RATE if wide else 1),
            plan.embedding_decay * (WIDE_DECAY if wide else 1),
        )
        return cls(rate, decay, plan.ema, plan.warm_up, total)

    def rate_at(self, step: int) -> float:
        """Loshchilov & Hutter 2017 (SGDR) after the warm-up of Goyal et al. 2017, which large batches need."""
        warm = min(1.0, (step + 1) / max(1.0, self.warm_up * self.total))
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))

    def pace(self, step: int) -> Pace:
        """Of step number `step`, counted from 0 (Loshchilov & Hutter 2019, algorithm 2)."""
        rate = self.rate_at(step)
        return Pace(
            rate=rate,
            step=step + 1.0,
            size=rate / (1 - BETAS[0] ** (step + 1)),
            correction=math.sqrt(1 - BETAS[1] ** (step + 1)),
            keep=max(0.0, 1 - rate * self.decay),
            kept=min(self.ema, (1 + step) / (10 + step)),  # so that short runs forget where they began
        )
