"""Signals of a cluster: requests as the model servers count them, each pod followed by itself.

A pod that goes takes its counter along, and a container that is started anew begins at 0. So what each pod added since the
last reading is summed up in a file, and the sum never falls; what a pod answers after its last reading is not seen.
"""

import fcntl
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from include.adapters import addresses
from include.adapters.signals import FIRST_ERROR, ProductionSignals, samples
from include.domain.errors import Unavailable, UserMistake
from include.ports import ArmCounts

REQUESTS, SECONDS = "perennial_requests_total", "perennial_request_seconds"
#: The routes that score rows; probes and pages do not count.
SCORING = ("/predict", "/infer")


class ServedSignals(ProductionSignals):
    """`urls` are each slot's names, behind each any number of servers; `folder` holds the sums."""

    def __init__(self, urls: Mapping[str, Sequence[str]], folder: Path, *log: Any) -> None:
        super().__init__("", *log)
        self._urls, self._folder = urls, folder

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """Raises Unavailable while no server answers, UserMistake for a `slow_ms` that is no bound of their histogram."""
        pages = {url: page for names in self._urls.values() for name in names for url, page in _pages(name, model)}
        if not pages:
            raise Unavailable(f"{model}: no model server answers")
        now = {url: counted(page, slow_ms) for url, page in pages.items()}
        with self._sums(model, slow_ms) as kept:
            for url, arms in now.items():
                for slot, seen in arms.items():
                    before = kept["pods"].get(f"{slot} {url}", [0, 0, 0])
                    if seen[0] < before[0]:
                        before = [0, 0, 0]
                    kept["sums"][slot] = [
                        total + new - old
                        for total, new, old in zip(kept["sums"].get(slot, [0, 0, 0]), seen, before, strict=True)
                    ]
                    kept["pods"][f"{slot} {url}"] = seen
            return {slot: ArmCounts(*sums) for slot, sums in sorted(kept["sums"].items())}

    @contextmanager
    def _sums(self, model: str, slow_ms: float) -> Iterator[dict[str, Any]]:
        """What was counted so far, written back at the end; one process at a time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{model}-{slow_ms:g}.json"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = json.loads(path.read_text()) if path.exists() else {"pods": {}, "sums": {}}
            yield kept
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(kept))
            draft.replace(path)


def counted(page: str, slow_ms: float) -> dict[str, list[int]]:
    """Requests, errors and slow answers by slot, from the text of a model server's `/metrics` page."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
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


def _pages(name: str, model: str) -> Iterator[tuple[str, str]]:
    """The pages of the servers that answer; one that does not is not counted until it does."""
    try:
        urls = addresses.each(name, model)
    except Unavailable:
        return
    for url in urls:
        try:
            answer = httpx.get(f"{url}/metrics", timeout=2.0, trust_env=False)
        except httpx.TransportError:
            continue
        if answer.is_success:
            yield url, answer.text
