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

    def any(self, one: bool) -> bool:
        """Whether any process says so; the same answer in all of them."""
        if self.size == 1:
            return one
        flag = torch.tensor(int(one), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def join(device: str, environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Meet the other processes (gloo on CPU, nccl on GPUs) and part from them at the end.

    `device` is `auto`, `cpu` or `cuda`. Raises UserMistake where GPUs are asked for and there are none or too few.
    """
    size, local = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_RANK", "0"))
    world = World(int(environ.get("RANK", "0")), size, _device(device, environ, local))
    if size == 1:
        yield world
        return
    dist.init_process_group("nccl" if world.device.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _device(wanted: str, environ: Mapping[str, str], local: int) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    gpus, needed = torch.cuda.device_count(), int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if needed > gpus:
        raise UserMistake(
            f"training: {needed} process(es) want a GPU each, this machine has {gpus}; set device: cpu or use fewer"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
