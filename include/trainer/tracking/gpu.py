"""How busy the GPU is and how full its memory, as NVML says (the library behind nvidia-smi); nothing where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

#: Shares of the time and of the memory under and above which a person should know.
LOW_UTILIZATION, HIGH_MEMORY_USE = 0.5, 0.9
#: Where more of the time than this goes into waiting for batches, reading them is what holds the GPU up.
HIGH_WAIT_SHARE = 0.25


class Nvml(Protocol):
    """The two functions of `pynvml` that are called."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802


@dataclass
class Gpu:
    """One device, with the shares of time and memory in use that each sample measured."""

    nvml: Nvml
    handle: Any
    name: str = "gpu_0"
    utilization: list[float] = field(default_factory=list)
    memory_use: list[float] = field(default_factory=list)

    def sample(self) -> Mapping[str, float]:
        """Return MLflow's system metrics of this moment, in percent and megabytes."""
        rates = self.nvml.nvmlDeviceGetUtilizationRates(self.handle)
        memory = self.nvml.nvmlDeviceGetMemoryInfo(self.handle)
        self.utilization.append(rates.gpu / 100)
        self.memory_use.append(memory.used / memory.total)
        return {
            f"system/{self.name}_utilization_percentage": float(rates.gpu),
            f"system/{self.name}_memory_usage_percentage": 100 * memory.used / memory.total,
            f"system/{self.name}_memory_usage_megabytes": memory.used / 2**20,
        }

    def warnings(self, wait_share: float) -> list[str]:
        """Return what a person should know at the end; `wait_share` is the share of the time in which no batch was ready."""
        lines = []
        mean = sum(self.utilization) / max(len(self.utilization), 1)
        if self.utilization and mean < LOW_UTILIZATION:
            lines.append(f"the GPU was used {mean:.0%} of the time; what holds it up is {_bottleneck(wait_share)}")
        if self.memory_use and (peak := max(self.memory_use)) > HIGH_MEMORY_USE:
            lines.append(f"the GPU's memory was {peak:.0%} full: a larger model or batch will not fit")
        return lines


def open_gpu(device: torch.device) -> Gpu | None:
    """Return the device as NVML shows it, or None for a CPU."""
    if device.type != "cuda":
        return None
    import pynvml

    pynvml.nvmlInit()
    index = device.index or 0
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"  # CUDA_VISIBLE_DEVICES renumbers, NVML does not
    return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid), f"gpu_{index}")


def _bottleneck(wait_share: float) -> str:
    if wait_share > HIGH_WAIT_SHARE:
        return f"reading batches ({wait_share:.0%} of the time none was ready)"
    return "starting small steps: raise training.batch_size"
