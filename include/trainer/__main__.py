"""`python -m include.trainer job.json`, alone or under torchrun: from a job file to a manifest.

Exit codes: 0 done, 2 the job, the data or the machine cannot do it (one line says why), 75 stopped by SIGTERM with a
checkpoint saved, anything else a failure worth another try.
"""

import sys
from pathlib import Path

from include.domain.errors import PerennialError, UserMistake
from include.domain.training.exit_codes import ExitCode
from include.trainer import job
from include.trainer.process import StopSignal, TrainingStopped
from include.trainer.run import run


def main(arguments: list[str]) -> ExitCode:
    """Train the job that the one argument names; return how that ended."""
    try:
        if len(arguments) != 1:
            raise UserMistake("usage: python -m include.trainer job.json")
        run(job.read(Path(arguments[0])), StopSignal().catch_sigterm())
    except TrainingStopped as stopped:
        return _end(str(stopped), ExitCode.STOPPED)
    except UserMistake as mistake:
        return _end(str(mistake), ExitCode.USER_MISTAKE)
    except PerennialError as error:
        return _end(str(error), ExitCode.FAILURE)
    return ExitCode.SUCCESS


def _end(message: str, code: ExitCode) -> ExitCode:
    """Write the last line of stderr and return the code."""
    sys.stderr.write(f"{message}\n")  # in one piece: print writes the newline apart, and other processes write between
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
