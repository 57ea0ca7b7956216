"""Storage in an S3 bucket: the tree of `home`, file by file; or none beside the disk.

A file here is as it is there while size and modification time are the same: the copy takes on the object's time. So no
clocks are compared, and a file that either side wrote is seen (S3 counts seconds, so of two writers of one file within a
second, who write as many bytes, a third may keep the first one's). What names others by digest (a manifest) goes last.
Credentials and `AWS_ENDPOINT_URL` are read from the environment by the S3 client itself.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from include.adapters import s3

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

log = logging.getLogger(__name__)

RECORDS = ("manifest.json", "dataset.json")
#: Files that are not whole yet, or mean something on this machine alone.
OWN = (".part", ".draft", "lock")
PIECE = 1 << 20


class Mirror:
    """`home` is this machine's copy, `uri` (`s3://bucket/prefix`) everybody's."""

    def __init__(self, home: Path, uri: str) -> None:
        self._home, self._uri = home, uri

    def pull(self, folder: Path) -> None:
        """Make this machine's copy of what storage has under the folder. Raises as s3.told."""
        with _Opened(self._uri) as (files, root):
            for name, info in _listed(files, self._place(root, folder)).items():
                if not _same(path := folder / name, info):
                    _download(files, info, path)

    def push(self, folder: Path) -> None:
        """Bring what is new or changed under the folder to storage. Raises as s3.told."""
        with _Opened(self._uri) as (files, root):
            place = self._place(root, folder)
            known = _listed(files, place)
            for path in _kept(folder):
                name = path.relative_to(folder).as_posix()
                if name not in known or not _same(path, known[name]):
                    _upload(files, path, f"{place}/{name}")

    def replace(self, folder: Path) -> None:
        """As push, by the folder's only writer: what is no longer here is removed there too."""
        self.push(folder)
        with _Opened(self._uri) as (files, root):
            here = {path.relative_to(folder).as_posix() for path in _kept(folder)}
            for name, info in _listed(files, self._place(root, folder)).items():
                if name not in here:
                    files.delete_file(info.path)

    def _place(self, root: str, folder: Path) -> str:
        return f"{root}/{folder.relative_to(self._home).as_posix()}"


class OneDisk:
    """Storage where all machines share `home`, or there is one: nothing has to be carried."""

    def pull(self, folder: Path) -> None: ...

    def push(self, folder: Path) -> None: ...

    def replace(self, folder: Path) -> None: ...


class _Opened:
    """The file system and the bucket's prefix; whatever the S3 client raises is told in a line."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> tuple["FileSystem", str]:
        from pyarrow.fs import FileSystem

        files, root = FileSystem.from_uri(self._uri)
        return files, root

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        if isinstance(fault, OSError):
            raise s3.told(self._uri, fault) from None


def _listed(files: "FileSystem", place: str) -> dict[str, "FileInfo"]:
    from pyarrow.fs import FileSelector

    found = files.get_file_info(FileSelector(place, recursive=True, allow_not_found=True))
    return {info.path[len(place) + 1 :]: info for info in found if info.is_file}


def _kept(folder: Path) -> Iterator[Path]:
    """The folder's whole files, records last."""
    found = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and not p.name.endswith(OWN)]
    yield from sorted(found, key=lambda path: (path.name in RECORDS, path))


def _same(path: Path, info: "FileInfo") -> bool:
    try:
        here = path.stat()
    except FileNotFoundError:
        return False
    return bool(here.st_size == info.size and here.st_mtime_ns == info.mtime_ns)


def _download(files: "FileSystem", info: "FileInfo", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with files.open_input_stream(info.path) as source, part.open("wb") as target:
        while piece := source.read(PIECE):
            target.write(piece)
    os.utime(part, ns=(info.mtime_ns, info.mtime_ns))
    part.replace(path)


def _upload(files: "FileSystem", path: Path, place: str) -> None:
    try:
        source = path.open("rb")
    except FileNotFoundError:  # a checkpoint that made room for a newer one meanwhile
        return
    written = os.fstat(source.fileno()).st_mtime_ns
    with source, files.open_output_stream(place) as target:
        while piece := source.read(PIECE):
            target.write(piece)
    info = files.get_file_info(place)
    if path.exists() and path.stat().st_mtime_ns == written:
        os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
