"""Results of record: JSON files written whole, and read only against the digest under which they are known."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.artifacts.files import write_atomically
from include.domain.errors import Corrupt


@dataclass(frozen=True)
class Reference:
    """A stored thing by place and SHA-256 of its manifest; what XCom carries."""

    uri: str
    digest: str


def write(path: Path, content: Mapping[str, Any]) -> Reference:
    """Replace the file atomically; the reference to it."""
    write_atomically(path, json.dumps(content, indent=1))
    return reference(path)


def reference(path: Path) -> Reference:
    return Reference(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def read(known: Reference) -> dict[str, Any]:
    """The record. Raises Corrupt when it is gone or its digest differs."""
    try:
        data = path_of(known.uri).read_bytes()
    except OSError as fault:
        raise Corrupt(f"{known.uri}: cannot be read ({fault.strerror}); run the step that writes it again") from None
    if hashlib.sha256(data).hexdigest() != known.digest:
        raise Corrupt(f"{known.uri}: its SHA-256 is not the recorded {known.digest[:12]}…; it was changed since")
    return dict(json.loads(data))


def check_files(manifest: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises Corrupt for the first file beside the manifest that is gone or is not what the manifest says."""
    for name, recorded in files.items():
        path = manifest.parent / name
        if not path.is_file():
            raise Corrupt(f"{path}: named by {manifest.name}, but it is not there")
        if facts(path)["sha256"] != recorded["sha256"]:
            raise Corrupt(f"{path}: its SHA-256 is not the one in {manifest.name}")


def part(manifest: Path, files: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """A JSON file beside the manifest, checked by its digest there. Raises Corrupt."""
    check_files(manifest, {name: files[name]})
    return dict(json.loads((manifest.parent / name).read_bytes()))


def facts(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its size and SHA-256."""
    with path.open("rb") as content:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}
