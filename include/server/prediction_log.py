"""The prediction log: one line a row, written by a thread of its own so that no request waits for a disk."""

import mmap
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from include.server import infer
from include.server.feature_counts import FeatureCounts
from include.server.prometheus import Metrics
from include.server.rows import EncodedRow
from include.server.segment_writer import SegmentWriter
from include.server.servable_model import ServableModel

#: Seconds between writes: what a kill -9 can lose at most, well under the second that is promised.
WRITE_INTERVAL = 0.25
#: Bytes of lines, and of rows to be counted, that may wait for a slow disk; more are dropped and counted as lost.
MAX_PENDING = 64 << 20
#: Bytes of whole lines that are written at once, which a full disk loses together.
WRITE_BYTES = 1 << 16
#: Rows counted at once, while no request is served.
COUNT_ROWS = 512


class PredictionLine(msgspec.Struct, gc=False):
    """A scored row as a line of the log; `at` is in epoch seconds, `ms` the time from the request to the score."""

    id: str
    at: float
    version: str
    slot: str
    key: str | None
    time: str | None
    features: msgspec.Struct | msgspec.Raw
    score: float
    ms: float


class ScoredRow(msgspec.Struct, gc=False):
    """A row that was scored `ms` after its request came."""

    id: str
    row: EncodedRow
    score: float
    ms: float


class PendingRows:
    """Rows of one version that wait to be written: their lines, and their ids and numbers to be counted.

    Both are in memory maps, which go back to the system with this object: buffers of that size, made and freed four times a
    second, left holes in the heap, which grew.
    """

    __slots__ = ("encoded", "lines", "model", "scores")

    def __init__(self, model: ServableModel) -> None:
        self.model = model
        self.scores: list[float] = []
        self.lines, self.encoded = (mmap.mmap(-1, MAX_PENDING, flags=mmap.MAP_PRIVATE) for _ in range(2))


class PredictionWriter:
    """Writes scored rows to segments of `folder`, and counts their scores and values off the requests' path."""

    def __init__(self, folder: Path, slot: str, metrics: Metrics) -> None:
        self._segments, self._slot, self._metrics = SegmentWriter(folder), slot, metrics
        self._feature_counts, self._encoder = FeatureCounts(), msgspec.json.Encoder()
        metrics.register_renderer(self._feature_counts.render)
        self._pending: list[PendingRows] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, model: ServableModel, at: float, rows: Sequence[ScoredRow]) -> None:
        """Queue rows that were scored at epoch second `at`.

        Their lines are made here, because a thread that made them would keep the interpreter from the requests at every turn.
        """
        lines = self._encoder.encode_lines([self._line(model, at, row) for row in rows])
        encoded = b"".join([part for r in rows for part in (r.row.ids, r.row.numbers)])
        with self._lock:
            if not self._pending or self._pending[-1].model is not model:
                self._pending.append(PendingRows(model))
            pending = self._pending[-1]
            if max(pending.lines.tell() + len(lines), pending.encoded.tell() + len(encoded)) > MAX_PENDING:
                self._metrics.log_rows.inc(("lost",), len(rows))
                return
            pending.lines.write(lines)
            pending.encoded.write(encoded)
            pending.scores += [r.score for r in rows]

    def _line(self, model: ServableModel, at: float, scored: ScoredRow) -> PredictionLine:
        key, row_time, features = _describe(model, scored.row)
        return PredictionLine(
            scored.id, at, model.version, self._slot, key, row_time, features, scored.score, scored.ms
        )

    def close(self) -> None:
        """Write what waits, and stop."""
        self._stop.set()
        self._thread.join()
        self._segments.close()

    def _run(self) -> None:
        while not self._stop.wait(WRITE_INTERVAL):
            self._write_pending()
        self._write_pending()

    def _write_pending(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        for rows in pending:
            if lost := rows.lines[self._write_lines(rows.lines) : rows.lines.tell()].count(b"\n"):
                self._metrics.log_rows.inc(("lost",), lost)
            self._metrics.log_rows.inc(("written",), len(rows.scores) - lost)
            self._count(rows)

    def _write_lines(self, lines: mmap.mmap) -> int:
        """Return how many bytes were written: all, or those before the disk took no more. Later rows are tried again."""
        start = 0
        while start < lines.tell():
            end = lines.rfind(b"\n", start, start + WRITE_BYTES) + 1 or lines.find(b"\n", start) + 1
            try:
                self._segments.append(memoryview(lines)[start:end])
            except OSError:
                break
            start = end
        return start

    def _count(self, rows: PendingRows) -> None:
        encoding = rows.model.encoding
        fields = [("ids", np.int64, (len(encoding.categorical),)), ("numbers", np.float32, (len(encoding.numeric),))]
        encoded = np.frombuffer(rows.encoded, fields, len(rows.scores))
        for start in range(0, len(encoded), COUNT_ROWS):
            part = encoded[start : start + COUNT_ROWS]
            self._feature_counts.add(rows.model, part["ids"], part["numbers"])
        for score in rows.scores:
            self._metrics.scores.observe(score, (rows.model.version,))


def _describe(model: ServableModel, row: EncodedRow) -> tuple[str | None, str | None, msgspec.Struct | msgspec.Raw]:
    """Return the row's key, time and features; a row that came as tensors has features only."""
    if not row.values:
        return None, None, infer.decode_features(model, row)
    return model.rows.key(row), model.rows.time(row), model.rows.log_json(row)
