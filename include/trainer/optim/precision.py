"""The arithmetic that matrix products use while training."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from include.artifacts.atomic_write import write_atomically
from include.domain.training.job_settings import TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job

FILE_NAME = "precision"
#: Smaller batches spend more time on converting to bf16 than they gain by multiplying it (measured with AVX512-BF16).
MIN_BATCH_SIZE = 2048
#: How much faster than fp32's a product in bf16 must be, for there is converting to do beside it. A processor's list of
#: instructions does not decide that: where it had them but no matrix unit, bf16 was half as fast.
MIN_SPEEDUP = 1.5
MATRIX_SIZE, TRIES = 512, 5  #: of the products that are measured


def matmul_seconds(dtype: torch.dtype) -> float:
    """Return how long a square matrix product takes on the processor, the best of a few."""
    a, b = torch.ones(2, MATRIX_SIZE, MATRIX_SIZE, dtype=dtype)
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return best


def resolve_precision(job: Job, group: ProcessGroup, seconds: Callable[[torch.dtype], float] = matmul_seconds) -> Job:
    """Return the job with `auto` replaced by bf16 or fp32.

    It is bf16 where this machine multiplies that much faster and the batch is large enough. All processes get the same,
    and a restart what the first start got; all must call together.
    """
    settings, file = job.training, job.checkpoints / FILE_NAME
    if settings.precision != "auto":
        return job
    if settings.batch_size < MIN_BATCH_SIZE:
        fast = False
    elif file.is_file():
        fast = file.read_text() == "bf16"
    elif group.device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = seconds(torch.bfloat16) * MIN_SPEEDUP < seconds(torch.float32)
    (any_slow,) = group.any(not fast)
    precision: Literal["fp32", "bf16"] = "fp32" if any_slow else "bf16"
    if group.is_main:
        write_atomically(file, precision)
    return replace(job, training=replace(settings, precision=precision))


def autocast(settings: TrainingSettings, device: torch.device) -> torch.autocast:
    """Return the context in which a tower computes in the settings' precision, which is not `auto` any more."""
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    return torch.autocast(device.type, dtypes.get(settings.precision), enabled=settings.precision in dtypes)


class LossScale:
    """The factor of the loss that keeps fp16's small gradients from vanishing (Micikevicius et al. 2018, section 3.2).

    Halved when a gradient overflows, doubled after `STEPS_BEFORE_DOUBLING` steps without; 1 for all other precisions. It is
    written out because torch's GradScaler skips the batch that overflows, and here each batch counts: it is tried again.
    """

    STEPS_BEFORE_DOUBLING = 2000

    def __init__(self, settings: TrainingSettings) -> None:
        self.enabled = settings.precision == "fp16"
        #: The scale, and steps since it changed: what a checkpoint holds.
        self.state = torch.tensor([65536.0 if self.enabled else 1.0, 0.0])

    @property
    def value(self) -> float:
        """The factor by which the loss is multiplied."""
        return float(self.state[0])

    def halve(self) -> bool:
        """Halve the scale; return False where there is nothing left to halve."""
        if not self.enabled or self.value <= 1:
            return False
        self.state.copy_(torch.tensor([self.value / 2, 0.0]))
        return True

    def after_step(self) -> None:
        """Count a step without overflow, and double the scale when there were enough in a row."""
        if self.enabled:
            self.state[1] += 1
            if self.state[1] >= self.STEPS_BEFORE_DOUBLING:
                self.state.copy_(torch.tensor([self.value * 2, 0.0]))
