"""Train a run once more from its record alone, and compare: what `perennial reproduce RUN` does.

The record names the commit, the lock file, the spec, the table's version and windows, the seed and the threads. The commit
is cloned into a clean folder and its own code builds the dataset and trains; what it writes is compared with the record.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.model_manifest import ModelManifest
from include.domain.errors import UserMistake
from include.domain.windows import Window, parse_utc
from include.ports.tables import FEATURES, SUMS, Tables
from include.settings import ROOT, inherited
from include.spec.model_spec import ModelSpec
from include.stages.training import dataset as training_dataset
from include.wiring import Parts

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Comparison:
    """One fact of a run as it was recorded and as it was rebuilt."""

    name: str
    recorded: Any
    rebuilt: Any

    @property
    def same(self) -> bool:
        """Whether the rebuilt fact equals the recorded one."""
        return bool(self.recorded == self.rebuilt)


@dataclass(frozen=True)
class RecordedTables:
    """The tables at the versions, and with the windows, that the run used."""

    tables: Tables
    versions: Mapping[str, int | None]
    window_labels: list[str]

    def version(self, table: str) -> int | None:
        return self.versions[table]

    def windows(self, _table: str) -> list[str]:
        return self.window_labels

    def read(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> pa.Table:
        return self.tables.read(table, windows, version=version)


def reproduce(run_id: str, parts: Parts, folder: Path, say: Callable[[str], None]) -> list[Comparison]:
    """Rebuild the run in a new folder and return what was compared; `say` is called with each step.

    Raises UserMistake where the record or its code is incomplete.
    """
    tags = parts.registry().download_record(run_id, folder)
    if changed := tags.get("uncommitted"):
        say(f"the run used uncommitted changes of {changed}, which no record holds: they may make a difference")
    code, commit = folder / "code", tags["mlflow.source.git.commit"]
    say(f"cloning commit {commit[:12]}")
    _git("clone", "-q", "--no-checkout", str(ROOT), str(code))
    _git("-C", str(code), "checkout", "-q", commit)
    python = _python(code, tags["lock_digest"], folder / "environment", say)
    say("building the dataset and training")
    environment = {**inherited(), "PYTHONPATH": str(code), "PERENNIAL_HOME": str(parts.settings.home)}
    command = [python, "-m", "include.local", "rebuild", str(folder), tags["threads"]]
    result = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserMistake(
            f"commit {commit[:12]} did not rebuild the run: {(result.stderr or result.stdout).strip()[-500:]}"
        )
    recorded, rebuilt = (store.load(f / "manifest.json", ModelManifest) for f in (folder, folder / "rebuilt"))
    return list(_compared(recorded, rebuilt))


def rebuild(folder: Path, threads: int, parts: Parts) -> None:
    """Do the half of it by the run's own commit: dataset and training from `dataset.json` and `job.json` in the folder."""
    recorded, job = store.load(folder / "dataset.json", DatasetManifest), _json(folder / "job.json")
    spec = ModelSpec.model_validate(recorded.spec)
    versions = {FEATURES: recorded.table_version, SUMS: recorded.sums_version}
    tables: Any = RecordedTables(parts.tables(spec), versions, list(recorded.windows.all))
    dataset = training_dataset.assemble(spec, parse_utc(recorded.as_of), tables, recorded.run, folder / "dataset")
    job |= {"dataset": {"uri": dataset.uri, "digest": dataset.digest}, "out": str(folder / "rebuilt"), "tracking": None}
    job["training"] |= {"threads": threads}
    store.write(folder / "rebuilt" / "job.json", job)
    parts.launcher().train(folder / "rebuilt" / "job.json", spec.training.processes)


def _compared(recorded: ModelManifest, rebuilt: ModelManifest) -> Iterator[Comparison]:
    yield Comparison("dataset", recorded.dataset.digest, rebuilt.dataset.digest)
    for name, facts in recorded.files.items():
        rebuilt_facts = rebuilt.files.get(name)
        yield Comparison(name, facts.sha256, rebuilt_facts.sha256 if rebuilt_facts else None)
    rebuilt_metrics = asdict(rebuilt.metrics)
    for split, values in asdict(recorded.metrics).items():
        for name, value in values.items():
            yield Comparison(f"{split} {name}", value, rebuilt_metrics[split][name])


def _python(code: Path, lock_digest: str, environment: Path, say: Callable[[str], None]) -> str:
    """Return an interpreter with the locked requirements: this one, or one of an environment that is made for it."""
    if _digest(code / LOCK) != lock_digest:
        raise UserMistake(f"the run's {LOCK} is not the one of its commit: its environment cannot be made again")
    if _digest(ROOT / LOCK) == lock_digest:
        return sys.executable
    say("installing the requirements that the run had")
    python = environment / "bin" / "python"
    for command in (["venv", "-q", str(environment)], ["pip", "sync", "-q", "--python", str(python), str(code / LOCK)]):
        subprocess.run([sys.executable, "-m", "uv", *command], check=True)
    return str(python)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(*arguments: str) -> None:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserMistake(
            f"git {' '.join(arguments)}: {result.stderr.strip()}; is the run's commit in this repository?"
        )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
