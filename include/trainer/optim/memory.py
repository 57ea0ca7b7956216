"""Memory: freed pieces stay for the next step; when it runs out, half as many rows at once, their gradients summed up."""

import ctypes

import torch

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Unavailable
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job

FILE_NAME = "micro-batch"
#: glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD with bytes, tables being larger than the second, which leave at once; and
#: M_ARENA_MAX, so that a thread takes what another one has freed.
MALLOC_OPTIONS = ((-1, 1 << 30), (-3, 32 << 20), (-8, 1))


def keep_freed_memory() -> None:
    """Have the allocator keep what a step frees for the next one.

    New pages from the kernel cost a seventh of a step (measured on flights in bf16). What was freed before this call goes
    back to the system, as do the texts of the encoding.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc has it
        for parameter, value in MALLOC_OPTIONS:
            mallopt(parameter, value)


class MicroBatch:
    """Rows that a process works on at once; 0 is all of its share. A size below the spec's is written down for restarts."""

    def __init__(self, job: Job, group: ProcessGroup) -> None:
        self.group, self.file = group, job.checkpoints / FILE_NAME
        self.rows = int(self.file.read_text()) if self.file.is_file() else job.training.micro_batch

    def parts(self, share: int) -> int:
        """Return into how many parts a share of so many rows is cut; the same number in all processes."""
        return -(-share // self.rows) if self.rows else 1

    def halve(self, share: int, step: int) -> None:
        """Halve the rows, for this process and for restarts.

        Raises Unavailable where one row is too much, and among several processes, whose collective calls are out of
        step now: all start again from the last checkpoint, with fewer rows.
        """
        before = self.rows or share
        if before <= 1:
            raise Unavailable(
                f"step {step + 1}: out of memory with a single row; use a smaller model or a larger machine"
            )
        self.rows = (before + 1) // 2
        write_atomically(self.file, str(self.rows))
        if self.group.device.type == "cuda":
            torch.cuda.empty_cache()
        message = f"step {step + 1}: out of memory with {before} rows at once; going on with {self.rows}"
        if self.group.size > 1:
            raise Unavailable(f"{message}, from the last checkpoint")
        print(f"{message}, their gradients summed up", flush=True)  # noqa: T201


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: a GPU's allocator has a class for that error, the CPU's only words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
