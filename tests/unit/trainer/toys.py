"""What several tests of the trainer share: fields, schedules, a stop after some steps, and what a result says of itself."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.domain.features.encoding import fit
from include.trainer.data.dataset import Fields
from include.trainer.optim.schedule import StepSchedule
from include.trainer.process import StopSignal

CPU = torch.device("cpu")


class StopAfter(StopSignal):
    """SIGTERM during step number `steps`."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def received(self) -> bool:
        self.left -= 1
        return self.left <= 0


def fields_of(numbers: NDArray[np.float32], categories: int = 2) -> Fields:
    """Return fields of the numbers' columns, and of so many categorical ones with two categories each."""
    categorical = [f"c{i}" for i in range(categories)]
    numeric = [f"x{i}" for i in range(numbers.shape[1])]
    columns: dict[str, Any] = {
        "at": [0] * len(numbers),
        **{field: ["a", "b"] * (len(numbers) // 2) for field in categorical},
        **{field: numbers[:, i] for i, field in enumerate(numeric)},
    }
    return Fields.of(
        fit(columns, time="at", zone="UTC", time_parts=(), categorical=categorical, numeric=numeric, min_frequency=1)
    )


def schedule(
    *,
    lr: float = 0.01,
    weight_decay: float = 2.0,
    ema_decay: float = 0.9,
    warm_up: float = 0.02,
    total_steps: int = 1000,
) -> StepSchedule:
    return StepSchedule(lr, weight_decay, ema_decay, warm_up, total_steps)


def same_gradients(one: torch.Tensor, other: torch.Tensor, inputs: list[torch.Tensor]) -> bool:
    """Return whether the sums of the outputs' squares have the same gradients."""
    pairs = zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (one, other)), strict=True)
    return all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)


def manifest_of(out: Path) -> ModelManifest:
    return store.load(out / "manifest.json", ModelManifest)


def weights_digest(out: Path) -> str:
    return manifest_of(out).files["model.safetensors"].sha256
