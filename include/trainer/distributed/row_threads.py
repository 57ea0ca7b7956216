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

from include.trainer.distributed.process_group import World
from include.trainer.job import Training
from include.trainer.process import arithmetic_threads

T = TypeVar("T")


class Crew:
    """Its size is 1 where there are other processes, a GPU, or a compiled tower: operations are split over threads there."""

    def __init__(self, plan: Training, world: World) -> None:
        self.threads = arithmetic_threads(plan)
        alone = world.size == 1 and world.device.type == "cpu" and not plan.compile
        self.size = self.threads if alone else 1
        self._pool = ThreadPoolExecutor(self.size)
        torch.set_num_threads(self.threads // self.size)

    def map(self, work: Callable[..., T], *shares: Iterable[object]) -> list[T]:
        """What the work makes of each share, in order; the caller does the first. When one fails, all the same end before."""
        first, *others = zip(*shares, strict=True)
        coming = [self._pool.submit(work, *share) for share in others]
        try:
            made = work(*first)
        finally:
            wait(coming)
        return [made, *(future.result() for future in coming)]

    def spans(self, rows: int, least: int = 1) -> list[slice]:
        """A span of the rows for each, or for fewer of them where it would hold less than `least` rows."""
        size = min(self.size, max(1, rows // least))
        return [slice(rows * i // size, rows * (i + 1) // size) for i in range(size)]

    def towers(self, tower: nn.Module) -> list[nn.Module]:
        """One for each, the tower itself for the first: they share its weights, but each has gradients of its own."""
        twins = [copy.deepcopy(tower) for _ in range(self.size - 1)]
        for twin in twins:
            for own, shared in zip(twin.parameters(), tower.parameters(), strict=True):
                own.data = shared.data
        return [tower, *twins]
