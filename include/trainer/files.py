"""Files that are whole or not there, and what is in them."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write through a file beside it, so that a reader or a crash never meets half of it."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def facts(path: Path) -> dict[str, int | str]:
    """Size and SHA-256, as a manifest records them."""
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
