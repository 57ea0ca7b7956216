"""`python -m include.entrypoints.training_pod job.json …`: what a training's pod runs.

It brings the jobs and their dataset from storage, trains them one after another, and stores checkpoints and results there.

Exit codes are the trainer's: 0 done, 2 a mistake, 75 stopped by SIGTERM with a checkpoint in storage, 1 worth another try.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from include.artifacts import store
from include.artifacts.training_job import TrainingJob
from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.domain.training.exit_codes import ExitCode
from include.ports.training import Storage, TrainerStopped, TrainingNode
from include.wiring import Parts, parts

log = logging.getLogger("perennial.pod")
#: Seconds between two looks for a new checkpoint.
SYNC_INTERVAL = 5.0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the program's options; those of the command line when `arguments` is left out."""
    parser = argparse.ArgumentParser(prog="python -m include.entrypoints.training_pod", description=__doc__)
    parser.add_argument("jobs", nargs="+", type=Path, metavar="job.json")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0, help="this one's number")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--master", default="", help="host name of node 0")
    return parser.parse_args(arguments)


def train(options: argparse.Namespace, parts: Parts) -> None:
    """Train the jobs one after another.

    Raises UserMistake, TrainerStopped, or Unavailable; the checkpoints are in storage then.
    """
    node = TrainingNode(options.node, options.nodes, options.master) if options.nodes > 1 else None
    launcher, storage = parts.launcher(node), parts.storage()
    for path in options.jobs:
        signal.signal(signal.SIGTERM, _stop_at_once)
        storage.pull(path.parent)
        job = store.load(path, TrainingJob)
        for artifact in filter(None, (job.dataset, job.start)):
            storage.pull(store.path_of(artifact.uri).parent)
        signal.signal(signal.SIGTERM, _leave_to_launcher)
        with _stored(storage, path.parent, writes=options.node == 0):
            launcher.train(path, options.processes)


@contextmanager
def _stored(storage: Storage, folder: Path, *, writes: bool) -> Iterator[None]:
    """Store the folder every few seconds, and once more at the end, however the training ends. Only one node writes."""
    ended = threading.Event()

    def store_repeatedly() -> None:
        while not ended.wait(SYNC_INTERVAL):
            try:
                storage.replace(folder)
            except Unavailable as error:
                log.warning("%s; trying again in %g s", error, SYNC_INTERVAL)

    thread = threading.Thread(target=store_repeatedly, daemon=True)
    if writes:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if writes:
            thread.join()
            storage.replace(folder)


def _stop_at_once(_number: int, _frame: FrameType | None) -> None:
    raise TrainerStopped("stopped before the training began")


def _leave_to_launcher(_number: int, _frame: FrameType | None) -> None:
    """Go on: the launcher stops the trainer on SIGTERM, and the checkpoint has still to be stored."""


def main() -> ExitCode:
    """Train the jobs of the command line, and return the exit code; the last line printed is the error's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        train(parse_arguments(), parts())
    except PerennialError as error:
        print(error, flush=True)  # noqa: T201 - the pod's status shows the last line
        return _exit_code(error)
    return ExitCode.SUCCESS


def _exit_code(error: PerennialError) -> ExitCode:
    if isinstance(error, TrainerStopped):
        return ExitCode.STOPPED
    return ExitCode.USER_MISTAKE if isinstance(error, UserMistake) else ExitCode.FAILURE


if __name__ == "__main__":
    sys.exit(main())
