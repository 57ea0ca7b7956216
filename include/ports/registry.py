"""Model versions, their aliases and their tracking runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.artifacts.store import Reference


@dataclass(frozen=True)
class Version:
    """A registered model version; `artifact` is the manifest of the model that it stands for."""

    model: str
    number: str
    artifact: Reference
    tags: Mapping[str, str]


class Registry(Protocol):
    """Model versions and their aliases: `challenger`, `champion`, `previous`."""

    def register(self, model: str, artifact: Reference, tags: Mapping[str, str], run_id: str | None) -> Version:
        """Return the version of this artifact; the same artifact twice gives the same version, its tags renewed."""

    def version(self, model: str, number: str) -> Version:
        """Return the version of that number. Raises UserMistake when there is none."""

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        """Return the version that the alias names; None when it names none."""

    def move_alias(self, model: str, alias: str, number: str | None, expected: str | None) -> None:
        """Point the alias at a version; None removes it. Raises Conflict when it does not stand at `expected` now."""

    def set_tags(self, model: str, number: str, tags: Mapping[str, str]) -> None:
        """Set these tags of the version and leave its others."""

    def attach(self, run_id: str, files: Iterable[Path], folder: str) -> None:
        """Log files (plots, verdicts, cards) to a folder of the tracking run; one of the same name is replaced."""

    def describe(self, run_id: str, tags: Mapping[str, str], text: str) -> None:
        """Set tags of the tracking run, to search by, and its description in Markdown, for people."""

    def download_record(self, run_id: str, folder: Path) -> Mapping[str, str]:
        """Write what the run was made of to the folder, and return the run's tags.

        The files are `dataset.json`, `job.json` and `manifest.json`. Raises UserMistake for a run that is not there or whose
        record is not whole.
        """

    def run_url(self, run_id: str) -> str:
        """Return the URL at which a person sees the tracking run and what is attached to it."""
