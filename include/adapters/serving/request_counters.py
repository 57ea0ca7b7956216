"""Requests as the model servers count them, each server followed by itself, and those that the gateway could not get answered.

A server that goes takes its counter along, and one that is started anew begins at 0. So what each added since the last
reading is summed up in a file, and the sum never falls; what a server answers after its last reading is not seen.
"""

import fcntl
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from include.adapters.serving import addresses
from include.artifacts.files import write_atomically
from include.domain.errors import Unavailable, UserMistake
from include.ports.traffic import ArmCounts

REQUESTS, SECONDS = "perennial_requests_total", "perennial_request_seconds"
#: The routes that score rows; probes and pages do not count.
SCORING = ("/predict", "/infer")
#: Answers that are the service's fault.
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
#: Requests, errors and slow answers of a slot's servers, and the gateway's failures with it.
Counted = dict[str, list[int]]


@dataclass(frozen=True)
class RequestCounters:
    """`urls` are each slot's names, behind each any number of servers; `folder` holds the sums.

    `gateway` is the page of an HAProxy whose servers are named after their slots (`canary`, `canary-2`); none on a cluster.
    """

    urls: Mapping[str, Sequence[str]]
    folder: Path
    gateway: str | None = None

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """Raises Unavailable while no server answers, UserMistake for a `slow_ms` that is no bound of their histogram."""
        pages = {url: page for names in self.urls.values() for name in names for url, page in _pages(name, model)}
        if not pages:
            raise Unavailable(f"{model}: no model server answers")
        now = {url: counted(page, slow_ms) for url, page in pages.items()}
        # Read last: a failed try that the server answered is on its own page by then.
        if self.gateway and (page := _page(self.gateway)):
            now[self.gateway] = failures(page)
        with self._sums(model, slow_ms) as kept:
            added: Counted = defaultdict(lambda: [0, 0, 0, 0])
            for url, arms in now.items():
                for slot, seen in arms.items():
                    # A file from before failures were counted holds three numbers a server.
                    before = [*kept["pods"].get(f"{slot} {url}", []), 0, 0, 0, 0][:4]
                    if any(new < old for new, old in zip(seen, before, strict=True)):
                        before = [0, 0, 0, 0]
                    added[slot] = [t + new - old for t, new, old in zip(added[slot], seen, before, strict=True)]
                    kept["pods"][f"{slot} {url}"] = seen
            for slot, (requests, errors, slow, failed) in added.items():
                # The gateway makes a try again too when the server answered with an error, which that counted itself.
                unseen = max(0, failed - errors)
                new = (requests + unseen, errors + unseen, slow)
                kept["sums"][slot] = [t + n for t, n in zip(kept["sums"].get(slot, [0, 0, 0]), new, strict=True)]
            return {slot: ArmCounts(*sums) for slot, sums in sorted(kept["sums"].items())}

    @contextmanager
    def _sums(self, model: str, slow_ms: float) -> Iterator[dict[str, Any]]:
        """What was counted so far, written back at the end; one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{model}-{slow_ms:g}.json"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = json.loads(path.read_text()) if path.exists() else {"pods": {}, "sums": {}}
            yield kept
            write_atomically(path, json.dumps(kept))


def counted(page: str, slow_ms: float) -> Counted:
    """By slot, from the text of a model server's `/metrics` page."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    bounds: set[float] = set()
    for name, labels, value in samples(page):
        if not labels.get("route", "").endswith(SCORING):
            continue
        arm = sums[labels["slot"]]
        if name == REQUESTS:
            arm[0] += value
            arm[1] += value * (int(labels["code"]) >= FIRST_ERROR)
        elif name == f"{SECONDS}_count":
            arm[2] += value
        elif name == f"{SECONDS}_bucket":
            bounds.add(float(labels["le"]))
            arm[2] -= value * (float(labels["le"]) == slow_ms / 1000)
    if bounds and slow_ms / 1000 not in bounds:
        known = ", ".join(f"{1000 * b:g}" for b in sorted(bounds) if b != float("inf"))
        raise UserMistake(f"slow_ms: {slow_ms:g} is no bound of the servers' histogram; there are {known} ms")
    return {slot: [int(value) for value in arm] for slot, arm in sums.items()}


def failures(page: str) -> Counted:
    """By slot, from the text of HAProxy's page."""
    sums: Counted = defaultdict(lambda: [0, 0, 0, 0])
    for name, labels, value in samples(page):
        if name in GATEWAY_FAILURES:
            sums[labels["server"].partition("-")[0]][3] += int(value)
    return sums


def samples(page: str) -> Iterator[Sample]:
    """Name, labels and value of each line of a page in Prometheus' text format."""
    for name, labels, value in SAMPLE.findall(page):
        yield name, dict(LABEL.findall(labels)), float(value)


def _pages(name: str, model: str) -> Iterator[tuple[str, str]]:
    """The pages of the servers that answer; one that does not is not counted until it does."""
    try:
        urls = addresses.resolve(name, model)
    except Unavailable:
        return
    for url in urls:
        if page := _page(url):
            yield url, page


def _page(url: str) -> str | None:
    try:
        answer = httpx.get(f"{url}/metrics", timeout=2.0, trust_env=False)
    except httpx.TransportError:
        return None
    return answer.text if answer.is_success else None
