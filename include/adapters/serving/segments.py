"""The segments of the prediction log: files of JSON lines, read as tables; a line that cannot be read is skipped."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from include.domain.features.times import as_time

log = logging.getLogger(__name__)

PREDICTIONS, FEEDBACK = "predictions", "feedback"
#: The columns of each kind; `segment` is the file's `<slot>/<name>`.
SCHEMAS = {
    PREDICTIONS: pa.schema(
        {
            "id": pa.string(),
            "at": pa.float64(),
            "time": pa.timestamp("us", "UTC"),
            "version": pa.string(),
            "slot": pa.string(),
            "mode": pa.string(),
            "key": pa.string(),
            "score": pa.float64(),
            "ms": pa.float64(),
            "features": pa.string(),
            "segment": pa.string(),
        }
    ),
    FEEDBACK: pa.schema(
        {
            "id": pa.string(),
            "key": pa.string(),
            "label": pa.float64(),
            "at": pa.float64(),
            "segment": pa.string(),
        }
    ),
}
#: A server begins another segment ten minutes after it began one; its clock may be a little behind.
FINISHED_AFTER = timedelta(minutes=15)


class LoggedPrediction(msgspec.Struct):
    """One prediction as a server logs it."""

    id: str
    at: float
    version: str
    slot: str
    score: float
    key: str | None = None
    time: str | float | None = None
    mode: str | None = None
    ms: float | None = None
    features: msgspec.Raw = msgspec.Raw(b"{}")


class LoggedLabel(msgspec.Struct):
    """One label as a server logs it, for the prediction with this `id` or `key`."""

    label: int
    at: float = 0.0
    id: str | None = None
    key: str | None = None


T = TypeVar("T")
DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    PREDICTIONS: msgspec.json.Decoder(LoggedPrediction, strict=False),
    FEEDBACK: msgspec.json.Decoder(LoggedLabel, strict=False),
}


class LogSegments:
    """Implements `ports.traffic.PredictionLog` on the files that the model servers write."""

    def __init__(self, folder: Path) -> None:
        """Read `<folder>/<model>/<slot>/<start epoch ms>-<pid>.jsonl`; labels lie in `<folder>/<model>/feedback/`."""
        self._folder = folder

    def names(self, model: str, kind: str, since: float = float("-inf")) -> list[str]:
        """Return the segments written to since then (epoch seconds), oldest first."""
        paths = [
            p for p in self._folder.glob(f"{model}/*/*.jsonl") if (p.parent.name == FEEDBACK) == (kind == FEEDBACK)
        ]
        recent = [path for path in paths if _written_at(path) >= since]
        return [f"{path.parent.name}/{path.name}" for path in sorted(recent, key=lambda path: path.name)]

    def written_at(self, model: str) -> float:
        """Return when the newest line was written, in epoch seconds; -inf before the first."""
        return max(map(_written_at, self._folder.glob(f"{model}/*/*.jsonl")), default=float("-inf"))

    def finished(self, model: str, kind: str, now: datetime) -> list[str]:
        """Return the segments to which no server writes any more, oldest first."""
        started_before = (now - FINISHED_AFTER).timestamp() * 1000
        return [name for name in self.names(model, kind) if _start(name) < started_before]

    def read(self, model: str, kind: str, segment: str) -> pa.Table:
        """Return the segment's lines; none when it has been removed meanwhile, which happens once they are in the table."""
        lines = self._lines(self._folder / model / segment, DECODERS[kind])
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(line, name) for line in lines] for name in SCHEMAS[kind].names[:-1]
        }
        if kind == PREDICTIONS:
            columns["time"] = [_time(at) for at in columns["time"]]
            columns["features"] = [bytes(raw).decode() for raw in columns["features"]]
        return pa.table({**columns, "segment": [segment] * len(lines)}, schema=SCHEMAS[kind])

    def remove(self, model: str, segment: str) -> None:
        """Remove the segment where it is still there."""
        (self._folder / model / segment).unlink(missing_ok=True)

    def _lines(self, path: Path, decoder: "msgspec.json.Decoder[T]") -> list[T]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            return decoder.decode_lines(data)
        except msgspec.DecodeError:
            lines = (_line(path, number, text, decoder) for number, text in enumerate(data.splitlines(), 1))
            return [line for line in lines if line is not None]


def _line(path: Path, number: int, text: bytes, decoder: "msgspec.json.Decoder[T]") -> T | None:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        log.warning("%s line %d is skipped: %s", path, number, error)
        return None


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _start(segment: str) -> float:
    """Return the start in epoch milliseconds; infinite where the name has none, so that such a file stays."""
    start = segment.rsplit("/", 1)[1].partition("-")[0]
    return float(start) if start.isdigit() else float("inf")


def _time(text: object) -> datetime | None:
    """Return the time; None for what is none, since such a prediction cannot be joined with its label."""
    try:
        return None if text is None else as_time(text)
    except ValueError:
        return None
