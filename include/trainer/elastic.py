"""`python -m include.trainer.elastic <torchrun's arguments>`: torchrun, with the exit code of the process that failed.

torchrun itself ends with 1 whatever happened, and whoever started it could not tell a wrong spec from a lost machine. It
also starts its processes again after a mistake of the user's, who would only read it once more.
"""

import logging
import os
import sys
from typing import Any

from include.domain.training.exit_codes import ExitCode


def main(arguments: list[str]) -> int:
    """Run torchrun with these arguments; return the exit code of the process that failed first, 0 if none did."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # the last line on stderr shall be the trainer's own
    # Else a process that was started again would meet those that are gone.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import api

    api.LocalElasticAgent = _without_restarts_after_mistakes(api.LocalElasticAgent)  # type: ignore[attr-defined]
    try:
        run.run(run.parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException:
        return ExitCode.STOPPED
    return ExitCode.SUCCESS


def _without_restarts_after_mistakes(agent_class: Any) -> Any:
    """Return torchrun's agent, changed so that no restart is left once a process has ended by a mistake of the user's."""

    class Agent(agent_class):  # type: ignore[misc]
        def _monitor_workers(self, workers: Any) -> Any:
            result = super()._monitor_workers(workers)
            if any(failure.exitcode == ExitCode.USER_MISTAKE for failure in result.failures.values()):
                self._remaining_restarts = 0
            return result

    return Agent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
