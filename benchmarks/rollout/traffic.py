"""Callers of the gateway, and the splits that it serves meanwhile by its own word."""

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
    """Requests at that rate while it lasts, none where it is 0.

    At its end there is the report of `benchmarks/serving/load.py`, with the splits in their order, and those that are not `planned`.
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
    seen: dict[str, Any] = {}
    sender = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) if rate else None
    try:
        with _followed(settings) as splits:
            yield seen
    finally:
        if sender:
            sender.terminate()
            seen |= json.loads(sender.communicate(timeout=60)[0])
    seen |= {"splits": " → ".join(map(_named, splits)), "unplanned": [str(s) for s in splits if s not in planned]}


def split(settings: Settings) -> Routes:
    """What the gateway serves now."""
    return replace(haproxy.router_of(settings), patience=0.0).active(settings.model)


@contextmanager
def _followed(settings: Settings) -> Iterator[list[Routes]]:
    """Each split as it comes; a gateway that does not answer serves none."""
    splits: list[Routes] = []
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.1):
            with suppress(Unavailable, KeyError):
                if (now := split(settings)) not in splits[-1:]:
                    splits.append(now)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield splits
    finally:
        over.set()
        follower.join()


def _named(routes: Routes) -> str:
    return "shadow" if routes.mirror else f"{routes.canary} %" if routes.canary else "stable"
