"""Model servers, alone or behind the gateway at 90/10, as `bench-serve` drives them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx
import psutil

from include.adapters.routers.haproxy import router_of, write_configuration
from include.local.cpu_affinity import pinned
from include.ports.traffic import Routes
from include.settings import ROOT, SLOTS, Settings, sockets_of

SETTINGS = Settings(gateway_port=19088, gateway_admin_port=19089, stable_port=19001, canary_port=19002)
#: Of a slot's server of that name at that port.
Command = Callable[[Settings, str, str, int], list[str]]


@contextmanager
def program(*command: str) -> Iterator[psutil.Process]:
    process = psutil.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def server(settings: Settings, slot: str, name: str, port: int) -> list[str]:
    """A model server's command."""
    return [
        sys.executable,
        "-m",
        "include.server",
        "--slot",
        slot,
        "--model",
        "flights",
        "--drain",
        "0",
        "--artifact",
        str(settings.home / "artifact" / "manifest.json"),
        "--store",
        str(settings.home / "online"),
        "--port",
        str(port),
        "--socket",
        str(settings.slot_sockets(slot)[name]),
        "--log",
        str(settings.predictions),
    ]


def hollow(settings: Settings, slot: str, name: str, port: int) -> list[str]:
    """A server's in its place that does nothing: what the gateway and the callers leave of the machine."""
    return [
        sys.executable,
        "-m",
        "benchmarks.serving.constant_server",
        str(port),
        str(settings.slot_sockets(slot)[name]),
    ]


@contextmanager
def servers(settings: Settings, slots: Sequence[str], command: Command) -> Iterator[dict[str, list[psutil.Process]]]:
    """The slots' servers, ready, by name."""
    with ExitStack() as running:
        running.callback(lambda: [path.unlink() for path in sockets_of(settings.home)])
        started = {}
        for slot in slots:
            for name, port in settings.slot_servers(slot).items():
                started[name] = [
                    running.enter_context(program(*pinned(settings, name), *command(settings, slot, name, port)))
                ]
                ready(f"http://{settings.host}:{port}/v2/health/ready")
        yield started


@contextmanager
def stack(settings: Settings, command: Command) -> Iterator[dict[str, list[psutil.Process]]]:
    """Both slots ready and the gateway splitting 90/10."""
    with servers(settings, SLOTS, command) as started, ExitStack() as running:
        started["gateway"] = [
            running.enter_context(program(*pinned(settings, "gateway"), *write_configuration(settings)))
        ]
        router_of(settings).apply("flights", Routes(canary=10))
        ready(f"{settings.gateway_url}/v2/health/ready")
        yield started


def ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} does not become ready")
        time.sleep(0.1)
