"""Which arithmetic the matrix products use while training."""

from functools import cache

import torch

from include.trainer.job import Training

#: Smaller batches spend more time on converting to bf16 than they gain by multiplying it (measured with AVX512-BF16).
WORTH_IT = 2048


def precision(plan: Training, device: torch.device) -> torch.autocast:
    """`auto` is bf16 where the processor multiplies it faster than fp32 and the batch is large enough to gain."""
    bf16 = plan.precision == "bf16" or (plan.precision == "auto" and _gains(plan.batch_size, device))
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


@cache
def _gains(batch_size: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    return batch_size >= WORTH_IT and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
