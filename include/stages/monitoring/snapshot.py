"""A snapshot of production: every signal of one moment, stored so that deciding is a step of its own and can be repeated."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.monitoring.signal import Signal


@dataclass(frozen=True)
class Snapshot:
    """The signals of one moment and what they rest on.

    `as_of` is the data's clock, the end of the newest landed window, and `newest_window` that window's label. `data_ends` is
    the end of the champion's own data. `evidence` is the revision of everything that was read; see `evidence_revision`.
    """

    as_of: datetime | None
    newest_window: str
    champion_version: str | None
    data_ends: datetime | None
    signals: tuple[Signal, ...]
    evidence: str = ""

    def __getitem__(self, name: str) -> Signal:
        return next(s for s in self.signals if s.name == name)


@dataclass(frozen=True)
class SnapshotRecord:
    """A snapshot as its file has it."""

    as_of: datetime | None
    trained: datetime | None
    newest: str
    version: str | None
    evidence: str
    signals: tuple[Signal, ...]


def write(snapshot: Snapshot, path: Path) -> Reference:
    """Write the snapshot to the file and return the reference to it."""
    record = SnapshotRecord(
        as_of=snapshot.as_of,
        trained=snapshot.data_ends,
        newest=snapshot.newest_window,
        version=snapshot.champion_version,
        evidence=snapshot.evidence,
        signals=snapshot.signals,
    )
    return store.write(path, record)


def read(reference: Reference) -> Snapshot:
    """Return the stored snapshot. Raises Corrupt when its file is gone or was changed."""
    record = store.read(reference, SnapshotRecord)
    return Snapshot(
        as_of=record.as_of,
        newest_window=record.newest,
        champion_version=record.version,
        data_ends=record.trained,
        signals=record.signals,
        evidence=record.evidence,
    )
