"""A real HAProxy with two servers behind it that answer as model servers do."""

import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from include.adapters.routers import haproxy
from include.adapters.serving.request_counters import RequestCounters
from include.adapters.serving.segments import LogSegments
from include.adapters.serving.signals import ProductionSignals
from include.domain.rollout.variants import RequestCounts
from include.local.stack import choose_ports
from include.settings import SLOTS, Settings, from_env, sockets_of
from tests.memory import MemoryTables

#: A server that is ready, answers everything with its own name, with 500 when that is `broken`, and counts as ours do.
UPSTREAM = """
import os, socket, socketserver, sys, threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, path, name, slot = sys.argv[1:]
seen = Counter()
LINE = 'perennial_requests_total{{slot="{}",route="/predict",code="{}"}} {}'
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, page = 200, name
        if self.path == "/predict":
            code = 500 if name == "broken" else 200
            seen[code] += 1
        elif self.path == "/metrics":
            page = "\\n".join(LINE.format(slot, *each) for each in seen.items())
        self.send_response(code)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())
    do_POST = do_GET
    def log_message(self, *args):
        pass
class AtSocket(ThreadingHTTPServer):
    address_family, request_queue_size = socket.AF_UNIX, 128
    server_bind = socketserver.TCPServer.server_bind
if os.path.exists(path):
    os.unlink(path)
at_socket = AtSocket(path, Handler)
threading.Thread(target=at_socket.serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


@dataclass
class LocalGateway:
    """The gateway of a stack, and the processes that a test has started of it."""

    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def router(self) -> haproxy.HAProxyRouter:
        """The router of this gateway."""
        return haproxy.router_of(self.settings)

    @property
    def signals(self) -> ProductionSignals:
        """What its traffic shows."""
        urls = {slot: self.settings.slot_urls(slot) for slot in SLOTS}
        counters = RequestCounters(urls, self.settings.home / "counters", self.settings.gateway_admin_url)
        return ProductionSignals(counters, LogSegments(self.settings.predictions), lambda _: MemoryTables())

    def start(self) -> None:
        """Start HAProxy and return once it answers."""
        self._start("gateway", haproxy.write_configuration(self.settings))
        until(lambda: answers(f"{self.settings.gateway_admin_url}/ping"))

    def serve(self, slot: str, name: str | None = None) -> None:
        """Start the servers of a slot, which answer with their own names or with this one, and return once they are ready."""
        for server, port in self.settings.slot_servers(slot).items():
            path = str(self.settings.slot_sockets(slot)[server])
            self._start(server, [sys.executable, "-c", UPSTREAM, str(port), path, name or server, slot])
        until(lambda: all(answers(f"{url}/v2/health/ready") for url in self.settings.slot_urls(slot)))
        until(lambda: "gateway" not in self.processes or not self.out(slot))

    def kill(self, name: str) -> None:
        """Kill `gateway` or a server."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def ask(self, requests: int, body: bytes = b"{}", /, **headers: str) -> Counter[str]:
        """Return how many of these requests each server answered; a failed one counts under its status."""
        with httpx.Client(base_url=self.settings.gateway_url, trust_env=False) as client:
            responses = [client.post("/predict", content=body, headers=headers) for _ in range(requests)]
        return Counter(r.text if r.is_success else str(r.status_code) for r in responses)

    def out(self, slot: str) -> bool:
        """Return whether the gateway has taken a server of that slot for dead and not seen it back yet."""
        page = httpx.get(f"{self.settings.gateway_admin_url}/metrics", trust_env=False).text
        servers = self.settings.slot_servers(slot)
        return any(f'server_status{{proxy="{slot}",server="{name}",state="DOWN"}} 1' in page for name in servers)

    def copied(self) -> int:
        """Return the requests that reached the canary; while it has no share, all of them are copies."""
        return self.signals.request_counts("flights", 100).get("canary", RequestCounts()).requests

    def _start(self, name: str, command: list[str]) -> None:
        self.processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(holds: Callable[[], bool]) -> None:
    """Return once that holds. Fails after 30 seconds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "waited for 30 s in vain"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Return whether the URL answers with success."""
    try:
        return httpx.get(url, timeout=1, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def local_gateway(home: Path, servers: int = 1) -> Iterator[LocalGateway]:
    """Start a gateway that sends all to stable, with both slots up, and kill it at the end."""
    ports = {f"PERENNIAL_{name}_PORT": str(free_port()) for name in ("GATEWAY", "GATEWAY_ADMIN", "STABLE", "CANARY")}
    settings = replace(from_env(ports), home=home, servers=servers)
    gateway = LocalGateway(choose_ports(settings, {}))
    try:
        gateway.serve("stable")
        gateway.serve("canary")
        gateway.start()
        until(lambda: gateway.ask(1).keys() <= {"stable", "stable-2"})
        yield gateway
    finally:
        for name in list(gateway.processes):
            gateway.kill(name)
        for path in sockets_of(home):
            path.unlink()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
