"""The exit codes of the trainer program, which its launchers, its pods and Kubernetes act on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the trainer's end means; STOPPED is BSD's EX_TEMPFAIL."""

    SUCCESS = 0
    FAILURE = 1  #: worth another try, as is any code that is not listed here
    USER_MISTAKE = 2  #: the job, the data or the machine cannot do it: another try would end the same way
    STOPPED = 75  #: SIGTERM came and a checkpoint is saved: the same call goes on from there
