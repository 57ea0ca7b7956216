"""SIGTERM, taken as a request: the loop saves a checkpoint after the step it is in and ends with a code of its own."""

import signal
from types import FrameType

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
