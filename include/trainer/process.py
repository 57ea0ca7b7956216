"""This process: the threads that it computes with, and SIGTERM, after which the loop saves a checkpoint and ends."""

import os
import signal
from collections.abc import Mapping
from types import FrameType

from include.trainer.job import Training

#: The exit code of a mistake that another try would only make again.
MISTAKE = 2
#: BSD's EX_TEMPFAIL: the same call, started again, goes on where this one stopped.
STOPPED = 75


class Stopped(Exception):
    """Training stopped on request with a checkpoint saved."""


class Stop:
    """True once SIGTERM has come."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def arithmetic_threads(plan: Training, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many threads this process computes with, at least 1.

    Every operation waits for its slowest thread, so a thread without a core of its own stops all others: beside a busy
    neighbour on two cores, two threads trained at a twentieth of the speed of one (measured). Half the cores is what a
    machine shared with schedulers and servers can spare; `training.threads` takes more where there is nobody else.
    """
    neighbours = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0))
    return plan.threads or max(1, cores // 2 // neighbours)
