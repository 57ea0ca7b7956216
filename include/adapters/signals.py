"""What production shows: the gateway's counters, and the prediction log, in segments and compacted."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from include.adapters.segments import FEEDBACK, PREDICTIONS, SCHEMAS, Segments
from include.domain.errors import Unavailable, UserMistake
from include.domain.windows import Window, parse
from include.ports import ArmCounts, Tables

REQUESTS = "traefik_service_requests_total"
DURATIONS = "traefik_service_request_duration_seconds"
#: Answers that are the service's fault.
FIRST_ERROR = 500

#: A window that holds a time starts at most so long before it.
LONGEST_WINDOW = timedelta(days=1)

SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Sample = tuple[str, dict[str, str], float]


class ProductionSignals:
    """`segments` are what the servers write, `tables` opens a model's tables, in which finished segments end."""

    def __init__(self, gateway_admin_url: str, segments: Segments, tables: Callable[[str], Tables]) -> None:
        self._url = f"{gateway_admin_url}/metrics"
        self._segments, self._tables = segments, tables

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """`slow_ms` must be a bound of the gateway's histogram. Raises Unavailable; UserMistake for another one."""
        try:
            answer = httpx.get(self._url, timeout=5.0).raise_for_status()
        except httpx.HTTPError as fault:
            raise Unavailable(f"the gateway's metrics at {self._url}: {fault}") from fault
        return counts(answer.text, model, slow_ms)

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Predictions made (`at`) from `since` on, the compacted ones first; segments that ended before are not opened."""
        rows = self._rows(model, PREDICTIONS, since)
        return rows if since is None else rows.filter(pc.greater_equal(rows["at"], since.timestamp()))

    def feedback(self, model: str) -> pa.Table:
        """Labels that callers sent back: `id` of the prediction's line or `key`, and `label`, the compacted ones first."""
        return self._rows(model, FEEDBACK, None).select(["id", "key", "label"])

    def stamp(self, model: str) -> str:
        """When a segment was last written to, or went into the table."""
        return f"{self._segments.written(model):.6f}, compacted {self._tables(model).version(PREDICTIONS)}"

    def _rows(self, model: str, kind: str, since: datetime | None) -> pa.Table:
        """The segments are read before the table, so that one compacted meanwhile is in either or in both, never in none."""
        names = self._segments.names(model, kind, since.timestamp() if since else float("-inf"))
        opened = [self._segments.read(model, kind, name) for name in names]
        tables = self._tables(model)
        labels = [name for name in tables.windows(kind) if since is None or parse(name) >= since - LONGEST_WINDOW]
        windows = [Window(parse(name), parse(name) + LONGEST_WINDOW) for name in labels]
        columns = SCHEMAS[kind].names
        kept = [tables.read(kind, windows, columns=columns)] if windows else []
        held = pa.array([name for name, rows in zip(names, opened, strict=True) if len(rows)], pa.string())
        kept = [rows.filter(pc.invert(pc.is_in(rows["segment"], held))).cast(SCHEMAS[kind]) for rows in kept]
        return pa.concat_tables([*kept, *opened, SCHEMAS[kind].empty_table()])


def counts(metrics: str, model: str, slow_ms: float) -> dict[str, ArmCounts]:
    """Per slot, from the text of a `/metrics` page of Traefik."""
    service = re.compile(rf"{re.escape(model)}-(stable|canary)@")
    requests, errors, measured, fast = (defaultdict[str, float](float) for _ in range(4))
    bounds: set[float] = set()
    for name, labels, value in samples(metrics):
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


def samples(metrics: str) -> Iterator[Sample]:
    """Name, labels and value of each line of a page in Prometheus' text format."""
    for name, labels, value in SAMPLE.findall(metrics):
        yield name, dict(LABEL.findall(labels)), float(value)
