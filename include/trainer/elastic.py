"""`python -m include.trainer.elastic <torchrun's arguments>`: torchrun, with the exit code of the process that failed.

torchrun itself ends with 1 whatever happened, and whoever started it could not tell a wrong spec from a lost machine.
"""

import logging
import os
import sys

from include.trainer.signals import STOPPED


def main(arguments: list[str]) -> int:
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # the last line on stderr shall be the trainer's own
    os.environ.setdefault(
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1"
    )  # a restarted process else meets those that are gone
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException:
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
