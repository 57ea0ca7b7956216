"""Which arithmetic the matrix products use while training."""

from functools import cache

import torch

from include.trainer.job import Training

#: Smaller batches spend more time on converting to bf16 than they gain by multiplying it (measured with AVX512-BF16).
WORTH_IT = 2048


def precision(plan: Training, device: torch.device) -> torch.autocast:
    """`auto` is bf16 where the processor multiplies it faster than fp32 and the batch is large enough to gain."""
    if plan.precision == "fp16":
        return torch.autocast(device.type, torch.float16)
    bf16 = plan.precision == "bf16" or (plan.precision == "auto" and _gains(plan.batch_size, device))
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


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


@cache
def _gains(batch_size: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    return batch_size >= WORTH_IT and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
