"""The model servers' segments: files of JSON lines, read as tables. What is no line (one half-written) is skipped."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from include.domain.features.encoding import as_time

log = logging.getLogger(__name__)

PREDICTIONS, FEEDBACK = "predictions", "feedback"
#: The columns of each kind; `segment` is the file's `<slot>/<name>`.
SCHEMAS = {
    PREDICTIONS: pa.schema([
        ("id", pa.string()), ("at", pa.float64()), ("time", pa.timestamp("us", "UTC")), ("version", pa.string()),
        ("slot", pa.string()), ("mode", pa.string()), ("key", pa.string()), ("score", pa.float64()),
        ("ms", pa.float64()), ("features", pa.string()), ("segment", pa.string()),
    ]),
    FEEDBACK: pa.schema([
        ("id", pa.string()), ("key", pa.string()), ("label", pa.float64()), ("at", pa.float64()),
        ("segment", pa.string()),
    ]),
}  # fmt: skip
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
    """One label as a server was told it."""

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
    """`folder` holds `<model>/<slot>/<start epoch ms>-<pid>.jsonl`; labels lie in `<model>/feedback/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, model: str, kind: str, since: float = float("-inf")) -> list[str]:
        """Segments written to since then (epoch seconds), oldest first."""
        found = [
            path
            for path in self._folder.glob(f"{model}/*/*.jsonl")
            if (path.parent.name == FEEDBACK) == (kind == FEEDBACK)
        ]
        recent = [path for path in found if _written(path) >= since]
        return [f"{path.parent.name}/{path.name}" for path in sorted(recent, key=lambda path: path.name)]

    def written(self, model: str) -> float:
        """When the newest line was written, epoch seconds; -inf before the first."""
        return max(map(_written, self._folder.glob(f"{model}/*/*.jsonl")), default=float("-inf"))

    def finished(self, model: str, kind: str, now: datetime) -> list[str]:
        last = (now - FINISHED_AFTER).timestamp() * 1000
        return [name for name in self.names(model, kind) if _start(name) < last]

    def read(self, model: str, kind: str, segment: str) -> pa.Table:
        """Its lines; none when it has been removed meanwhile, which happens once they are in the table."""
        lines = self._lines(self._folder / model / segment, DECODERS[kind])
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(line, name) for line in lines] for name in SCHEMAS[kind].names[:-1]
        }
        if kind == PREDICTIONS:
            columns["time"] = [_time(at) for at in columns["time"]]
            columns["features"] = [bytes(raw).decode() for raw in columns["features"]]
        return pa.table({**columns, "segment": [segment] * len(lines)}, schema=SCHEMAS[kind])

    def remove(self, model: str, segment: str) -> None:
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
    except msgspec.DecodeError as fault:
        log.warning("%s line %d is skipped: %s", path, number, fault)
        return None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _start(segment: str) -> float:
    """Epoch milliseconds; infinite where the name says none, so that such a file stays."""
    start = segment.rsplit("/", 1)[1].partition("-")[0]
    return float(start) if start.isdigit() else float("inf")


def _time(text: object) -> datetime | None:
    """None for what is no time: such a prediction cannot be joined with its label."""
    try:
        return None if text is None else as_time(text)
    except ValueError:
        return None
