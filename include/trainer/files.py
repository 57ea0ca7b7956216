"""Files that are whole or not there, and what is in them."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write through a file beside it, so that a reader or a crash never meets half of it."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    place(part, path)


def place(written: Path, path: Path) -> None:
    """Have the file on the disk, then under its name."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(path)


def facts(path: Path) -> dict[str, int | str]:
    """Size and SHA-256, as a manifest records them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
