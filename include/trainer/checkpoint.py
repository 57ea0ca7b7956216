"""Checkpoints: everything the next step depends on, in one file whose name says the step and the digest of its bytes.

The random numbers of a step depend on seed, step and rank alone and the order of rows on seed and epoch, so the step's
number stands for both. Safetensors holds no code, so nothing is unpickled.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from include.trainer.files import write_atomically
from include.trainer.optimizer import Optimizer

KEEP = 2


def write(folder: Path, optimizer: Optimizer, step: int, job: str) -> Path:
    """Save the state after `step` steps, atomically, and forget all but the last two. `job` says whose it is."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in optimizer.tensors()}
    data = save(tensors, metadata={"step": str(step), "job": job})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    write_atomically(path, data)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


@torch.no_grad()
def restore(folder: Path, optimizer: Optimizer, job: str) -> int:
    """Load the newest sound checkpoint of this job; the steps it has behind it, 0 where there is none."""
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:32] != path.stem.rpartition("-")[2]:
            print(f"checkpoint {path.name} is damaged: going on from the one before", flush=True)  # noqa: T201
            continue
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            if facts["job"] == job:
                for name, tensor in optimizer.tensors():
                    tensor.copy_(file.get_tensor(name))
                return int(facts["step"])
    return 0


def forget(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    for path in folder.glob("step-*"):
        path.unlink()
    if folder.is_dir():
        folder.rmdir()
