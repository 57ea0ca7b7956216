"""Source over files: a file, a folder or a glob of CSV, TSV or Parquet, plain or compressed, on disk or on S3."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from include.adapters.text import read_text
from include.domain.errors import Unavailable, UserMistake
from include.domain.windows import Window, label
from include.ports import Batch, SourceFile
from include.spec import Source as SourceSpec

ROWS = 131_072
CHUNK = 1 << 22
WILD = "*?["
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class FileSource:
    """`home` is where a relative path starts. Names of files below it are told relative to it."""

    def __init__(self, source: SourceSpec, home: Path, filesystem: pafs.FileSystem | None = None) -> None:
        self._source = source
        self._filesystem, self._home = filesystem or pafs.LocalFileSystem(), str(home.resolve())
        if filesystem is None and "://" in source.path:
            self._filesystem, _ = pafs.FileSystem.from_uri(source.path.partition("{")[0].partition("*")[0])
        self._seen: dict[str, tuple[int, int | None]] = {}

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        if not self._source.by_window:
            found = self._expand(self._source.path)
            if not found:
                raise Unavailable(
                    f"{self._source.path}: no such file, folder or match; deliver it or change source.path"
                )
            return [self._described(path, None) for path in found]
        paths = {window: self._source.path_of(window) for window in windows}
        expanded = {window: self._expand(path) for window, path in paths.items()}
        if missing := [window for window, found in expanded.items() if not found]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise Unavailable(
                f"no source file for window {label(missing[0].start)}{more}: {paths[missing[0]]} is not there"
            )
        return [self._described(path, window) for window, found in expanded.items() for path in found]

    def read(self, file: SourceFile) -> Iterator[Batch]:
        path = self._absolute(file.name)
        try:
            yield from _ahead(
                self._parquet(file.name, path) if self._source.format == "parquet" else self._text(file.name, path)
            )
        except FileNotFoundError:
            raise Unavailable(f"{file.name}: vanished while it was read; deliver it again") from None
        if self._state(path) != self._seen.get(path):
            raise Unavailable(f"{file.name}: changed while it was read; write it under another name and rename it")

    def _expand(self, pattern: str) -> list[str]:
        path = self._absolute(pattern)
        if any(sign in path for sign in WILD):
            fixed = PurePosixPath(*_fixed(PurePosixPath(path).parts))
            return [p for p in self._within(str(fixed)) if fnmatch(p, path)]
        kind = self._filesystem.get_file_info(path).type
        if kind == pafs.FileType.File:
            return [path]
        return self._within(path) if kind == pafs.FileType.Directory else []

    def _within(self, folder: str) -> list[str]:
        """The folder's files at any depth, but none that is hidden or still being written (`.x`, `_x`)."""
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
        files = [i.path for i in self._filesystem.get_file_info(selector) if i.type == pafs.FileType.File]
        return sorted(p for p in files if not PurePosixPath(p).name.startswith((".", "_")))

    def _described(self, path: str, window: Window | None) -> SourceFile:
        self._seen[path] = self._state(path)
        digest = hashlib.sha256()
        with self._filesystem.open_input_stream(path, compression=None) as stream:
            while piece := stream.read(CHUNK):
                digest.update(piece)
        return SourceFile(self._relative(path), self._seen[path][0], digest.hexdigest(), window)

    def _state(self, path: str) -> tuple[int, int | None]:
        info = self._filesystem.get_file_info(path)
        return (info.size or 0, info.mtime_ns)

    def _parquet(self, name: str, path: str) -> Iterator[Batch]:
        done = 0
        try:
            with pq.ParquetFile(self._filesystem.open_input_file(path)) as file:
                for piece in file.iter_batches(ROWS):
                    yield Batch(name, np.arange(done + 1, done + 1 + piece.num_rows), pa.Table.from_batches([piece]))
                    done += piece.num_rows
        except (pa.ArrowInvalid, OSError) as fault:
            if isinstance(fault, FileNotFoundError):
                raise
            raise UserMistake(f"{name}: not a whole Parquet file after record {done}: {fault}") from None

    def _text(self, name: str, path: str) -> Iterator[Batch]:
        compression = COMPRESSED.get(PurePosixPath(path).suffix)
        with self._filesystem.open_input_stream(path, compression=compression) as stream:
            yield from read_text(name, stream, self._source)

    def _absolute(self, path: str) -> str:
        if "://" in path:
            return path.partition("://")[2]
        return path if path.startswith("/") else f"{self._home}/{path}"

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self._home}/")


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; while one is used a thread reads the next."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _fixed(parts: tuple[str, ...]) -> list[str]:
    """The parts of a path before the first with a wildcard."""
    wild = next(i for i, part in enumerate(parts) if any(sign in part for sign in WILD))
    return list(parts[:wild])
