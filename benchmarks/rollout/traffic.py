"""Send requests to the gateway, and record the splits of traffic that it reports meanwhile."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from include.adapters.routers import haproxy
from include.domain.errors import Unavailable
from include.ports.traffic import Routes
from include.settings import ROOT, Settings


@contextmanager
def load(settings: Settings, bodies: Path, rate: float, planned: Sequence[Routes]) -> Iterator[dict[str, Any]]:
    """Send requests at that rate while the context lasts, none if it is 0, and yield the report, which is filled at the end.

    It is the report of `benchmarks/serving/load.py`, with the splits in their order and those that are not `planned`.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving.load",
        "--port",
        str(settings.gateway_port),
        "--bodies",
        str(bodies),
        "--seconds",
        "3600",
        "--rate",
        str(rate),
        "--connections",
        "32",
    ]
    report: dict[str, Any] = {}
    sender = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) if rate else None
    try:
        with _recorded_splits(settings) as splits:
            yield report
    finally:
        if sender:
            sender.terminate()
            report |= json.loads(sender.communicate(timeout=60)[0])
    report |= {"splits": " → ".join(map(_name_of, splits)), "unplanned": [str(s) for s in splits if s not in planned]}


def active_routes(settings: Settings) -> Routes:
    """Return the routes that the gateway serves now."""
    return replace(haproxy.router_of(settings), patience=0.0).active(settings.model)


@contextmanager
def _recorded_splits(settings: Settings) -> Iterator[list[Routes]]:
    """Yield a list to which each new split is added while the context lasts; a gateway that does not answer adds none."""
    splits: list[Routes] = []
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(0.1):
            with suppress(Unavailable, KeyError):
                if (routes := active_routes(settings)) not in splits[-1:]:
                    splits.append(routes)

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        yield splits
    finally:
        ended.set()
        poller.join()


def _name_of(routes: Routes) -> str:
    return "shadow" if routes.mirror else f"{routes.canary} %" if routes.canary else "stable"
