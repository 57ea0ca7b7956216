"""The prediction log: one line a row, written by a thread of its own so that no request waits for a disk."""

import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from include.server import infer
from include.server.metrics import Metrics
from include.server.model import Model
from include.server.rows import Encoded
from include.server.segments import Segments
from include.server.values import Values

#: Seconds between writes: what a kill -9 can lose at most, well under the second that is promised.
EVERY = 0.25
#: Rows that may wait for a slow disk; more are dropped and counted.
MAX_WAITING = 100_000
#: Rows turned into text, or counted, at once; short, because the interpreter serves no request meanwhile.
CHUNK, COUNTED = 64, 512


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


class Entry(msgspec.Struct, gc=False):
    """A scored row as the requests' path leaves it."""

    model: Model
    id: str
    at: float
    row: Encoded
    score: float
    ms: float


class PredictionLog:
    """Rows in segments of `folder`; also counts scores and values, off the requests' path."""

    def __init__(self, folder: Path, slot: str, metrics: Metrics) -> None:
        self._segments, self._slot, self._metrics = Segments(folder), slot, metrics
        self._values = Values()
        metrics.part(self._values.render)
        self._waiting: list[Entry] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(entry)
        else:
            self._metrics.logged.add(("lost",))

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
        entries, self._waiting = self._waiting, []
        written = self._append(entries)
        self._metrics.logged.add(("written",), written)
        if written < len(entries):
            self._metrics.logged.add(("lost",), len(entries) - written)
        for model, same in groupby(entries, lambda entry: entry.model):
            for chunk in _chunks(list(same), COUNTED):
                self._values.count(model, [entry.row for entry in chunk])
                for entry in chunk:
                    self._metrics.scores.observe(entry.score, (model.version,))

    def _append(self, entries: list[Entry]) -> int:
        """How many were written: all, or those before the disk took no more. It is tried again with the next entries."""
        written, encoder = 0, msgspec.json.Encoder()
        for chunk in _chunks(entries, CHUNK):
            try:
                self._segments.append(encoder.encode_lines([self._line(entry) for entry in chunk]))
            except OSError:
                break
            written += len(chunk)
        return written

    def _line(self, entry: Entry) -> Line:
        model, row = entry.model, entry.row
        features: Any
        if not row.values:
            key, when, features = None, None, infer.features(model, row)
        else:
            key, when, features = model.rows.key(row), model.rows.time(row), model.rows.logged(row)
        return Line(entry.id, entry.at, model.version, self._slot, key, when, features, entry.score, entry.ms)


def _chunks(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))
