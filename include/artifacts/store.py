"""Records in storage: JSON files that are written whole, and read as typed records against their SHA-256.

A record is a frozen dataclass whose fields are the keys of the JSON object. Keys that the dataclass does not have are ignored,
so that a record written by newer code can still be read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from include.artifacts.atomic_write import FileFacts, file_facts, write_atomically
from include.domain.errors import Corrupt

T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """A stored record by its place and the SHA-256 of its bytes. This is what XCom carries."""

    uri: str
    digest: str


def write(path: Path, record: object) -> Reference:
    """Replace the file atomically by the record, a dataclass or a mapping, and return the reference to it."""
    write_atomically(path, encode(record))
    return reference_to(path)


def encode(record: object) -> str:
    """Return the record as indented JSON; spans of time are written in ISO 8601."""
    return json.dumps(msgspec.to_builtins(record, builtin_types=[timedelta]), indent=1, default=_iso_duration)


def read(reference: Reference, kind: type[T]) -> T:
    """Return the record as an object of class `kind`.

    Raises Corrupt when the file is gone, its digest differs, or a field is missing or of another type.
    """
    try:
        content = path_of(reference.uri).read_bytes()
    except OSError as error:
        raise Corrupt(
            f"{reference.uri}: cannot be read ({error.strerror}); run the step that writes it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != reference.digest:
        raise Corrupt(
            f"{reference.uri}: its SHA-256 is not the recorded {reference.digest[:12]}…; it was changed since"
        )
    return decode(content, kind, reference.uri)


def load(path: Path, kind: type[T]) -> T:
    """Return the record in a file that is found by its place, whatever its digest. Raises Corrupt for a wrong field."""
    return decode(path.read_bytes(), kind, str(path))


def decode(content: bytes, kind: type[T], origin: str) -> T:
    """Return the JSON text as an object of class `kind`. Raises Corrupt naming `origin`, the file, and the wrong field."""
    try:
        return msgspec.convert(json.loads(content), kind)
    except ValueError as error:  # msgspec's ValidationError is one, and so are JSON's errors
        raise Corrupt(f"{origin}: not a {kind.__name__}: {error}") from None


def reference_to(path: Path) -> Reference:
    """Return the reference to the record that lies in this file now."""
    return Reference(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def path_of(uri: str) -> Path:
    """Return the path of a reference's `uri`, which is a path or a `file://` URL."""
    return Path(uri.removeprefix("file://"))


def check_files(manifest: Path, files: Mapping[str, FileFacts]) -> None:
    """Raise Corrupt for the first file beside the manifest that is missing or differs from its digest."""
    for name, recorded in files.items():
        path = manifest.parent / name
        if not path.is_file():
            raise Corrupt(f"{path}: named by {manifest.name}, but it is not there")
        if file_facts(path).sha256 != recorded.sha256:
            raise Corrupt(f"{path}: its SHA-256 is not the one in {manifest.name}")


def read_json(manifest: Path, files: Mapping[str, FileFacts], name: str) -> dict[str, Any]:
    """Return the JSON object in a file beside the manifest. Raises Corrupt when the file is not what the manifest lists."""
    check_files(manifest, {name: files[name]})
    return dict(json.loads((manifest.parent / name).read_bytes()))


def _iso_duration(span: timedelta) -> str:
    """Return a span of time as ISO 8601 writes it, e.g. `P7D` or `PT1H30M`."""
    minutes, seconds = divmod(span.seconds + span.microseconds / 1e6, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = ((hours, "H"), (minutes, "M"), (f"{seconds:.6f}".rstrip("0").rstrip("."), "S"))
    time = "".join(f"{amount}{unit}" for amount, unit in parts if amount not in (0, "0"))
    days = f"{span.days}D" if span.days else ""
    return f"P{days}T{time or '0S'}" if time or not days else f"P{days}"
