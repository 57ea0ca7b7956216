"""Files that are whole or not there, and what is in them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class FileFacts:
    """What a manifest records of a file: its size in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


def file_facts(path: Path) -> FileFacts:
    """Return the size and SHA-256 of a file. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return FileFacts(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the file by this content, so that neither a reader nor a crash ever meets half of it.

    Text is written as UTF-8; the folder is made where it is missing.
    """
    with draft_of(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def move_into_place(source: Path, path: Path) -> None:
    """Give a file that is written whole the name `path`, in the same file system, as `write_atomically` does with content."""
    with draft_of(path) as draft:
        source.replace(draft)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to be written, which takes the name `path` at the end; it is removed on an error.

    Its name is its own, begins with a dot and ends like `path`. The content reaches the disk before the name does, and
    the name before this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{uuid4().hex}{path.suffix}")
    try:
        yield draft
        _sync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
