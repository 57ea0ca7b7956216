"""The ledger on a file system: one JSON line an event, `<folder>/<model>/<kind>.jsonl`, for any number of processes.

Each kind has a file of its own, because a rollout is analysed every second: whoever asks for the champions need not read
the analyses. A line that cannot be read as an event is skipped with a warning that names file and line: what a killed
writer left half-written, a kind of another release, or a row without a field that this release needs. Keys that this
release does not know are ignored.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import MISSING, fields
from math import nan
from operator import attrgetter
from pathlib import Path

import msgspec

from include.domain.events import EVENT_TYPES, Event
from include.domain.verdict import Verdict
from include.ports.ledger import E

log = logging.getLogger(__name__)
ENVELOPE = ("at", "kind")


class FileLedger:
    """Implements `ports.ledger.Ledger` on files that several processes may append to at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, model: str, event: Event) -> None:
        """Write the event and return once it is on disk. Raises OSError, the file then as it was, when the disk is full."""
        line = msgspec.json.encode(_row(event), enc_hook=_plain) + b"\n"
        path = self._path(model, event.kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            ends_whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
            _write(file, line if ends_whole else b"\n" + line, size)
        finally:
            os.close(file)

    def read(self, model: str, event_type: type[E]) -> list[E]:
        """Return the model's events of that class, oldest first."""
        path = self._path(model, event_type.kind)
        return sorted(_events(path, event_type), key=attrgetter("at")) if path.exists() else []

    def read_all(self, model: str) -> list[Event]:
        """Return the model's events of every class, oldest first."""
        events: list[Event] = []
        for path in sorted((self._folder / model).glob("*.jsonl")):
            if event_type := EVENT_TYPES.get(path.stem):
                events += _events(path, event_type)
            else:
                log.warning("%s is skipped: this release knows no events of that kind", path)
        return sorted(events, key=attrgetter("at"))

    def _path(self, model: str, kind: str) -> Path:
        return self._folder / model / f"{kind}.jsonl"


def _events(path: Path, event_type: type[E]) -> Iterator[E]:
    """Yield the file's events in its order."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            row = {}
        if any(key not in row for key in ENVELOPE):
            log.warning("%s line %d is half-written and skipped", path, number)
            continue
        try:
            yield msgspec.convert(_with_open_intervals(row), event_type)
        except msgspec.ValidationError as error:
            log.warning("%s line %d is skipped: not a row that this release can read: %s", path, number, error)


def _row(event: Event) -> dict[str, object]:
    """Return the event as the ledger writes it: its own fields, then `at` and `kind`."""
    defaults = {f.name: f.default for f in fields(event) if f.default is not MISSING}
    own = {f.name: getattr(event, f.name) for f in fields(event) if f.name not in ENVELOPE}
    row = {name: _content(value) for name, value in own.items() if name not in defaults or value != defaults[name]}
    return {**row, "at": event.at, "kind": event.kind}


def _content(value: object) -> object:
    return value.to_dict() if isinstance(value, Verdict) else value


def _with_open_intervals(value: object, key: str = "") -> object:
    """Return the JSON value with NaN for each end of an `interval` that is null: JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {name: _with_open_intervals(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [nan if key == "interval" and item is None else _with_open_intervals(item) for item in value]
    return value


def _write(file: int, line: bytes, size: int) -> None:
    try:
        written = os.write(file, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes written")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def _plain(value: object) -> object:
    """Return numpy's scalars as numbers and other objects, such as paths, as text."""
    return value.item() if hasattr(value, "item") else str(value)
