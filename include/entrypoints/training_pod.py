"""`python -m include.entrypoints.training_pod job.json …`: what a training's pod runs.

It brings the jobs and their dataset from storage, trains them one after another, and keeps checkpoints and results there.

Exit codes are the trainer's: 0 done, 2 a mistake, 75 stopped by SIGTERM with a checkpoint in storage, 1 worth another try.
"""

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from include.adapters.training.torchrun import Node, Stopped, Torchrun
from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.domain.training.exit_codes import ExitCode
from include.ports.training import Storage
from include.wiring import parts

log = logging.getLogger("perennial.pod")
#: Seconds between looks for a new checkpoint.
EVERY = 5.0


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m include.entrypoints.training_pod", description=__doc__)
    parser.add_argument("jobs", nargs="+", type=Path, metavar="job.json")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0, help="this one's number")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--master", default="", help="host name of node 0")
    return parser.parse_args(given)


def train(options: argparse.Namespace, storage: Storage) -> None:
    """Raises UserMistake, Stopped, or Unavailable, the checkpoints in storage."""
    node = Node(options.node, options.nodes, options.master) if options.nodes > 1 else None
    for job in options.jobs:
        signal.signal(signal.SIGTERM, _stop)
        storage.pull(job.parent)
        asked = json.loads(job.read_text(encoding="utf-8"))
        for needed in filter(None, (asked["dataset"], asked.get("start"))):
            storage.pull(Path(needed["uri"]).parent)
        signal.signal(signal.SIGTERM, _go_on)
        with _kept(storage, job.parent, writes=options.node == 0):
            Torchrun(node).train(job, options.processes)


@contextmanager
def _kept(storage: Storage, folder: Path, *, writes: bool) -> Iterator[None]:
    """Storage follows the folder, at last when the training has ended, however it did. Only one node writes."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(EVERY):
            try:
                storage.replace(folder)
            except Unavailable as fault:
                log.warning("%s; trying again in %g s", fault, EVERY)

    following = threading.Thread(target=follow, daemon=True)
    if writes:
        following.start()
    try:
        yield
    finally:
        ended.set()
        if writes:
            following.join()
            storage.replace(folder)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped("stopped before the training began")


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """The trainer is told of a SIGTERM, and its checkpoint has still to be brought to storage."""


def main() -> ExitCode:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        train(arguments(), parts().storage())
    except Stopped as stopped:
        return _last_words(stopped, ExitCode.STOPPED)
    except UserMistake as mistake:
        return _last_words(mistake, ExitCode.USER_MISTAKE)
    except PerennialError as fault:
        return _last_words(fault, ExitCode.FAILURE)
    return ExitCode.SUCCESS


def _last_words(error: PerennialError, code: ExitCode) -> ExitCode:
    print(error, flush=True)  # noqa: T201 - the pod's status shows the last line
    return code


if __name__ == "__main__":
    sys.exit(main())
