"""Source over files: a file, a folder or a glob of CSV, TSV or Parquet, plain or compressed, on disk or on S3."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from include.adapters import s3
from include.adapters.sources.delimited import read_text
from include.domain.errors import Unavailable, UserMistake
from include.domain.prefetch import prefetch
from include.domain.windows import Window
from include.ports.sources import Batch, SourceFile
from include.spec.data import SourceSpec

ROWS = 131_072
CHUNK = 1 << 22
WILD = "*?["
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class FileSource:
    """`home` is where a relative path starts; names of files below it are told relative to it. `given` as in s3."""

    def __init__(self, source: SourceSpec, home: Path, given: Mapping[str, str] = {}) -> None:
        self._source, self._home, self._given = source, str(home.resolve()), given
        self._scheme = source.path.partition("://")[0] + "://" if "://" in source.path else ""
        self._seen: dict[str, tuple[int, int | None]] = {}

    @cached_property
    def _filesystem(self) -> pafs.FileSystem:
        return s3.file_system(self._source.path, self._given) if self._scheme else pafs.LocalFileSystem()

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        try:
            found = delivered(self._source, windows, self._expand)
            with ThreadPoolExecutor() as threads:
                return list(threads.map(lambda each: self._described(*each), found))
        except OSError as fault:
            raise s3.plain_error(self._source.path, fault) from None

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        path, parquet = self._absolute(file.name), self._source.format == "parquet"
        try:
            yield from prefetch(self._parquet(file.name, path) if parquet else self._text(file.name, path, numbers))
        except FileNotFoundError:
            raise Unavailable(f"{file.name}: vanished while it was read; deliver it again") from None
        except OSError as fault:
            raise s3.plain_error(file.name, fault) from None
        if self._state(path) != self._seen.get(path):
            raise Unavailable(f"{file.name}: changed while it was read; write it under another name and rename it")

    def _expand(self, pattern: str) -> list[str]:
        path = self._absolute(pattern)
        if any(sign in path for sign in WILD):
            fixed = PurePosixPath(*_fixed(PurePosixPath(path).parts))
            return [p for p in self._within(str(fixed)) if fnmatch(p, path)]
        return [path] if self._filesystem.get_file_info(path).is_file else self._within(path)

    def _within(self, folder: str) -> list[str]:
        """The folder's files at any depth, but none that is hidden or still being written (`.x`, `_x`)."""
        try:
            found = self._filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
        except FileNotFoundError:
            return []
        files = [info.path for info in found if info.is_file]
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
            if isinstance(fault, FileNotFoundError) or s3.is_server_error(fault):
                raise
            raise UserMistake(f"{name}: not a whole Parquet file after record {done}: {fault}") from None

    def _text(self, name: str, path: str, numbers: Collection[str]) -> Iterator[Batch]:
        compression = COMPRESSED.get(PurePosixPath(path).suffix)
        with self._filesystem.open_input_stream(path, compression=compression) as stream:
            yield from read_text(name, stream, self._source, numbers)

    def _absolute(self, path: str) -> str:
        if "://" in path:
            return path.partition("://")[2]
        return path if path.startswith("/") else f"{self._home}/{path}"

    def _relative(self, path: str) -> str:
        return self._scheme + path if self._scheme else path.removeprefix(f"{self._home}/")


def delivered(
    source: SourceSpec, windows: Sequence[Window], find: Callable[[str], list[str]]
) -> list[tuple[str, Window | None]]:
    """What `find` finds at the source's path, or at each window's own. Raises Unavailable where that is nothing."""
    if not source.by_window:
        if found := find(source.path):
            return [(path, None) for path in found]
        kind = "Delta table" if source.format == "delta" else "file, folder or match"
        raise Unavailable(f"{source.path}: no such {kind}; deliver it or change source.path")
    paths = {window: source.path_of(window) for window in windows}
    own = {window: find(path) for window, path in paths.items()}
    if missing := [window for window, found in own.items() if not found]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unavailable(f"no source file for window {missing[0].label}{more}: {paths[missing[0]]} is not there")
    return [(path, window) for window, found in own.items() for path in found]


def _fixed(parts: tuple[str, ...]) -> list[str]:
    """The parts of a path before the first with a wildcard."""
    wild = next(i for i, part in enumerate(parts) if any(sign in part for sign in WILD))
    return list(parts[:wild])
