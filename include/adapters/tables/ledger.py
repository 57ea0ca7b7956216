"""The ledger on a file system: one JSON line a decision, `<folder>/<model>/<kind>.jsonl`, for any number of processes.

A file a kind, because a rollout looks every second: who asks for the champions need not read the looks.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)


class FileLedger:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, model: str, kind: str, **facts: Any) -> None:
        """On disk when it returns. Raises OSError, the file then as it was, when the disk is full."""
        row = {**facts, "at": datetime.now(UTC), "kind": kind}
        line = msgspec.json.encode(row, enc_hook=_plain) + b"\n"
        path = self._folder / model / f"{kind}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
            _write(file, line if whole else b"\n" + line, size)
        finally:
            os.close(file)

    def read(self, model: str, kind: str | None = None) -> list[dict[str, Any]]:
        files = sorted((self._folder / model).glob(f"{kind or '*'}.jsonl"))
        return sorted((row for file in files for row in _rows(file)), key=lambda row: str(row["at"]))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """In order; what a writer that was killed left behind is skipped with a note."""
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            row = {}
        if "kind" in row and "at" in row:
            yield row
        else:
            log.warning("%s line %d is half-written and skipped", file, number)


def _write(file: int, line: bytes, size: int) -> None:
    try:
        written = os.write(file, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes written")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def _plain(value: Any) -> Any:
    """Numpy's scalars and paths."""
    return value.item() if hasattr(value, "item") else str(value)
