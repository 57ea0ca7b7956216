"""This process: the threads that it computes with, and SIGTERM, after which the loop saves a checkpoint and ends."""

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Self

from include.domain.training.job_settings import TrainingSettings


class TrainingStopped(Exception):
    """Training stopped on request, with a checkpoint saved."""


class StopSignal:
    """Notes that SIGTERM has come to this process since `catch_sigterm`."""

    def __init__(self) -> None:
        self._received = False

    @property
    def received(self) -> bool:
        """Whether SIGTERM has come."""
        return self._received

    def catch_sigterm(self) -> Self:
        """Set `received` when SIGTERM comes, which does not end the process any more; return this object."""
        signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True


def arithmetic_threads(settings: TrainingSettings, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many threads this process computes with, at least 1.

    Every operation waits for its slowest thread, so a thread without a core of its own stops all others: beside a busy
    neighbour on two cores, two threads trained at a twentieth of the speed of one (measured). Half the cores is what a
    machine shared with schedulers and servers can spare; `training.threads` takes more where there is nobody else.
    """
    processes = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0))
    return settings.threads or max(1, cores // 2 // processes)
