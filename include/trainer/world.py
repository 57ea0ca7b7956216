"""The processes that train together, as torchrun describes them in the environment; alone where it does not."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from include.domain.errors import UserMistake


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def shares(self, stop: bool) -> bool:
        """Whether any process says stop, so that all stop at the same step."""
        if self.size == 1:
            return stop
        flag = torch.tensor(int(stop), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def join(environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Meet the other processes (gloo on CPU, nccl on GPUs) and part from them at the end.

    Raises UserMistake for more processes on this machine than it has GPUs, when it has any.
    """
    size, local = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_RANK", "0"))
    world = World(int(environ.get("RANK", "0")), size, _device(environ, local))
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if world.device.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _device(environ: Mapping[str, str], local: int) -> torch.device:
    wanted = environ.get("PERENNIAL_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    if wanted != "cuda":
        return torch.device("cpu")
    gpus, needed = torch.cuda.device_count(), int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if needed > gpus:
        raise UserMistake(f"training.processes: {needed} processes want a GPU each and this machine has {gpus}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
