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
#: Makes the command line of one server from the settings, its slot, its name and its port.
ServerCommand = Callable[[Settings, str, str, int], list[str]]
#: Processes by what they do: a server by its name, or the gateway.
Processes = dict[str, list[psutil.Process]]


@contextmanager
def running_program(*command: str) -> Iterator[psutil.Process]:
    """Yield the running program, and stop it by SIGTERM at the end."""
    process = psutil.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def model_server(settings: Settings, slot: str, name: str, port: int) -> list[str]:
    """Return the command of a model server of the bench's artifact; see ServerCommand."""
    home, socket = settings.home, settings.slot_sockets(slot)[name]
    program = [sys.executable, "-m", "include.server", "--slot", slot, "--model", "flights", "--drain", "0"]
    artifact = ["--artifact", str(home / "artifact" / "manifest.json"), "--store", str(home / "online")]
    return [*program, *artifact, "--port", str(port), "--socket", str(socket), "--log", str(settings.predictions)]


def constant_server(settings: Settings, slot: str, name: str, port: int) -> list[str]:
    """Return the command of a server that does nothing, to measure what gateway and callers leave; see ServerCommand."""
    return [
        sys.executable,
        "-m",
        "benchmarks.serving.constant_server",
        str(port),
        str(settings.slot_sockets(slot)[name]),
    ]


@contextmanager
def running_servers(settings: Settings, slots: Sequence[str], command: ServerCommand) -> Iterator[Processes]:
    """Yield the ready servers of these slots, each on its cores."""
    with ExitStack() as stack:
        stack.callback(lambda: [path.unlink() for path in sockets_of(settings.home)])
        processes: Processes = {}
        for slot in slots:
            for name, port in settings.slot_servers(slot).items():
                words = [*pinned(settings, name), *command(settings, slot, name, port)]
                processes[name] = [stack.enter_context(running_program(*words))]
                await_ready(f"http://{settings.host}:{port}/v2/health/ready")
        yield processes


@contextmanager
def running_stack(settings: Settings, command: ServerCommand) -> Iterator[Processes]:
    """Yield the ready servers of both slots and the gateway, which splits requests 90/10."""
    with running_servers(settings, SLOTS, command) as processes, ExitStack() as stack:
        words = [*pinned(settings, "gateway"), *write_configuration(settings)]
        processes["gateway"] = [stack.enter_context(running_program(*words))]
        router_of(settings).apply("flights", Routes(canary=10))
        await_ready(f"{settings.gateway_url}/v2/health/ready")
        yield processes


def await_ready(url: str) -> None:
    """Return once the URL answers with success; exit after half a minute."""
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
