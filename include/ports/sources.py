"""Where raw rows come from."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.domain.windows import Window


@dataclass(frozen=True)
class SourceFile:
    """One file that a source delivered; `window` where the file is that window's own. `digest` is its SHA-256."""

    name: str
    size: int
    digest: str
    window: Window | None = None


@dataclass(frozen=True)
class Reject:
    """A record that cannot be read: its place (records count from 1, a header is one), why, and what of it there is."""

    file: str
    line: int
    column: str
    reason: str
    raw: str


@dataclass(frozen=True)
class Batch:
    """Some of a file's records, typed as the file types them (text files: text); `lines` int64 `[n]` are their places.

    Where numbers of a text file come as numbers, `as_text` gives the rows that a mask marks as they were written.
    """

    file: str
    lines: NDArray[np.int64]
    rows: pa.Table
    unreadable: Sequence[Reject] = ()
    as_text: Callable[[NDArray[np.bool_]], pa.Table] | None = None


class Source(Protocol):
    """Where raw rows come from."""

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        """The files that may hold rows of these windows, by name. Raises Unavailable naming each that should be there."""

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        """The file's records, a bounded piece at a time; `numbers` names columns that should hold nothing else.

        Raises UserMistake for a file that is not what the spec says, Unavailable when it vanishes or changes under the reader.
        """
