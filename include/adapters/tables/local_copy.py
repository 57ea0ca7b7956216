"""This machine's copy of a folder in object storage: which file is which object, and which version of a record it has seen."""

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Corrupt, UserMistake

#: Files that name others by digest.
RECORDS = ("manifest.json", "dataset.json")
#: Files that are not whole yet, or mean something on this machine alone.
UNSHARED_SUFFIXES = (".part", ".draft", "lock")


@dataclass(frozen=True)
class StoredObject:
    """An object of the bucket, its time in nanoseconds; `etag` changes with its content."""

    key: str
    size: int
    mtime_ns: int
    etag: str


def is_record(path: Path) -> bool:
    """Return whether the file names others by digest, so that it goes last and on condition."""
    return path.name in RECORDS


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of that name. Raises Corrupt where the name leads out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise Corrupt(f"an object named {name!r} leads out of {folder}: remove it from storage")
    return folder / name


def whole_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folder's finished files by name, records last. Raises UserMistake for a link that leads out of it."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in sorted(files, key=lambda path: (is_record(path), path)):
        if path.name.endswith(UNSHARED_SUFFIXES):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserMistake(f"{path} leads out of {folder}: storage keeps what lies in the folder")
        yield path.relative_to(folder).as_posix(), path


def is_copy(path: Path, stored: StoredObject) -> bool:
    """Return whether the file is the object: of its size and with its time."""
    try:
        here = path.stat()
    except FileNotFoundError:
        return False
    return here.st_size == stored.size and here.st_mtime_ns == stored.mtime_ns


def noted_etag(record: Path) -> str | None:
    """Return the entity tag of the version of the record that this machine has last fetched or written."""
    try:
        return _etag_file(record).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def note_etag(record: Path, etag: str) -> None:
    """Note which version of the record this machine has now."""
    if noted_etag(record) != etag:
        write_atomically(_etag_file(record), etag)


def content_type(path: Path) -> str:
    """Return what a browser is told that the file is."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _etag_file(record: Path) -> Path:
    return record.with_name(f".{record.name}.etag")
