"""This process: the threads that it computes with, and SIGTERM, after which the loop saves a checkpoint and ends."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Self

from include.domain.training.settings import TrainingSettings


class TrainingStopped(Exception):
    """Training stopped on request, with a checkpoint saved."""


@dataclass
class StopSignal:
    """Whether SIGTERM has come to this process."""

    received: bool = False

    @classmethod
    def on_sigterm(cls) -> Self:
        """Handle SIGTERM from now on: instead of ending the process it is noted here."""
        stop = cls()

        def receive(_number: int, _frame: FrameType | None) -> None:
            stop.received = True

        signal.signal(signal.SIGTERM, receive)
        return stop


def arithmetic_threads(settings: TrainingSettings, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many threads this process computes with, at least 1.

    Every operation waits for its slowest thread, so a thread without a core of its own stops all others: beside a busy
    neighbour on two cores, two threads trained at a twentieth of the speed of one (measured). Half the cores is what a
    machine shared with schedulers and servers can spare; `training.threads` takes more where there is nobody else.
    """
    processes = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0))
    return settings.threads or max(1, cores // 2 // processes)
