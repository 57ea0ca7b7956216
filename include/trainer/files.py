"""Files that are whole or not there, and what a manifest says of them."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write through a file beside it, so that a reader or a crash never meets half of it."""
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(data)
    publish(draft, path)


def publish(draft: Path, path: Path) -> None:
    """Have the file on the disk, then under its name."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def file_entry(path: Path) -> dict[str, int | str]:
    """Return the file's size and SHA-256, as a manifest records them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
