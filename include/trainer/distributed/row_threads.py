"""Threads that share a step's work by rows, each with a core of its own.

An operation that is split over threads waits for the slowest of them, some two hundred times a step: two threads trained
at 1.3 times the speed of one (measured on flights in fp32). Rows are split a few times a step.
"""

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import nn

from include.domain.training.job_settings import TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.process import arithmetic_threads

T = TypeVar("T")


class RowThreads:
    """A pool of `size` threads, the caller's among them.

    With other processes, a GPU or a compiled tower the size is 1, and torch splits operations over threads instead.
    """

    def __init__(self, settings: TrainingSettings, group: ProcessGroup) -> None:
        self.arithmetic_threads = arithmetic_threads(settings)
        splits_rows = group.size == 1 and group.device.type == "cpu" and not settings.compile
        self.size = self.arithmetic_threads if splits_rows else 1
        self._pool = ThreadPoolExecutor(self.size)
        torch.set_num_threads(self.arithmetic_threads // self.size)

    def map(self, work: Callable[..., T], *shares: Iterable[object]) -> list[T]:
        """Return the results of `work` on each thread's share, in order; all have ended when one raises."""
        first, *others = zip(*shares, strict=True)
        futures = [self._pool.submit(work, *share) for share in others]
        try:
            result = work(*first)
        finally:
            wait(futures)
        return [result, *(future.result() for future in futures)]

    def spans(self, rows: int, minimum: int = 1) -> list[slice]:
        """Cut the rows into a span a thread, or into fewer spans where one would hold less than `minimum` rows."""
        size = min(self.size, max(1, rows // minimum))
        return [slice(rows * i // size, rows * (i + 1) // size) for i in range(size)]

    def replicas(self, tower: nn.Module) -> list[nn.Module]:
        """Return one module a thread, the tower itself first: they share its weights, but each has gradients of its own."""
        replicas = [copy.deepcopy(tower) for _ in range(self.size - 1)]
        for replica in replicas:
            for own, shared in zip(replica.parameters(), tower.parameters(), strict=True):
                own.data = shared.data
        return [tower, *replicas]
