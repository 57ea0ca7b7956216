"""Callers of the gateway, and the splits that it serves meanwhile by its own word."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from include.adapters import traefik
from include.ports import Routes
from include.settings import ROOT, Settings


@contextmanager
def load(settings: Settings, bodies: Path, rate: float, planned: Sequence[Routes]) -> Iterator[dict[str, Any]]:
    """Requests at that rate while it lasts, none where it is 0.

    At its end there is the report of `benchmarks/load.py`, with the splits in their order, and those that are not `planned`.
    """
    command = [sys.executable, "-m", "benchmarks.load", "--port", str(settings.gateway_port), "--bodies", str(bodies),
               "--seconds", "3600", "--rate", str(rate), "--connections", "32"]  # fmt: skip
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
    """What the gateway serves now; the split is asked first, so that it and the mirror are never of a step and the one before."""
    model = settings.model
    with httpx.Client(base_url=f"{settings.gateway_admin_url}/api/http", timeout=2, trust_env=False) as api:
        services = {f"{model}-split": api.get(f"/services/{model}-split@file").raise_for_status().json()}
        routers = {model: api.get(f"/routers/{model}@file").raise_for_status().json()}
    return traefik.routes_of(model, {"services": services, "routers": routers})


@contextmanager
def _followed(settings: Settings) -> Iterator[list[Routes]]:
    """Each split as it comes; a gateway that does not answer serves none."""
    splits: list[Routes] = []
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.1):
            with suppress(httpx.HTTPError, KeyError):
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
