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

ROWS_PER_BATCH = 131_072
#: Bytes that are read at once for a digest.
CHUNK = 1 << 22
WILDCARDS = "*?["
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class FileSource:
    """Implements `ports.sources.Source` over files.

    A relative path starts at `home`, and files below it are named relative to it; `connection` is as in s3.
    """

    def __init__(self, source: SourceSpec, home: Path, connection: Mapping[str, str] = {}) -> None:
        self._source, self._home, self._connection = source, str(home.resolve()), connection
        self._scheme = source.path.partition("://")[0] + "://" if "://" in source.path else ""
        self._states: dict[str, tuple[int, int | None]] = {}

    @cached_property
    def _filesystem(self) -> pafs.FileSystem:
        return s3.file_system(self._source.path, self._connection) if self._scheme else pafs.LocalFileSystem()

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        """Return the files with their digests; see Source."""
        try:
            paths = list_paths(self._source, windows, self._expand)
            with ThreadPoolExecutor() as threads:
                return list(threads.map(lambda file: self._describe(*file), paths))
        except OSError as error:
            raise s3.plain_error(self._source.path, error) from None

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        """Yield the file's records; see Source."""
        path, is_parquet = self._absolute(file.name), self._source.format == "parquet"
        try:
            yield from prefetch(
                self._read_parquet(file.name, path) if is_parquet else self._read_text(file.name, path, numbers)
            )
        except FileNotFoundError:
            raise Unavailable(f"{file.name}: vanished while it was read; deliver it again") from None
        except OSError as error:
            raise s3.plain_error(file.name, error) from None
        if self._state(path) != self._states.get(path):
            raise Unavailable(f"{file.name}: changed while it was read; write it under another name and rename it")

    def _expand(self, pattern: str) -> list[str]:
        """Return the files of a path, a folder or a glob."""
        path = self._absolute(pattern)
        if any(sign in path for sign in WILDCARDS):
            folder = PurePosixPath(*_parts_before_wildcard(PurePosixPath(path).parts))
            return [file for file in self._files_within(str(folder)) if fnmatch(file, path)]
        return [path] if self._filesystem.get_file_info(path).is_file else self._files_within(path)

    def _files_within(self, folder: str) -> list[str]:
        """Return the folder's files at any depth, but none that is hidden or still being written (`.x`, `_x`)."""
        try:
            infos = self._filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
        except FileNotFoundError:
            return []
        files = [info.path for info in infos if info.is_file]
        return sorted(file for file in files if not PurePosixPath(file).name.startswith((".", "_")))

    def _describe(self, path: str, window: Window | None) -> SourceFile:
        self._states[path] = self._state(path)
        digest = hashlib.sha256()
        with self._filesystem.open_input_stream(path, compression=None) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return SourceFile(self._relative(path), self._states[path][0], digest.hexdigest(), window)

    def _state(self, path: str) -> tuple[int, int | None]:
        """Return the file's size and time of modification, by which a change under the reader shows."""
        info = self._filesystem.get_file_info(path)
        return (info.size or 0, info.mtime_ns)

    def _read_parquet(self, name: str, path: str) -> Iterator[Batch]:
        count = 0
        try:
            with pq.ParquetFile(self._filesystem.open_input_file(path)) as file:
                for rows in file.iter_batches(ROWS_PER_BATCH):
                    yield Batch(name, np.arange(count + 1, count + 1 + rows.num_rows), pa.Table.from_batches([rows]))
                    count += rows.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError) or s3.is_server_error(error):
                raise
            raise UserMistake(f"{name}: not a whole Parquet file after record {count}: {error}") from None

    def _read_text(self, name: str, path: str, numbers: Collection[str]) -> Iterator[Batch]:
        compression = COMPRESSIONS.get(PurePosixPath(path).suffix)
        with self._filesystem.open_input_stream(path, compression=compression) as stream:
            yield from read_text(name, stream, self._source, numbers)

    def _absolute(self, path: str) -> str:
        if "://" in path:
            return path.partition("://")[2]
        return path if path.startswith("/") else f"{self._home}/{path}"

    def _relative(self, path: str) -> str:
        return self._scheme + path if self._scheme else path.removeprefix(f"{self._home}/")


def list_paths(
    source: SourceSpec, windows: Sequence[Window], expand: Callable[[str], list[str]]
) -> list[tuple[str, Window | None]]:
    """Return the paths that `expand` finds at the source's path, or at each window's own, with that window.

    Raises Unavailable where there are none.
    """
    if not source.by_window:
        if paths := expand(source.path):
            return [(path, None) for path in paths]
        kind = "Delta table" if source.format == "delta" else "file, folder or match"
        raise Unavailable(f"{source.path}: no such {kind}; deliver it or change source.path")
    patterns = {window: source.path_of(window) for window in windows}
    paths_by_window = {window: expand(pattern) for window, pattern in patterns.items()}
    if missing := [window for window, paths in paths_by_window.items() if not paths]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unavailable(f"no source file for window {missing[0].label}{more}: {patterns[missing[0]]} is not there")
    return [(path, window) for window, paths in paths_by_window.items() for path in paths]


def _parts_before_wildcard(parts: tuple[str, ...]) -> list[str]:
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in WILDCARDS))
    return list(parts[:first])
