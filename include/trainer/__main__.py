"""`python -m include.trainer job.json`, alone or under torchrun: from a job file to a manifest.

Exit codes: 0 done, 2 the job, the data or the machine cannot do it (one line says why), 75 stopped by SIGTERM with a
checkpoint saved, anything else a failure worth another try.
"""

import sys
from pathlib import Path

from include.domain.errors import PerennialError, UserMistake
from include.trainer import job as jobs
from include.trainer.process import MISTAKE, STOPPED, Stop, Stopped
from include.trainer.run import run


def main(arguments: list[str]) -> int:
    try:
        if len(arguments) != 1:
            raise UserMistake("usage: python -m include.trainer job.json")
        run(jobs.read(Path(arguments[0])), Stop())
    except Stopped as stopped:
        return _last_words(str(stopped), STOPPED)
    except UserMistake as mistake:
        return _last_words(str(mistake), MISTAKE)
    except PerennialError as fault:
        return _last_words(str(fault), 1)
    return 0


def _last_words(line: str, code: int) -> int:
    sys.stderr.write(f"{line}\n")  # in one piece: print writes the newline apart, and other processes write between
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
