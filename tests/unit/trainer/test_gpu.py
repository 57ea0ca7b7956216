"""What is told of a GPU, by a hand-written NVML."""

from types import SimpleNamespace

import pytest
import torch

from include.trainer.tracking import gpu
from include.trainer.tracking.gpu import Gpu


class FakeNvml:
    """A device that is used and filled as it is told, in percent."""

    def __init__(self, used: int, filled: int) -> None:
        self.used, self.filled = used, filled

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=self.used)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=self.filled * 2**20, total=100 * 2**20)


def looked(used: int, filled: int) -> Gpu:
    one = Gpu(FakeNvml(used, filled), None)
    one.look()
    return one


def test_a_look_is_mlflows_system_metrics():
    assert Gpu(FakeNvml(80, 40), None).look() == {
        "system/gpu_0_utilization_percentage": 80.0,
        "system/gpu_0_memory_usage_percentage": 40.0,
        "system/gpu_0_memory_usage_megabytes": 40.0,
    }


@pytest.mark.parametrize(
    ("waited", "why"), [(0.6, "reading batches (60% of the time"), (0.1, "raise training.batch_size")]
)
def test_an_idle_gpu_is_told_with_what_holds_it_up(waited, why):
    (warning,) = looked(30, 40).warnings(waited)
    assert warning.startswith("the GPU was used 30% of the time")
    assert why in warning


def test_a_full_memory_is_told():
    assert looked(90, 95).warnings(0.0) == ["the GPU's memory was 95% full: a larger model or batch will not fit"]


def test_a_busy_gpu_with_room_gives_no_warning():
    assert looked(90, 40).warnings(0.9) == []


def test_a_cpu_has_nothing_to_look_at():
    assert gpu.of(torch.device("cpu")) is None
