"""What starts trainings, suggests settings and stores the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.domain.errors import Unavailable
from include.spec.model_spec import Search


class TrainerStopped(Unavailable):
    """The trainer was told to stop and has saved a checkpoint, from which the next start goes on."""


@dataclass(frozen=True)
class TrainingNode:
    """One of `count` machines that train together; `master` is the host of number 0, where they meet."""

    number: int
    count: int
    master: str
    port: int = 29500


class Launcher(Protocol):
    """Starts the trainer program somewhere and waits."""

    def train(self, job: Path, processes: int) -> None:
        """Run `job.json` to its result manifest.

        Raises UserMistake, TrainerStopped after SIGTERM, and Unavailable for any other end, with the trainer's last line.
        """


class Searcher(Protocol):
    """Suggests settings to train with."""

    def suggest(
        self, space: Search, trials: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        """Return `count` settings (`learning_rate`, `cross_rank`, `dropout`); `trials` are settings with their loss.

        The same arguments give the same settings.
        """


class Storage(Protocol):
    """The storage of runs that all machines share; a folder is one below Perennial's home, which has the same path on each."""

    def pull(self, folder: Path) -> None:
        """Bring what storage has of the folder to this machine. Raises Unavailable."""

    def push(self, folder: Path) -> None:
        """Store what is new or changed in the folder.

        Raises Unavailable, and Conflict where somebody else replaced a manifest that changed here too.
        """

    def replace(self, folder: Path) -> None:
        """Store the folder as its only writer does: what is no longer in it is removed from storage too. Raises Unavailable."""

    def link(self, path: Path) -> str | None:
        """Return a link by which a browser reads a file from storage for a while, or None where storage does not have it."""
