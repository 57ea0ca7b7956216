"""The metrics and warnings about a GPU, by a hand-written NVML."""

from types import SimpleNamespace

import pytest
import torch

from include.trainer.tracking import gpu
from include.trainer.tracking.gpu import Gpu


class FakeNvml:
    """A device that is used and filled so far, in percent."""

    def __init__(self, used: int, filled: int) -> None:
        self.used, self.filled = used, filled

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=self.used)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=self.filled * 2**20, total=100 * 2**20)


def sampled(used: int, filled: int) -> Gpu:
    device = Gpu(FakeNvml(used, filled), None)
    device.sample()
    return device


def test_a_sample_is_mlflows_system_metrics():
    assert Gpu(FakeNvml(80, 40), None).sample() == {
        "system/gpu_0_utilization_percentage": 80.0,
        "system/gpu_0_memory_usage_percentage": 40.0,
        "system/gpu_0_memory_usage_megabytes": 40.0,
    }


@pytest.mark.parametrize(
    ("wait_share", "why"), [(0.6, "reading batches (60% of the time"), (0.1, "raise training.batch_size")]
)
def test_a_warning_about_an_idle_gpu_says_what_holds_it_up(wait_share, why):
    (warning,) = sampled(30, 40).warnings(wait_share)
    assert warning.startswith("the GPU was used 30% of the time")
    assert why in warning


def test_a_full_memory_gives_a_warning():
    assert sampled(90, 95).warnings(0.0) == ["the GPU's memory was 95% full: a larger model or batch will not fit"]


def test_a_busy_gpu_with_room_gives_no_warning():
    assert sampled(90, 40).warnings(0.9) == []


def test_a_cpu_has_nothing_to_measure():
    assert gpu.open_gpu(torch.device("cpu")) is None
