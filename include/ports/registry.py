"""Model versions, their aliases and their tracking runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.artifacts.store import Reference


@dataclass(frozen=True)
class Version:
    """A registered model version; `artifact` is the result it stands for."""

    model: str
    number: str
    artifact: Reference
    tags: Mapping[str, str]


class Registry(Protocol):
    """Model versions and their aliases: `challenger`, `champion`, `previous`."""

    def register(self, model: str, artifact: Reference, tags: Mapping[str, str], run_id: str | None) -> Version:
        """The version of this artifact; the same artifact twice gives the same version."""

    def version(self, model: str, number: str) -> Version: ...

    def alias(self, model: str, alias: str) -> Version | None: ...

    def move(self, model: str, alias: str, number: str | None, expected: str | None) -> None:
        """Point the alias at a version (None removes it). Raises Conflict when it does not stand at `expected` now."""

    def tag(self, model: str, number: str, tags: Mapping[str, str]) -> None: ...

    def attach(self, run_id: str, files: Iterable[Path], folder: str) -> None:
        """Log files (plots, verdicts, cards) to the tracking run."""

    def describe(self, run_id: str, tags: Mapping[str, str], text: str) -> None:
        """Say of the tracking run what came of it: tags to search by, and a Markdown `text` for people."""

    def record(self, run_id: str, folder: Path) -> Mapping[str, str]:
        """What the run was made of: its tags, and in the folder `dataset.json`, `job.json` and `manifest.json`.

        Raises UserMistake for a run that is not there or whose record is not whole."""

    def page(self, run_id: str) -> str:
        """The URL at which a person sees the tracking run and what is attached to it."""
