"""The processes that train together, as torchrun describes them in the environment; alone where it does not."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from include.domain.errors import Unavailable, UserMistake
from include.trainer.job import Training

#: What gloo's and nccl's errors say when the other side is gone.
LOST = ("gloo", "Gloo", "NCCL")


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def any(self, *ones: bool) -> list[bool]:
        """Of each question whether any process says yes; the same answers in all of them."""
        if self.size == 1:
            return list(ones)
        flags = torch.tensor(ones, dtype=torch.int32, device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def agree(self, step: int) -> int:
        """The step, where all processes go on from the same. Raises Unavailable where a machine's checkpoints are older."""
        ends = torch.tensor([-step, step], device=self.device)
        if self.size > 1:
            dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        first, last = -int(ends[0]), int(ends[1])
        if first != last:
            raise Unavailable(f"the newest checkpoints here and there are of steps {first} to {last}; start again")
        return step

    def sum(self, tensor: Tensor) -> Tensor:
        """Summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, in order of rank; they may differ in length."""
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(tensor)
        longest = int(self.sum(lengths).max())
        own = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [part[:length] for part, length in zip(found, lengths.tolist(), strict=True)]

    def exchange(self, tensor: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """All to all: the first `sent[0]` rows go to process 0, the next to 1, …; `received[i]` rows come from i."""
        found = tensor.new_empty(sum(received), *tensor.shape[1:])
        dist.all_to_all_single(found, tensor.contiguous(), list(received), list(sent))
        return found


@contextmanager
def join(plan: Training, environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Meet the other processes (gloo on CPU, nccl on GPUs) and part from them at the end.

    Raises UserMistake where GPUs are asked for and there are none or too few, Unavailable where a process is lost.
    """
    size, local = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_RANK", "0"))
    world = World(int(environ.get("RANK", "0")), size, _device(plan, environ, local))
    if size == 1:
        yield world
        return
    usual = "nccl" if world.device.type == "cuda" else "gloo"
    dist.init_process_group(usual if plan.backend == "auto" else plan.backend)
    try:
        yield world
    except RuntimeError as fault:
        if not any(sign in str(fault) for sign in LOST):
            raise
        raise Unavailable(
            f"process {world.rank} lost another one; the next start goes on from the last checkpoint"
        ) from None
    finally:
        dist.destroy_process_group()


def _device(plan: Training, environ: Mapping[str, str], local: int) -> torch.device:
    gpus, needed = torch.cuda.device_count(), int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if plan.backend == "nccl" and (plan.device == "cpu" or not gpus):
        raise UserMistake("training.backend: nccl works between GPUs and this machine lends none; use gloo or auto")
    if plan.device == "cpu" or (plan.device == "auto" and not gpus):
        return torch.device("cpu")
    if needed > gpus:
        raise UserMistake(
            f"training: {needed} process(es) want a GPU each, this machine has {gpus}; set device: cpu or use fewer"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
