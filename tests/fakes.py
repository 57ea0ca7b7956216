"""Ports in memory, for tests of the stages: they behave as the real things do, and remember what was done to them."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts, write_atomically
from include.artifacts.store import Reference
from include.domain.errors import Conflict, Corrupt, Unavailable, UserMistake
from include.domain.events import Event
from include.domain.rollout.variants import RequestCounts
from include.ports.ledger import E
from include.ports.registry import Version
from include.ports.traffic import Routes
from tests.records import model_manifest


@dataclass
class FakeLedger:
    """Keeps the events in memory; with a `clock`, each at the test's own time."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    clock: Callable[[], datetime] | None = None

    def append(self, model: str, event: Event) -> None:
        self.events.append((model, replace(event, at=self.clock()) if self.clock else event))

    def read(self, model: str, event_type: type[E]) -> list[E]:
        return [event for event in self.read_all(model) if isinstance(event, event_type)]

    def read_all(self, model: str) -> list[Event]:
        return sorted((event for name, event in self.events if name == model), key=lambda event: event.at)


@dataclass
class FakeRegistry:
    """Versions and aliases in memory; it remembers what was attached to a run, by run and folder, and its description."""

    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    attached: dict[str, list[str]] = field(default_factory=dict)
    described: dict[str, dict[str, str]] = field(default_factory=dict)

    def register(self, model: str, artifact: Reference, tags: Mapping[str, str], run_id: str | None) -> Version:
        for i, version in enumerate(self.versions):
            if version.artifact.digest == artifact.digest:
                self.versions[i] = replace(version, tags={**version.tags, **tags})
                return self.versions[i]
        self.versions.append(Version(model, str(len(self.versions) + 1), artifact, dict(tags)))
        return self.versions[-1]

    def version(self, model: str, number: str) -> Version:
        for version in self.versions:
            if version.number == number:
                return version
        raise UserMistake(f"{model} has no version {number}")

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        number = self.aliases.get(alias)
        return None if number is None else self.version(model, number)

    def move_alias(self, model: str, alias: str, number: str | None, expected: str | None) -> None:
        if self.aliases.get(alias) != expected:
            raise Conflict(f"{alias} stands at {self.aliases.get(alias)}, not at {expected}")
        if number is None:
            self.aliases.pop(alias, None)
        else:
            self.aliases[alias] = self.version(model, number).number

    def set_tags(self, model: str, number: str, tags: Mapping[str, str]) -> None:
        version = self.version(model, number)
        self.versions[int(number) - 1] = replace(version, tags={**version.tags, **tags})

    def attach(self, run_id: str, files: Iterable[Path], folder: str) -> None:
        self.attached.setdefault(f"{run_id}/{folder}", []).extend(f.name for f in files)

    def describe(self, run_id: str, tags: Mapping[str, str], text: str) -> None:
        self.described[run_id] = {**tags, "text": text}

    def download_record(self, run_id: str, folder: Path) -> Mapping[str, str]:
        raise UserMistake(f"run {run_id} has no record: no training is tracked here")

    def run_url(self, run_id: str) -> str:
        return f"http://registry/runs/{run_id}"

    def add(self, model: str, count: int) -> None:
        """Register `count` versions, of artifacts that do not exist."""
        for number in range(len(self.versions) + 1, len(self.versions) + count + 1):
            self.register(model, Reference(f"/nowhere/{number}", f"digest-{number}"), {}, None)


@dataclass
class FakeRouter:
    """Remembers every routes applied; `down` raises after taking them up."""

    routes: Routes = field(default_factory=Routes)
    applied: list[Routes] = field(default_factory=list)
    down: bool = False

    def apply(self, model: str, routes: Routes) -> None:
        self.routes = routes
        self.applied.append(routes)
        if self.down:
            raise Unavailable("the gateway does not answer")

    def current(self, model: str) -> Routes:
        return self.routes


@dataclass
class FakeSlots:
    """Each slot serves at once what its alias names, unless it is named in `stuck`."""

    awaited: list[tuple[str, str]] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        if slot in self.stuck:
            raise Unavailable(f"slot {slot} is not ready with version {number}")
        self.awaited.append((slot, number))


PREDICTIONS = pa.schema(
    {
        "id": pa.string(),
        "at": pa.float64(),
        "time": pa.timestamp("us", "UTC"),
        "slot": pa.string(),
        "key": pa.string(),
        "score": pa.float64(),
    }
)


@dataclass
class FakeSignals:
    """`traffic` adds to the gateway's counters."""

    by_slot: dict[str, RequestCounts] = field(default_factory=dict)
    logged: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False

    def request_counts(self, model: str, slow_ms: float) -> Mapping[str, RequestCounts]:
        if self.down:
            raise Unavailable("the gateway's metrics do not answer")
        return dict(self.by_slot)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        rows = [{"at": 0.0, "key": None, "time": None, **row} for row in self.logged]
        selected = [row for row in rows if since is None or row["at"] == 0.0 or row["at"] >= since.timestamp()]
        return pa.Table.from_pylist(selected, schema=PREDICTIONS)

    def feedback(self, model: str) -> pa.Table:
        schema = pa.schema([("id", pa.string()), ("key", pa.string()), ("label", pa.float64())])
        return pa.Table.from_pylist([{"id": None, "key": None, **row} for row in self.labels], schema=schema)

    def revision(self, model: str) -> str:
        return f"{len(self.logged)} {len(self.labels)}"

    def traffic(self, slot: str, requests: int, errors: int = 0, slow: int = 0) -> None:
        self.by_slot[slot] = self.by_slot.get(slot, RequestCounts()).plus(RequestCounts(requests, errors, slow))


@dataclass
class FakeScorer:
    """A model by its artifact's URI: a function of the raw columns; None is a damaged artifact."""

    models: dict[str, Callable[[Mapping[str, Any]], NDArray[np.float64]] | None]

    def score(self, artifact: Reference, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        model = self.models.get(artifact.uri)
        if model is None:
            raise Corrupt(f"{artifact.uri}: its SHA-256 is not the recorded one")
        return model(columns)


@dataclass
class FakeLauncher:
    """Writes the manifest that the trainer would write; `broken` ends well and writes nothing."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False

    def train(self, job: Path, processes: int) -> None:
        content = json.loads(job.read_text())
        self.jobs.append({**content, "processes": processes})
        if not self.broken:
            write_manifest(
                Path(content["out"]), content["family"], Reference(**content["dataset"]), content["spec_digest"]
            )


def write_manifest(out: Path, family: str, dataset: Reference, spec_digest: str) -> Reference:
    """Write an artifact of one small file, and return the reference to its manifest."""
    write_atomically(out / "model.onnx", f"a {family}")
    files = {"model.onnx": file_facts(out / "model.onnx")}
    manifest = model_manifest(family=family, dataset=dataset, spec_digest=spec_digest, files=files)
    return store.write(out / "manifest.json", manifest)
