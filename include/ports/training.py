"""What starts trainings, suggests settings and keeps their runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from include.spec.model_spec import Search


class Launcher(Protocol):
    """Starts the trainer program somewhere and waits."""

    def train(self, job: Path, processes: int) -> None:
        """Run `job.json` to its result manifest. Raises UserMistake or Unavailable with the trainer's last words."""


class Searcher(Protocol):
    """Suggests settings to train with."""

    def suggest(
        self, space: Search, trials: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        """Return `count` settings (`learning_rate`, `cross_rank`, `dropout`); `trials` are settings with their loss.

        The same arguments give the same settings.
        """


class Storage(Protocol):
    """Where runs are kept for all machines; a folder is one below Perennial's home, which has the same path on each."""

    def pull(self, folder: Path) -> None:
        """Bring what storage has of it to this machine. Raises Unavailable."""

    def push(self, folder: Path) -> None:
        """Keep what is new or changed in it. Raises Unavailable, and Conflict where another replaced its manifest."""

    def replace(self, folder: Path) -> None:
        """As push, for its only writer: what is no longer here goes there too."""

    def link(self, path: Path) -> str | None:
        """Return a link by which a browser reads a file from storage for a while; None where storage does not have it."""
