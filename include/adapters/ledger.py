"""The ledger on a file system: one JSON line a decision, `<folder>/<model>.jsonl`, for any number of processes."""

import fcntl
import logging
import os
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
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path(model), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
            _write(file, line if whole else b"\n" + line, size)
        finally:
            os.close(file)

    def read(self, model: str, kind: str | None = None) -> list[dict[str, Any]]:
        try:
            lines = self._path(model).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        rows = [row for number, line in enumerate(lines, 1) if (row := self._row(model, number, line)) is not None]
        return [row for row in rows if kind is None or row["kind"] == kind]

    def _path(self, model: str) -> Path:
        return self._folder / f"{model}.jsonl"

    def _row(self, model: str, number: int, line: bytes) -> dict[str, Any] | None:
        """None, with a note, for what a writer that was killed left behind."""
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            row = {}
        if "kind" in row and "at" in row:
            return row
        log.warning("%s line %d is half-written and skipped", self._path(model), number)
        return None


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
