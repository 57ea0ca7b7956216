"""The processes that train together, as torchrun describes them in the environment; alone where it does not."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from include.domain.errors import Unavailable, UserMistake
from include.domain.training.job_settings import TrainingSettings

#: Words in the errors of gloo and nccl when the other side is gone.
LOST_CONNECTION = ("gloo", "Gloo", "NCCL")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among `size` processes, and its device. Each method must be called by all processes alike."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process; the same answers in all of them."""
        if self.size == 1:
            return list(flags)
        reduced = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in reduced.tolist()]

    def check_same_step(self, step: int) -> int:
        """Return the step where all processes have the same. Raises Unavailable where a machine's checkpoints are older."""
        ends = torch.tensor([-step, step], device=self.device)
        if self.size > 1:
            dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        first, last = -int(ends[0]), int(ends[1])
        if first != last:
            raise Unavailable(f"the newest checkpoints here and there are of steps {first} to {last}; start again")
        return step

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum the tensor over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor `[n, …]`, in order of rank; their first dimensions may differ."""
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(tensor)
        longest = int(self.all_reduce_sum(lengths).max())
        padded = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return [part[:length] for part, length in zip(gathered, lengths.tolist(), strict=True)]

    def all_to_all(self, tensor: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Send the first `sent[0]` rows to process 0, the next to 1, …; return the `received[i]` rows from each process i."""
        rows = tensor.new_empty(sum(received), *tensor.shape[1:])
        dist.all_to_all_single(rows, tensor.contiguous(), list(received), list(sent))
        return rows


@contextmanager
def join(settings: TrainingSettings, environ: Mapping[str, str] = os.environ) -> Iterator[ProcessGroup]:
    """Meet the other processes (gloo on CPU, nccl on GPUs) and part from them at the end.

    Raises UserMistake where GPUs are wanted and there are none or too few, Unavailable where a process is lost.
    """
    size, local_rank = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_RANK", "0"))
    group = ProcessGroup(int(environ.get("RANK", "0")), size, _device(settings, environ, local_rank))
    if size == 1:
        yield group
        return
    usual = "nccl" if group.device.type == "cuda" else "gloo"
    dist.init_process_group(usual if settings.backend == "auto" else settings.backend)
    try:
        yield group
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST_CONNECTION):
            raise
        raise Unavailable(
            f"process {group.rank} lost another one; the next start goes on from the last checkpoint"
        ) from None
    finally:
        dist.destroy_process_group()


def _device(settings: TrainingSettings, environ: Mapping[str, str], local_rank: int) -> torch.device:
    gpus, needed = torch.cuda.device_count(), int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if settings.backend == "nccl" and (settings.device == "cpu" or not gpus):
        raise UserMistake("training.backend: nccl works between GPUs and this machine lends none; use gloo or auto")
    if settings.device == "cpu" or (settings.device == "auto" and not gpus):
        return torch.device("cpu")
    if needed > gpus:
        raise UserMistake(
            f"training: {needed} process(es) want a GPU each, this machine has {gpus}; set device: cpu or use fewer"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
