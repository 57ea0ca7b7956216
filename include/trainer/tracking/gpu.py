"""How busy the GPU is and how full its memory, as NVML says (the library behind nvidia-smi); nothing where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

IDLE, FULL = 0.5, 0.9  #: shares under and above which a person should know
#: Where more of the time than this goes into waiting for batches, reading them is what holds the GPU up.
WAITING = 0.25


class Nvml(Protocol):
    """The two questions that are asked of `pynvml`."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802


@dataclass
class Gpu:
    """One device; `used` and `filled` keep the shares of each look."""

    nvml: Nvml
    handle: Any
    name: str = "gpu_0"
    used: list[float] = field(default_factory=list)
    filled: list[float] = field(default_factory=list)

    def look(self) -> Mapping[str, float]:
        """MLflow's system metrics of this moment, in percent and megabytes."""
        rates, memory = (
            self.nvml.nvmlDeviceGetUtilizationRates(self.handle),
            self.nvml.nvmlDeviceGetMemoryInfo(self.handle),
        )
        self.used.append(rates.gpu / 100)
        self.filled.append(memory.used / memory.total)
        return {
            f"system/{self.name}_utilization_percentage": float(rates.gpu),
            f"system/{self.name}_memory_usage_percentage": 100 * memory.used / memory.total,
            f"system/{self.name}_memory_usage_megabytes": memory.used / 2**20,
        }

    def warnings(self, waited: float) -> list[str]:
        """What a person should know at the end; `waited` is the share of the time in which no batch was ready."""
        found = []
        used = sum(self.used) / max(len(self.used), 1)
        if self.used and used < IDLE:
            held_up = f"reading batches ({waited:.0%} of the time none was ready)" if waited > WAITING else (
                "starting small steps: raise training.batch_size")  # fmt: skip
            found.append(f"the GPU was used {used:.0%} of the time; what holds it up is {held_up}")
        if self.filled and max(self.filled) > FULL:
            found.append(f"the GPU's memory was {max(self.filled):.0%} full: a larger model or batch will not fit")
        return found


def of(device: torch.device) -> Gpu | None:
    """The device's, or None on a CPU."""
    if device.type != "cuda":
        return None
    import pynvml

    pynvml.nvmlInit()
    index = device.index or 0
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"  # CUDA_VISIBLE_DEVICES renumbers, NVML does not
    return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid), f"gpu_{index}")
