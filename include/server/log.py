"""The prediction log: one line a row, written by a thread of its own so that no request waits for a disk."""

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from include.domain.encoding import MISSING, UNKNOWN
from include.server.metrics import Metrics
from include.server.model import Model
from include.server.segments import Segments

#: Seconds between writes: what a kill -9 can lose at most, well under the second that is promised.
EVERY = 0.25
#: Rows that may wait for a slow disk; more are dropped and counted.
MAX_WAITING = 100_000
#: Rows turned into text at once; short, because the interpreter serves no request meanwhile.
CHUNK = 64


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


Entry = tuple[Model, list[int], Line]


class PredictionLog:
    """Rows in segments of `folder`; also counts scores, missing and unknown values, off the requests' path."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._segments, self._metrics = Segments(folder), metrics
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
        encoder = msgspec.json.Encoder()
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            try:
                self._segments.append(encoder.encode_lines([line for _, _, line in chunk]))
                self._metrics.logged.add(("written",), len(chunk))
            except OSError:
                self._metrics.logged.add(("lost",), len(chunk))
            # A swap puts rows of two versions into one chunk at most now and then.
            for model in {id(model): model for model, _, _ in chunk}.values():
                self._count(model, [e for e in chunk if e[0] is model])

    def _count(self, model: Model, entries: list[Entry]) -> None:
        for _, _, line in entries:
            self._metrics.scores.observe(line.score, (model.version,))
        ids = np.array([ids for _, ids, _ in entries])
        for kind, value in (("missing", MISSING), ("unknown", UNKNOWN)):
            for field, count in zip(model.encoding.categorical, (ids == value).sum(axis=0).tolist(), strict=True):
                if count:
                    self._metrics.values.add((model.version, field, kind), count)
