"""The metrics and warnings about a GPU, by a hand-written NVML."""

from types import SimpleNamespace

import pytest
import torch

from include.trainer.tracking.gpu import Gpu, open_gpu


class FakeNvml:
    """A device of which so much is in use, in percent of the time and of the memory."""

    def __init__(self, utilization: int, memory: int) -> None:
        self.utilization, self.memory = utilization, memory

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self.utilization)

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self.memory * 2**20, total=100 * 2**20)


def sampled(utilization: int, memory: int) -> Gpu:
    device = Gpu(FakeNvml(utilization, memory), None)
    device.sample()
    return device


def test_a_sample_is_mlflows_system_metrics() -> None:
    assert Gpu(FakeNvml(80, 40), None).sample() == {
        "system/gpu_0_utilization_percentage": 80.0,
        "system/gpu_0_memory_usage_percentage": 40.0,
        "system/gpu_0_memory_usage_megabytes": 40.0,
    }


@pytest.mark.parametrize(
    ("wait_share", "why"), [(0.6, "reading batches (60% of the time"), (0.1, "raise training.batch_size")]
)
def test_a_warning_about_an_idle_gpu_says_what_holds_it_up(wait_share: float, why: str) -> None:
    (warning,) = sampled(30, 40).warnings(wait_share)
    assert warning.startswith("the GPU was used 30% of the time")
    assert why in warning


def test_a_full_memory_gives_a_warning() -> None:
    assert sampled(90, 95).warnings(0.0) == ["the GPU's memory was 95% full: a larger model or batch will not fit"]


def test_a_busy_gpu_with_room_gives_no_warning() -> None:
    assert sampled(90, 40).warnings(0.9) == []


def test_a_cpu_has_nothing_to_measure() -> None:
    assert open_gpu(torch.device("cpu")) is None
