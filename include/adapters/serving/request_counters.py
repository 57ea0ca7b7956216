"""Requests as the model servers count them, each server by itself, and those that the gateway could not get answered.

A server that goes takes its counter along, and one that is started anew begins at 0. So what each added since the last
reading is summed up in a file, and the sum never falls; what a server answers after its last reading is not counted.
"""

import fcntl
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from include.adapters.serving import addresses
from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Unavailable, UserMistake
from include.domain.rollout.variants import RequestCounts

REQUESTS, SECONDS = "perennial_requests_total", "perennial_request_seconds"
#: The routes that score rows; probes and pages do not count.
SCORING_ROUTES = ("/predict", "/infer")
#: The lowest status that is an error of the service.
FIRST_ERROR = 500
#: By server, on HAProxy's page: tries that were made again at another server, and requests that no try got answered.
GATEWAY_FAILURES = (
    "haproxy_server_redispatch_warnings_total",
    "haproxy_server_connection_errors_total",
    "haproxy_server_response_errors_total",
)

SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Sample = tuple[str, dict[str, str], float]


class ServerReading(NamedTuple):
    """The counters of one server: its own of requests, errors and slow answers, and the gateway's of failed tries."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    failed_tries: int = 0

    def plus(self, other: "ServerReading") -> "ServerReading":
        """Return the sum of both."""
        return ServerReading(*(a + b for a, b in zip(self, other, strict=True)))

    def since(self, earlier: "ServerReading") -> "ServerReading":
        """Return what was counted since an earlier reading; a counter that fell has started anew, from 0."""
        if any(now < before for now, before in zip(self, earlier, strict=True)):
            return self
        return ServerReading(*(now - before for now, before in zip(self, earlier, strict=True)))


@dataclass
class RequestTotals:
    """What the file holds: the last reading of each server, by its slot and URL, and the sums of each slot."""

    readings: dict[str, ServerReading]
    slots: dict[str, RequestCounts]

    @classmethod
    def from_file(cls, path: Path) -> "RequestTotals":
        """Return the totals in the file; none before the first. Readings of old releases lack the failed tries."""
        content = json.loads(path.read_text()) if path.exists() else {"pods": {}, "sums": {}}
        readings = {server: ServerReading(*numbers) for server, numbers in content["pods"].items()}
        return cls(readings, {slot: RequestCounts(*numbers) for slot, numbers in content["sums"].items()})

    def save(self, path: Path) -> None:
        """Replace the file by these totals."""
        write_atomically(path, json.dumps({"pods": self.readings, "sums": self.slots}))

    def add(self, url: str, by_slot: Mapping[str, ServerReading]) -> dict[str, ServerReading]:
        """Take in what one page shows, and return what it added by slot since its last reading."""
        added = {}
        for slot, reading in by_slot.items():
            server = f"{slot} {url}"
            added[slot] = reading.since(self.readings.get(server, ServerReading()))
            self.readings[server] = reading
        return added

    def count(self, slot: str, added: ServerReading) -> None:
        """Add to a slot's sums what its servers and the gateway counted together.

        The gateway also tries again when a server has answered with an error, which that server has counted itself.
        """
        unanswered = max(0, added.failed_tries - added.errors)
        new = RequestCounts(added.requests + unanswered, added.errors + unanswered, added.slow)
        self.slots[slot] = self.slots.get(slot, RequestCounts()).plus(new)


@dataclass(frozen=True)
class RequestCounters:
    """Counts a model's requests by slot; `urls` are each slot's names, behind each any number of servers.

    `folder` holds the sums. `gateway` is the URL of an HAProxy whose servers are named after their slots (`canary`,
    `canary-2`); None on a cluster.
    """

    urls: Mapping[str, Sequence[str]]
    folder: Path
    gateway: str | None = None

    def request_counts(self, model: str, slow_ms: float) -> Mapping[str, RequestCounts]:
        """Return the sums of each slot since the first reading.

        Raises Unavailable while no server answers, UserMistake for a `slow_ms` that is no bound of their histogram.
        """
        pages = {url: page for names in self.urls.values() for name in names for url, page in _pages(name, model)}
        if not pages:
            raise Unavailable(f"{model}: no model server answers")
        readings = {url: server_readings(page, slow_ms) for url, page in pages.items()}
        # Read last: a failed try that the server answered is on its own page by then.
        if self.gateway and (page := _page(self.gateway)):
            readings[self.gateway] = failed_tries(page)
        with self._totals(model, slow_ms) as totals:
            added: dict[str, ServerReading] = defaultdict(ServerReading)
            for url, by_slot in readings.items():
                for slot, reading in totals.add(url, by_slot).items():
                    added[slot] = added[slot].plus(reading)
            for slot, reading in added.items():
                totals.count(slot, reading)
            return dict(sorted(totals.slots.items()))

    @contextmanager
    def _totals(self, model: str, slow_ms: float) -> Iterator[RequestTotals]:
        """Yield what was counted so far and write it back at the end; one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{model}-{slow_ms:g}.json"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            totals = RequestTotals.from_file(path)
            yield totals
            totals.save(path)


def server_readings(page: str, slow_ms: float) -> dict[str, ServerReading]:
    """Return the counters by slot from the text of a model server's `/metrics` page.

    Raises UserMistake for a `slow_ms` that is no bound of the histogram.
    """
    requests: dict[str, float] = defaultdict(float)
    errors: dict[str, float] = defaultdict(float)
    slow: dict[str, float] = defaultdict(float)
    bounds: set[float] = set()
    for name, labels, value in samples(page):
        if not labels.get("route", "").endswith(SCORING_ROUTES):
            continue
        slot = labels["slot"]
        if name == REQUESTS:
            requests[slot] += value
            errors[slot] += value * (int(labels["code"]) >= FIRST_ERROR)
        elif name == f"{SECONDS}_count":
            slow[slot] += value
        elif name == f"{SECONDS}_bucket":
            bounds.add(float(labels["le"]))
            slow[slot] -= value * (float(labels["le"]) == slow_ms / 1000)
    if bounds and slow_ms / 1000 not in bounds:
        choices = ", ".join(f"{1000 * b:g}" for b in sorted(bounds) if b != float("inf"))
        raise UserMistake(f"slow_ms: {slow_ms:g} is no bound of the servers' histogram; there are {choices} ms")
    slots = {**requests, **slow}
    return {slot: ServerReading(int(requests[slot]), int(errors[slot]), int(slow[slot])) for slot in slots}


def failed_tries(page: str) -> dict[str, ServerReading]:
    """Return the gateway's failed tries by slot from the text of HAProxy's page."""
    tries: dict[str, int] = defaultdict(int)
    for name, labels, value in samples(page):
        if name in GATEWAY_FAILURES:
            tries[labels["server"].partition("-")[0]] += int(value)
    return {slot: ServerReading(failed_tries=count) for slot, count in tries.items()}


def samples(page: str) -> Iterator[Sample]:
    """Yield name, labels and value of each line of a page in Prometheus' text format."""
    for name, labels, value in SAMPLE.findall(page):
        yield name, dict(LABEL.findall(labels)), float(value)


def _pages(name: str, model: str) -> Iterator[tuple[str, str]]:
    """Yield the pages of the servers that answer; one that does not is not counted until it does."""
    try:
        urls = addresses.resolve(name, model)
    except Unavailable:
        return
    for url in urls:
        if page := _page(url):
            yield url, page


def _page(url: str) -> str | None:
    try:
        response = httpx.get(f"{url}/metrics", timeout=2.0, trust_env=False)
    except httpx.TransportError:
        return None
    return response.text if response.is_success else None
