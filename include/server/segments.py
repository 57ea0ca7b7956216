"""Append-only files of JSON lines, `<start epoch ms>-<pid>.jsonl`, each closed after some minutes or megabytes."""

import os
import time
from pathlib import Path

#: A segment's greatest age in seconds and size in bytes; then the next begins, so that finished ones can be compacted.
MAX_AGE = 600.0
MAX_BYTES = 64 << 20


class Segments:
    """Written without a buffer: what `append` returned from survives the death of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = self._path = folder
        self._file: int | None = None
        self._begun, self._size = 0.0, 0

    def append(self, lines: bytes | memoryview) -> None:
        """Raises OSError, e.g. for a full disk; a line may be torn then, and the next append starts a new segment.

        One that nothing could be written to is removed: a disk that stays full must not fill with empty files.
        """
        try:
            if self._file is None or self._size > MAX_BYTES or time.time() - self._begun > MAX_AGE:
                self._next()
            self._write(lines)
        except OSError:
            if self._file is not None and not os.fstat(self._file).st_size:
                self._path.unlink(missing_ok=True)
            self.close()
            raise

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _next(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._begun, self._size = time.time(), 0
        self._path = self._folder / f"{int(self._begun * 1000)}-{os.getpid()}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _write(self, lines: bytes | memoryview) -> None:
        assert self._file is not None
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._size += len(lines)
