"""What the stages need from the world, as plain nouns; `adapters` say how, `wiring` says which."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.domain.known import LandedSums
from include.domain.verdict import Verdict
from include.domain.windows import Window
from include.spec import Search


@dataclass(frozen=True)
class Reference:
    """A stored thing by place and SHA-256 of its manifest; what XCom carries."""

    uri: str
    digest: str


@dataclass(frozen=True)
class Version:
    """A registered model version; `artifact` is the result it stands for."""

    model: str
    number: str
    artifact: Reference
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Routes:
    """How the gateway splits a model's traffic: percent to the canary slot, the rest to stable; `mirror` copies all to canary."""

    canary: int = 0
    mirror: bool = False


@dataclass(frozen=True)
class ArmCounts:
    """One slot's live traffic over a span, as the caller of the gateway saw it."""

    requests: int
    errors: int
    slow: int


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


class Records(Protocol):
    """Small JSON documents of what was done to a model's windows: `landed/<window>`, `validated/<window>`, …"""

    def write(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        """Atomically; an older one of that name is replaced."""

    def read(self, kind: str, name: str) -> dict[str, Any] | None: ...


class Tables(Protocol):
    """Versioned tables, partitioned by window (column `window`: the window's label)."""

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        """Make these rows the whole content of their windows, all in one atomic write; the new table version.

        Writers of other windows do not disturb. Raises Conflict when somebody else wrote one of these windows meanwhile:
        since the call began, or since version `read_at` where the rows build on what was read there.
        """

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        """`replace` by what these windows hold in the newest version of the table `source`, in these of its columns; no row is
        read."""

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        """Add rows to whichever windows their column `window` names; False where `once` was added before.

        Raises Conflict when somebody else adds the same at this moment.
        """

    def read(self, table: str, windows: Sequence[Window], *, version: int | None = None,
             columns: Sequence[str] | None = None, coded: Sequence[str] = ()) -> pa.Table:  # fmt: skip
        """The windows' rows, at a version or the newest; the texts `coded` as dictionary arrays, which is how they lie on the
        disk. Raises UserMistake for a table that is not there."""

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        """The window's newest rows a bounded piece at a time, whatever its size. Raises UserMistake as `read`."""

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        """The Parquet files that hold them, for an engine that reads files itself."""

    def windows(self, table: str) -> list[str]:
        """Labels of the windows that hold rows, oldest first; empty when there is no table."""

    def contents(self, table: str) -> Mapping[str, str]:
        """What names the content of each of these windows: another text once it was replaced. Nothing is read."""

    def version(self, table: str) -> int | None:
        """The newest version; None when there is no table."""


class Engine(Protocol):
    """Runs an expression of Ibis over a table's windows."""

    def collect(self, tables: Tables, table: str, windows: Sequence[Window], of: Callable[[Any], Any]) -> pa.Table:
        """The rows of `of(table)`, in any order."""


@dataclass(frozen=True)
class Profile:
    """A landed window in numbers, by name; None where one cannot be said (no earlier window, no label yet).

    `rows`, `label_rate`; against the last windows `volume` (ratio), `label_shift` (difference); `silence`: the part of
    the window after its last row; `nulls.<column>`; `unseen.<column>`: rows with a category that no last window had.
    """

    window: str
    measures: Mapping[str, float | None]


class Validator(Protocol):
    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        """Judge landed windows, each by itself; verdicts by window label, and the URI of the page that shows them.

        A profile is a window's own numbers; `rows` are the windows' own, some whole windows at a time (column `window`), and
        read when they are asked for.
        """


class Scorer(Protocol):
    """Runs an exported model."""

    def score(self, artifact: Reference, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Raw columns of n rows → probabilities `[n]`. Raises Corrupt when a digest differs."""


@dataclass(frozen=True)
class Served:
    """What a model server answered: scores `[n]`, the 99th percentile of a row's time and its memory at the end."""

    scores: NDArray[np.float64]
    p99_ms: float
    memory_mb: float


class Probe(Protocol):
    """Starts the real model server on an artifact, for a moment and for nobody else."""

    def serve(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], past: Sequence[LandedSums] = ()
    ) -> Served:
        """Its answers to these rows, one request a row, from an online store that holds `past`.

        Raises Unavailable with the server's own words.
        """


class Searcher(Protocol):
    """Suggests settings to train with."""

    def ask(
        self, space: Search, told: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        """So many settings (`learning_rate`, `cross_rank`, `dropout`) after what was told: settings and their loss."""


class Launcher(Protocol):
    """Starts the trainer program somewhere and waits."""

    def train(self, job: Path, processes: int) -> None:
        """Run `job.json` to its result manifest. Raises UserMistake or Unavailable with the trainer's last words."""


class Storage(Protocol):
    """Where runs are kept for all machines; a folder is one below Perennial's home, which has the same path on each."""

    def pull(self, folder: Path) -> None:
        """Bring what storage has of it to this machine. Raises Unavailable."""

    def push(self, folder: Path) -> None:
        """Keep what is new or changed in it. Raises Unavailable."""

    def replace(self, folder: Path) -> None:
        """As push, for its only writer: what is no longer here goes there too."""


class Registry(Protocol):
    """Model versions and their aliases: `challenger`, `champion`, `previous`."""

    def register(self, model: str, artifact: Reference, tags: Mapping[str, str], run_id: str | None) -> Version:
        """The version of this artifact; the same artifact twice gives the same version."""

    def version(self, model: str, number: str) -> Version: ...

    def alias(self, model: str, alias: str) -> Version | None: ...

    def move(self, model: str, alias: str, number: str | None, expected: str | None) -> None:
        """Point the alias at a version (None removes it). Raises Conflict when it does not stand at `expected` now."""

    def tag(self, model: str, number: str, tags: Mapping[str, str]) -> None: ...

    def attach(self, run_id: str, files: Iterable[Path], folder: str) -> None:
        """Log files (plots, verdicts, cards) to the tracking run."""

    def describe(self, run_id: str, tags: Mapping[str, str], text: str) -> None:
        """Say of the tracking run what came of it: tags to search by, and a Markdown `text` for people."""

    def record(self, run_id: str, folder: Path) -> Mapping[str, str]:
        """What the run was made of: its tags, and in the folder `dataset.json`, `job.json` and `manifest.json`.

        Raises UserMistake for a run that is not there or whose record is not whole."""

    def page(self, run_id: str) -> str:
        """The URL at which a person sees the tracking run and what is attached to it."""


class Router(Protocol):
    """Splits a model's live traffic between the slots `stable` and `canary`."""

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once the gateway serves it. Raises Unavailable."""

    def current(self, model: str) -> Routes: ...


class Slots(Protocol):
    """The model servers."""

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once the slot is ready with that version. Raises Unavailable with what the slot says instead."""


class PredictionLog(Protocol):
    """What the model servers write: lines in segments, each of which one server fills for some minutes.

    There are two kinds, `predictions` and `feedback`.
    """

    def finished(self, model: str, kind: str, now: datetime) -> list[str]:
        """Segments to which nobody writes any more, oldest first."""

    def read(self, model: str, kind: str, segment: str) -> pa.Table:
        """The segment's lines, with `at` (epoch seconds) and the segment's name."""

    def remove(self, model: str, segment: str) -> None: ...


class Signals(Protocol):
    """What production shows."""

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """Per slot, sums that never fall: requests, errors and answers slower than `slow_ms`."""

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Logged predictions: id, at, time, version, slot, mode, key, score, ms, and the raw features as `features` (JSON)."""

    def feedback(self, model: str) -> pa.Table:
        """Labels that callers sent back: `id` of a prediction or its `key`, one of them null, and `label`."""

    def stamp(self, model: str) -> str:
        """Another text whenever a prediction or a label has been logged; cheap."""


class Ledger(Protocol):
    """Append-only record of decisions."""

    def append(self, model: str, kind: str, **facts: Any) -> None: ...

    def read(self, model: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Oldest first; each with `at` (ISO, UTC), `kind` and its facts."""
