"""The prediction log: one line a row, written by a thread of its own so that no request waits for a disk."""

import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from include.server import infer
from include.server.metrics import Metrics
from include.server.model import Model
from include.server.rows import Encoded
from include.server.segments import Segments
from include.server.values import Values

#: Seconds between writes: what a kill -9 can lose at most, well under the second that is promised.
EVERY = 0.25
#: Bytes of lines, and of what is counted of them, that may wait for a slow disk; more are dropped and counted.
MAX_WAITING = 64 << 20
#: Bytes written at once, whole lines, which a full disk loses together; rows counted at once, while no request is served.
CHUNK, COUNTED = 1 << 16, 512


class Line(msgspec.Struct, gc=False):
    id: str
    at: float
    version: str
    slot: str
    key: str | None
    time: str | None
    features: Any
    score: float
    ms: float


class Scored(msgspec.Struct, gc=False):
    """A row that was scored, `ms` after it came."""

    id: str
    row: Encoded
    score: float
    ms: float


class Page:
    """Scored rows of one version that wait to be written: their lines, and what is counted of them, packed.

    Both stand in memory of their own, given back with the page: buffers of that size, coming and going four times a second,
    left holes in the heap, which grew.
    """

    __slots__ = ("lines", "model", "packed", "scores")

    def __init__(self, model: Model) -> None:
        self.model, self.scores = model, cast(list[float], [])
        self.lines, self.packed = (mmap.mmap(-1, MAX_WAITING, flags=mmap.MAP_PRIVATE) for _ in range(2))


class PredictionLog:
    """Rows in segments of `folder`; also counts scores and values, off the requests' path."""

    def __init__(self, folder: Path, slot: str, metrics: Metrics) -> None:
        self._segments, self._slot, self._metrics = Segments(folder), slot, metrics
        self._values, self._encoder = Values(), msgspec.json.Encoder()
        metrics.part(self._values.render)
        self._pages: list[Page] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, model: Model, at: float, rows: Sequence[Scored]) -> None:
        """The lines are made here: a thread that makes lines keeps the interpreter from the requests at every turn."""
        lines = self._encoder.encode_lines([self._line(model, at, row) for row in rows])
        packed = b"".join([part for r in rows for part in (r.row.ids, r.row.numbers)])
        with self._lock:
            if not self._pages or self._pages[-1].model is not model:
                self._pages.append(Page(model))
            page = self._pages[-1]
            if max(page.lines.tell() + len(lines), page.packed.tell() + len(packed)) > MAX_WAITING:
                self._metrics.logged.add(("lost",), len(rows))
                return
            page.lines.write(lines)
            page.packed.write(packed)
            page.scores += [r.score for r in rows]

    def _line(self, model: Model, at: float, scored: Scored) -> Line:
        key, when, features = _said(model, scored.row)
        return Line(scored.id, at, model.version, self._slot, key, when, features, scored.score, scored.ms)

    def close(self) -> None:
        """Write what waits and stop."""
        self._stop.set()
        self._thread.join()
        self._segments.close()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            pages, self._pages = self._pages, []
        for page in pages:
            if lost := page.lines[self._append(page.lines) : page.lines.tell()].count(b"\n"):
                self._metrics.logged.add(("lost",), lost)
            self._metrics.logged.add(("written",), len(page.scores) - lost)
            self._count(page)

    def _append(self, lines: mmap.mmap) -> int:
        """How many bytes were written: all, or those before the disk took no more. It is tried again with the next page."""
        start = 0
        while start < lines.tell():
            end = lines.rfind(b"\n", start, start + CHUNK) + 1 or lines.find(b"\n", start) + 1
            try:
                self._segments.append(memoryview(lines)[start:end])
            except OSError:
                break
            start = end
        return start

    def _count(self, page: Page) -> None:
        encoding = page.model.encoding
        row = [("ids", np.int64, (len(encoding.categorical),)), ("numbers", np.float32, (len(encoding.numeric),))]
        rows = np.frombuffer(page.packed, row, len(page.scores))
        for start in range(0, len(rows), COUNTED):
            part = rows[start : start + COUNTED]
            self._values.count(page.model, part["ids"], part["numbers"])
        for score in page.scores:
            self._metrics.scores.observe(score, (page.model.version,))


def _said(model: Model, row: Encoded) -> tuple[str | None, str | None, Any]:
    """The row's key, time and features."""
    if not row.values:
        return None, None, infer.features(model, row)
    return model.rows.key(row), model.rows.time(row), model.rows.logged(row)
