"""What production shows: the gateway's counters and the servers' prediction segments."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
import pyarrow as pa

from include.domain.encoding import as_time
from include.domain.errors import Unavailable, UserMistake
from include.ports import ArmCounts

log = logging.getLogger(__name__)

REQUESTS = "traefik_service_requests_total"
DURATIONS = "traefik_service_request_duration_seconds"
#: Answers that are the service's fault.
FIRST_ERROR = 500

SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Sample = tuple[str, dict[str, str], float]

SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("at", pa.float64()), ("time", pa.timestamp("us", "UTC")), ("version", pa.string()),
        ("slot", pa.string()), ("mode", pa.string()), ("key", pa.string()), ("score", pa.float64()),
        ("ms", pa.float64()), ("features", pa.string()),
    ]
)  # fmt: skip


LABELLED = pa.schema([("id", pa.string()), ("key", pa.string()), ("label", pa.float64())])
#: The folder, beside those of the slots, in which the servers keep labels.
FEEDBACK = "feedback"


class Line(msgspec.Struct):
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


class Label(msgspec.Struct):
    """One label as a server was told it."""

    label: int
    id: str | None = None
    key: str | None = None


T = TypeVar("T")
DECODER = msgspec.json.Decoder(Line, strict=False)
LABELS = msgspec.json.Decoder(Label, strict=False)


class ProductionSignals:
    def __init__(self, gateway_admin_url: str, predictions: Path) -> None:
        self._url = f"{gateway_admin_url}/metrics"
        self._folder = predictions

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """`slow_ms` must be a bound of the gateway's histogram. Raises Unavailable; UserMistake for another one."""
        try:
            answer = httpx.get(self._url, timeout=5.0).raise_for_status()
        except httpx.HTTPError as fault:
            raise Unavailable(f"the gateway's metrics at {self._url}: {fault}") from fault
        return counts(answer.text, model, slow_ms)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Predictions made (`at`) from `since` on, oldest segment first; segments that ended before are not opened."""
        columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
        start = since.timestamp() if since else float("-inf")
        for segment in self._segments(model, lambda folder: folder != FEEDBACK):
            if segment.stat().st_mtime < start:
                continue
            lines = [line for line in _decoded(segment, DECODER) if line.at >= start]
            for name in SCHEMA.names[:-1]:
                columns[name] += [getattr(line, name) for line in lines]
            columns["features"] += [bytes(line.features).decode() for line in lines]
        columns["time"] = [_time(t) for t in columns["time"]]
        return pa.table(columns, schema=SCHEMA)

    def feedback(self, model: str) -> pa.Table:
        """Labels that callers sent back: `id` of the prediction's line or `key`, and `label`, oldest first."""
        lines = [
            line
            for segment in self._segments(model, lambda folder: folder == FEEDBACK)
            for line in _decoded(segment, LABELS)
        ]
        rows = {name: [getattr(line, name) for line in lines] for name in LABELLED.names}
        return pa.table(rows, schema=LABELLED)

    def _segments(self, model: str, wanted: Callable[[str], bool]) -> list[Path]:
        """Oldest first."""
        found = self._folder.glob(f"{model}/*/*.jsonl")
        return sorted((path for path in found if wanted(path.parent.name)), key=lambda path: path.name)


def counts(metrics: str, model: str, slow_ms: float) -> dict[str, ArmCounts]:
    """Per slot, from the text of a `/metrics` page of Traefik."""
    service = re.compile(rf"{re.escape(model)}-(stable|canary)@")
    requests, errors, measured, fast = (defaultdict[str, float](float) for _ in range(4))
    bounds: set[float] = set()
    for name, labels, value in _samples(metrics):
        found = service.match(labels.get("service", ""))
        if not found:
            continue
        slot = found[1]
        if name == REQUESTS:
            requests[slot] += value
            errors[slot] += value * (int(labels["code"]) >= FIRST_ERROR)
        elif name == f"{DURATIONS}_count":
            measured[slot] += value
        elif name == f"{DURATIONS}_bucket":
            bounds.add(float(labels["le"]))
            fast[slot] += value * (float(labels["le"]) == slow_ms / 1000)
    if bounds and slow_ms / 1000 not in bounds:
        known = ", ".join(f"{1000 * b:g}" for b in sorted(bounds) if b != float("inf"))
        raise UserMistake(f"slow_ms: {slow_ms:g} is no bound of the gateway's histogram; there are {known} ms")
    return {s: ArmCounts(int(requests[s]), int(errors[s]), int(measured[s] - fast[s])) for s in sorted(requests)}


def _samples(metrics: str) -> Iterator[Sample]:
    for name, labels, value in SAMPLE.findall(metrics):
        yield name, dict(LABEL.findall(labels)), float(value)


def _decoded(segment: Path, decoder: "msgspec.json.Decoder[T]") -> list[T]:
    """The segment's lines. What is none (a line half-written) is skipped with a note."""
    data = segment.read_bytes()
    try:
        return decoder.decode_lines(data)
    except msgspec.DecodeError:
        lines = (_line(segment, number, text, decoder) for number, text in enumerate(data.splitlines(), 1))
        return [line for line in lines if line is not None]


def _line(segment: Path, number: int, text: bytes, decoder: "msgspec.json.Decoder[T]") -> T | None:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as fault:
        log.warning("%s line %d is skipped: %s", segment, number, fault)
        return None


def _time(text: object) -> datetime | None:
    """None for what is no time: such a prediction cannot be joined with its label."""
    try:
        return None if text is None else as_time(text)
    except ValueError:
        return None
