"""Launcher: the trainer program in processes of this machine."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from include.artifacts import store
from include.artifacts.training_job import TrainingJob
from include.domain.errors import Unavailable, UserMistake
from include.domain.training.exit_codes import ExitCode
from include.domain.training.families import FAMILIES
from include.ports.training import TrainerStopped, TrainingNode

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
#: Seconds the trainer has to save a checkpoint after SIGTERM.
GRACE = 25.0


@dataclass(frozen=True)
class Torchrun:
    """Runs `python -m include.trainer`, under torchrun where the family trains in several processes."""

    node: TrainingNode | None = None

    def train(self, job: Path, processes: int) -> None:
        """Run the job to its manifest; the trainer's lines go to the log.

        Raises UserMistake, TrainerStopped after SIGTERM, and Unavailable for any other end.
        """
        command = _command(job, store.load(job, TrainingJob), processes, self.node)
        with _started(command) as trainer, _forwarding_sigterm(trainer):
            last_line = _log_output(trainer)
        code = trainer.returncode
        if code == ExitCode.USER_MISTAKE:
            raise UserMistake(last_line)
        if code == ExitCode.STOPPED:
            raise TrainerStopped(f"the trainer was stopped ({last_line}); the next start goes on from there")
        if code:
            raise Unavailable(f"the trainer ended with {_describe_exit(code)}: {last_line}")


def _command(path: Path, job: TrainingJob, processes: int, node: TrainingNode | None) -> list[str]:
    """Return the command that trains the job: the trainer alone where one process takes seconds, else under a supervisor."""
    family = next((family for name, family in FAMILIES.items() if name == job.family), None)
    one_process = family is None or (
        family.trains_in_seconds and (processes == 1 or not family.runs_on_several_processes)
    )
    program = ["-m", "include.trainer", str(path)]
    if one_process and node is None:
        return [sys.executable, *program]
    restarts = job.training.restarts if processes > 1 else 0
    rendezvous = _rendezvous(node, restarts)
    return [sys.executable, "-m", "include.trainer.elastic", *rendezvous, f"--nproc-per-node={processes}", *program]


def _rendezvous(node: TrainingNode | None, restarts: int) -> list[str]:
    """Return where the processes meet, as torchrun's options.

    When a process is lost, all of a machine start again; of several machines, whoever started them does that.
    """
    if node is None:
        return ["--standalone", f"--max-restarts={restarts}"]
    nodes = [f"--nnodes={node.count}", f"--node-rank={node.number}"]
    return [*nodes, f"--master-addr={node.master}", f"--master-port={node.port}", "--max-restarts=0"]


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _log_output(trainer: subprocess.Popen[str]) -> str:
    """Log every line until the trainer ends, and return the last one."""
    last_line = "it printed nothing"
    try:
        for line in trainer.stdout or ():
            if line.strip():
                last_line = line.strip()
                log.info("%s", last_line)
        trainer.wait()
    finally:
        _stop(trainer)
    return last_line


def _stop(trainer: subprocess.Popen[str]) -> None:
    """Stop a trainer that still runs: SIGTERM, time for its checkpoint, then SIGKILL."""
    if trainer.poll() is not None:
        return
    trainer.terminate()
    try:
        trainer.wait(GRACE)
    except subprocess.TimeoutExpired:
        trainer.kill()


@contextmanager
def _forwarding_sigterm(trainer: subprocess.Popen[str]) -> Iterator[None]:
    """Pass SIGTERM to this process on to the trainer first, then to the handler that was there before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)

    def forward(number: int, frame: FrameType | None) -> None:
        trainer.terminate()
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _describe_exit(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "SIGKILL (was it out of memory?)"
    return f"exit code {code}"
