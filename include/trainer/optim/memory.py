"""Memory: freed pieces are kept for the next step; when it runs out, half as many rows at once, their gradients summed up."""

import ctypes

import torch

from include.domain.errors import Unavailable
from include.trainer.distributed.process_group import World
from include.trainer.files import write_atomically
from include.trainer.job import Job

NOTE = "micro-batch"
#: glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD with bytes, tables being larger than the second, which leave at once; and
#: M_ARENA_MAX, so that a thread takes what another one has freed.
KEPT = ((-1, 1 << 30), (-3, 32 << 20), (-8, 1))


def keep_freed() -> None:
    """Have the allocator keep what a step frees: the next step wants it again, and new pages from the kernel cost a seventh of
    a step (measured on flights in bf16). Before that, what was freed goes back, as do the texts of the encoding."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc has it
        for parameter, size in KEPT:
            mallopt(parameter, size)


class MicroBatch:
    """Rows that a process works on at once; 0 is all of its share. A smaller one than the spec's is noted for restarts."""

    def __init__(self, job: Job, world: World) -> None:
        self.world, self.note = world, job.checkpoints / NOTE
        self.rows = int(self.note.read_text()) if self.note.is_file() else job.training.micro_batch

    def parts(self, share: int) -> int:
        """Into how many a share of a batch is cut; the same number in all processes."""
        return -(-share // self.rows) if self.rows else 1

    def halve(self, share: int, step: int) -> None:
        """Raises Unavailable where one row is too much, and among several processes, whose collective calls are out of
        step now: all start again from the last checkpoint, with the smaller one."""
        before = self.rows or share
        if before <= 1:
            raise Unavailable(
                f"step {step + 1}: out of memory with a single row; use a smaller model or a larger machine"
            )
        self.rows = (before + 1) // 2
        self.note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.note, str(self.rows).encode())
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        said = f"step {step + 1}: out of memory with {before} rows at once; going on with {self.rows}"
        if self.world.size > 1:
            raise Unavailable(f"{said}, from the last checkpoint")
        print(f"{said}, their gradients summed up", flush=True)  # noqa: T201


def is_out_of_memory(fault: BaseException) -> bool:
    """A GPU's allocator has a class for it, the CPU's only words."""
    return isinstance(fault, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(fault)
