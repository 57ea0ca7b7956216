"""Append-only files of JSON lines, `<start epoch ms>-<pid>.jsonl`, each closed after some minutes or megabytes."""

import os
import time
from pathlib import Path

#: Greatest age of a segment in seconds and greatest size in bytes; then the next one begins, so that old ones can be compacted.
MAX_AGE = 600.0
MAX_BYTES = 64 << 20


class SegmentWriter:
    """Writes segments of `folder` without a buffer: what `append` has written survives the death of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = self._path = folder
        self._file: int | None = None
        self._started_at, self._size = 0.0, 0

    def append(self, lines: bytes | memoryview) -> None:
        """Write whole lines. Raises OSError, e.g. for a full disk; a line may be torn then, and the next call starts a segment.

        A segment to which nothing could be written is removed: a disk that stays full must not fill with empty files.
        """
        try:
            if self._file is None or self._size > MAX_BYTES or time.time() - self._started_at > MAX_AGE:
                self._start_segment()
            self._write(lines)
        except OSError:
            if self._file is not None and not os.fstat(self._file).st_size:
                self._path.unlink(missing_ok=True)
            self.close()
            raise

    def close(self) -> None:
        """Close the current segment."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _start_segment(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._started_at, self._size = time.time(), 0
        self._path = self._folder / f"{int(self._started_at * 1000)}-{os.getpid()}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _write(self, lines: bytes | memoryview) -> None:
        assert self._file is not None
        unwritten = memoryview(lines)
        while unwritten:
            unwritten = unwritten[os.write(self._file, unwritten) :]
        self._size += len(lines)
