"""The sources of raw rows."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.domain.windows import Window


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its name, size in bytes and SHA-256, and the window whose own file it is, if it is one."""

    name: str
    size: int
    digest: str
    window: Window | None = None


@dataclass(frozen=True)
class Reject:
    """A record that cannot be read: where it is, why, and the text of it that could be read.

    `line` counts records from 1, a header included; `column` is empty where the whole record is wrong.
    """

    file: str
    line: int
    column: str
    reason: str
    raw: str


@dataclass(frozen=True)
class Batch:
    """Some of a file's records, as the file types them (all columns of a text file are text), and those it cannot read.

    `lines` int64 `[n]` are the records' numbers in the file. Where columns of a text file are parsed as numbers, `as_text`
    returns the rows that a mask marks as they were written.
    """

    file: str
    lines: NDArray[np.int64]
    rows: pa.Table
    unreadable: Sequence[Reject] = ()
    as_text: Callable[[NDArray[np.bool_]], pa.Table] | None = None


class Source(Protocol):
    """The files from which the raw rows of a model come."""

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        """Return the files that may hold rows of these windows. Raises Unavailable where one that should exist does not."""

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        """Yield the file's records, a bounded piece at a time; `numbers` names columns that should hold numbers alone.

        Raises UserMistake for a file that is not what the spec says, Unavailable when it vanishes or changes meanwhile.
        """
