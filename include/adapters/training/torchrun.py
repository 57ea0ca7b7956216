"""Launcher: the trainer program in processes of this machine."""

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from include.domain.errors import Unavailable, UserMistake
from include.domain.training.exit_codes import ExitCode
from include.domain.training.families import FAMILIES

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
#: Seconds the trainer has to save a checkpoint after SIGTERM.
GRACE = 25.0


class Stopped(Unavailable):
    """The trainer was asked to stop and saved a checkpoint."""


@dataclass(frozen=True)
class Node:
    """One of several machines that train together: its number, how many they are, and where number 0 can be reached."""

    number: int
    of: int
    master: str
    port: int = 29500


@dataclass(frozen=True)
class Torchrun:
    """Runs `python -m include.trainer`, under torchrun where the family trains in several processes."""

    node: Node | None = None

    def train(self, job: Path, processes: int) -> None:
        """Run the job to its manifest, its progress lines going to the log.

        Raises UserMistake, Stopped after SIGTERM, and Unavailable for any other end.
        """
        with _started(_command(job, processes, self.node)) as trainer, _passing_on_sigterm(trainer):
            last = _follow(trainer)
        code = trainer.returncode
        if code == ExitCode.USER_MISTAKE:
            raise UserMistake(last)
        if code == ExitCode.STOPPED:
            raise Stopped(f"the trainer was stopped ({last}); the next start goes on from there")
        if code:
            raise Unavailable(f"the trainer ended with {_meaning(code)}: {last}")


def _command(job: Path, processes: int, node: Node | None) -> list[str]:
    asked = json.loads(job.read_text(encoding="utf-8"))
    family = FAMILIES[asked["family"]]
    alone = family.trains_in_seconds and (processes == 1 or not family.runs_on_several_processes)
    if alone and node is None:  # one process of seconds needs no supervisor
        return [sys.executable, "-m", "include.trainer", str(job)]
    restarts = asked["training"].get("restarts", 0) if processes > 1 else 0
    return [sys.executable, "-m", "include.trainer.elastic", *_meeting(node, restarts), f"--nproc-per-node={processes}",
            "-m", "include.trainer", str(job)]  # fmt: skip


def _meeting(node: Node | None, restarts: int) -> list[str]:
    """Where the processes meet. When one is lost, all start again; of several nodes whoever started them does that."""
    if node is None:
        return ["--standalone", f"--max-restarts={restarts}"]
    return [f"--nnodes={node.of}", f"--node-rank={node.number}", f"--master-addr={node.master}",
            f"--master-port={node.port}", "--max-restarts=0"]  # fmt: skip


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _follow(trainer: subprocess.Popen[str]) -> str:
    """Log every line until the trainer ends; its last one."""
    last = "it said nothing"
    try:
        for line in trainer.stdout or ():
            if line.strip():
                last = line.strip()
                log.info("%s", last)
        trainer.wait()
    finally:
        _end(trainer)
    return last


def _end(trainer: subprocess.Popen[str]) -> None:
    """Nothing for a trainer that has ended; else SIGTERM, time for its checkpoint, and SIGKILL."""
    if trainer.poll() is not None:
        return
    trainer.terminate()
    try:
        trainer.wait(GRACE)
    except subprocess.TimeoutExpired:
        trainer.kill()


@contextmanager
def _passing_on_sigterm(trainer: subprocess.Popen[str]) -> Iterator[None]:
    """SIGTERM to this process reaches the trainer first; then comes the turn of whoever handled it before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(signal.SIGTERM)

    def pass_on(number: int, frame: FrameType | None) -> None:
        trainer.terminate()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _meaning(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "SIGKILL (was it out of memory?)"
    return f"exit code {code}"
