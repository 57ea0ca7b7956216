"""Checkpoints: everything the next step depends on, in one file whose name says the step and the digest of its bytes.

The random numbers of a step depend on seed, step and rank alone and the order of rows on seed and epoch, so the step's
number stands for both. Safetensors holds no code, so nothing is unpickled.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from include.trainer.optimizer import Average

KEEP = 2


@dataclass(frozen=True)
class State:
    """The tensors that training changes, by name; they are updated in place."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        names = dict(self.model.named_parameters())
        for (name, parameter), mean in zip(names.items(), self.average.means, strict=True):
            yield f"model.{name}", parameter.detach()
            yield f"mean.{name}", mean
            for key, value in self._moments(parameter).items():
                yield f"optimizer.{name}.{key}", value

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if not self.optimizer.state[parameter]:  # AdamW makes them at the first step; a restored one needs them now
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter),
            }  # fmt: skip
        return self.optimizer.state[parameter]


def write(folder: Path, state: State, step: int, job: str) -> Path:
    """Save the state after `step` steps, atomically, and forget all but the last two. `job` says whose it is."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors()}
    data = save(tensors, metadata={"step": str(step), "job": job})
    path = folder / f"step-{step:09d}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def restore(folder: Path, state: State, job: str) -> int:
    """Load the newest sound checkpoint of this job into the state; the steps it has behind it, 0 where there is none."""
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:32] != path.stem.rpartition("-")[2]:
            print(f"checkpoint {path.name} is damaged; trying the one before", flush=True)  # noqa: T201
            continue
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            if facts["job"] != job:
                continue
            with torch.no_grad():
                for name, tensor in state.tensors():
                    tensor.copy_(file.get_tensor(name))
            return int(facts["step"])
    return 0


def forget(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    for path in folder.glob("step-*"):
        path.unlink()
    if folder.is_dir():
        folder.rmdir()
