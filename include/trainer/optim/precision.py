"""Which arithmetic the matrix products use while training."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from include.trainer.distributed.process_group import World
from include.trainer.files import write_atomically
from include.trainer.job import Job, Training

NOTE = "precision"
#: Smaller batches spend more time on converting to bf16 than they gain by multiplying it (measured with AVX512-BF16).
WORTH_IT = 2048
#: How much faster than fp32's a product in bf16 must be, for there is converting to do beside it. Instructions alone do not
#: tell: where a processor has them but no matrix unit, it was half as fast.
FASTER = 1.5
SIZE, TRIES = 512, 5  #: of the products that are measured


def product_seconds(kind: torch.dtype) -> float:
    """Of a square matrix product on the processor, the best of a few."""
    a, b = torch.ones(2, SIZE, SIZE, dtype=kind)
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return best


def settled(job: Job, world: World, seconds: Callable[[torch.dtype], float] = product_seconds) -> Job:
    """The job with `auto` replaced by bf16, where this machine multiplies it faster and the batch is large enough, or fp32.

    All processes get the same, and a restart what the first start got; all must ask together.
    """
    plan, note = job.training, job.checkpoints / NOTE
    if plan.precision != "auto":
        return job
    if plan.batch_size < WORTH_IT:
        fast = False
    elif note.is_file():
        fast = note.read_text() == "bf16"
    elif world.device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = seconds(torch.bfloat16) * FASTER < seconds(torch.float32)
    (slow,) = world.any(not fast)
    chosen = "fp32" if slow else "bf16"
    if world.first:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, chosen.encode())
    return replace(job, training=replace(plan, precision=chosen))


def precision(plan: Training, device: torch.device) -> torch.autocast:
    """Of a settled plan."""
    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
    return torch.autocast(device.type, kinds.get(plan.precision), enabled=plan.precision in kinds)


class LossScale:
    """What the loss is multiplied by so that fp16's small gradients do not vanish (Micikevicius et al. 2018, section 3.2).

    Halved when a gradient overflows, doubled after `PATIENCE` steps without; 1 for all other precisions. It is written out
    because torch's GradScaler skips the batch that overflows, and here each batch counts: it is tried again.
    """

    PATIENCE = 2000

    def __init__(self, plan: Training) -> None:
        self.on = plan.precision == "fp16"
        #: The scale, and steps since it changed: what a checkpoint keeps.
        self.state = torch.tensor([65536.0 if self.on else 1.0, 0.0])

    @property
    def value(self) -> float:
        return float(self.state[0])

    def lower(self) -> bool:
        """Halve it; False where there is nothing left to halve."""
        if not self.on or self.value <= 1:
            return False
        self.state.copy_(torch.tensor([self.value / 2, 0.0]))
        return True

    def after_step(self) -> None:
        if self.on:
            self.state[1] += 1
            if self.state[1] >= self.PATIENCE:
                self.state.copy_(torch.tensor([self.value * 2, 0.0]))
