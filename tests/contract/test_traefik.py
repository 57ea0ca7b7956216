"""The router on a real Traefik with two real servers behind it."""

import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from include.adapters import traefik
from include.adapters.segments import Segments
from include.adapters.signals import ProductionSignals
from include.domain.errors import Unavailable
from include.ports import Routes
from include.settings import Settings
from tests.memory import MemoryTables

TRAEFIK = shutil.which("traefik", path=str(Path(sys.executable).parent))
#: A server that is ready, answers everything with its own name, and says so with 500 when its name is `broken`.
UPSTREAM = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def do_GET(self):
        name = sys.argv[2].encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500 if name == b"broken" and self.path == "/predict" else 200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)
    do_POST = do_GET
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass
class Gateway:
    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def router(self) -> traefik.Traefik:
        return traefik.for_settings(self.settings)

    @property
    def signals(self) -> ProductionSignals:
        return ProductionSignals(
            self.settings.gateway_admin_url, Segments(self.settings.predictions), lambda _: MemoryTables()
        )

    def start(self) -> None:
        static = traefik.lay_out(self.settings)
        self._start("traefik", [str(TRAEFIK), f"--configFile={static}"])
        until(lambda: answers(f"{self.settings.gateway_admin_url}/ping"))

    def serve(self, slot: str, name: str | None = None) -> None:
        port = str(getattr(self.settings, f"{slot}_port"))
        self._start(slot, [sys.executable, "-c", UPSTREAM, port, name or slot])
        until(lambda: answers(f"{self.settings.slot_url(slot)}/v2/health/ready"))

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def ask(self, requests: int, **headers: str) -> Counter[str]:
        """Who answered so many requests; a failed one counts under its status."""
        with httpx.Client(base_url=self.settings.gateway_url, trust_env=False) as client:
            answers = [client.post("/predict", json={}, headers=headers) for _ in range(requests)]
        return Counter(a.text if a.is_success else str(a.status_code) for a in answers)

    def _start(self, name: str, command: list[str]) -> None:
        self.processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "waited for 30 s in vain"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """All to stable, both slots up, the routes served."""
    ports = {f"{name}_port": free_port() for name in ("gateway", "gateway_admin", "stable", "canary")}
    gateway = Gateway(replace(Settings(), home=tmp_path, **ports))
    try:
        gateway.serve("stable")
        gateway.serve("canary")
        gateway.start()
        until(lambda: gateway.ask(1) == {"stable": 1})
        yield gateway
    finally:
        for name in list(gateway.processes):
            gateway.kill(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_routes_take_effect_before_apply_returns(gateway: Gateway) -> None:
    seen = []
    for weight in (10, 50, 100, 0):
        gateway.router.apply("flights", Routes(weight))
        assert gateway.router.current("flights") == Routes(weight)
        seen.append(gateway.ask(100)["canary"])
    assert seen == [10, 50, 100, 0]


def test_a_bucket_stays_with_its_model_while_the_weight_grows(gateway: Gateway) -> None:
    header = traefik.BUCKET_HEADER
    gateway.router.apply("flights", Routes(10))
    assert gateway.ask(20, **{header: "09"}) == {"canary": 20}
    assert gateway.ask(20, **{header: "10"}) == {"stable": 20}
    gateway.router.apply("flights", Routes(50))
    assert gateway.ask(20, **{header: "09"}) == {"canary": 20}
    assert gateway.ask(20, **{header: "10"}) == {"canary": 20}
    assert gateway.ask(20, **{header: "50"}) == {"stable": 20}


def test_shadow_copies_every_request_to_the_canary_and_answers_from_stable(gateway: Gateway) -> None:
    before = gateway.signals.counts("flights", 100).get("canary")
    gateway.router.apply("flights", Routes(mirror=True))
    assert gateway.router.current("flights") == Routes(mirror=True)
    assert gateway.ask(50) == {"stable": 50}
    seen = before.requests if before else 0
    until(lambda: gateway.signals.counts("flights", 100)["canary"].requests == seen + 50)


@pytest.mark.parametrize("weight", [50, 100])
def test_a_dead_canary_costs_no_caller_an_answer_and_its_failures_are_counted(gateway: Gateway, weight: int) -> None:
    gateway.router.apply("flights", Routes(weight))
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(gateway.ask, 1000)
        until(lambda: "canary" in gateway.signals.counts("flights", 100))
        gateway.kill("canary")
        assert set(asked.result()) == {"stable", "canary"}
    until(lambda: gateway.signals.counts("flights", 100)["canary"].errors > 0)
    until(lambda: canary_is_out(gateway))
    assert gateway.ask(50) == {"stable": 50}
    gateway.serve("canary")
    until(lambda: gateway.ask(2)["canary"] > 0)


def canary_is_out(gateway: Gateway) -> bool:
    url = f"{gateway.settings.gateway_admin_url}/api/http/services/flights-canary@file"
    return "DOWN" in httpx.get(url, trust_env=False).json().get("serverStatus", {}).values()


def test_errors_of_the_canary_reach_the_judge_and_no_caller(gateway: Gateway) -> None:
    gateway.kill("canary")
    gateway.serve("canary", "broken")
    gateway.router.apply("flights", Routes(50))
    assert gateway.ask(20) == {"stable": 20}
    until(lambda: gateway.signals.counts("flights", 100)["canary"].errors == 10)
    assert gateway.signals.counts("flights", 100)["stable"].errors == 0


@pytest.mark.parametrize("weight", [10, 50])
def test_a_dead_stable_slot_is_stood_in_for_during_a_rollout(gateway: Gateway, weight: int) -> None:
    gateway.router.apply("flights", Routes(weight))
    gateway.kill("stable")
    assert gateway.ask(20) == {"canary": 20}


def test_outside_a_rollout_nobody_meets_the_canary(gateway: Gateway) -> None:
    gateway.kill("stable")
    assert "canary" not in gateway.ask(10)


def test_a_gateway_that_comes_back_goes_on_with_the_split_it_had(gateway: Gateway) -> None:
    gateway.router.apply("flights", Routes(50))
    gateway.kill("traefik")
    gateway.start()
    until(lambda: gateway.ask(10) == {"stable": 5, "canary": 5})


def test_routes_set_while_the_gateway_is_down_are_served_when_it_is_back(gateway: Gateway) -> None:
    gateway.router.apply("flights", Routes(50))
    gateway.kill("traefik")
    with pytest.raises(Unavailable, match="does not answer"):
        replace(gateway.router, patience=0.1).apply("flights", Routes())
    gateway.start()
    until(lambda: gateway.ask(10) == {"stable": 10})


def test_reloads_under_load_lose_no_request(gateway: Gateway) -> None:
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(gateway.ask, 300) for _ in range(4)]
        for weight in (10, 50, 90, 100, 0):
            gateway.router.apply("flights", Routes(weight))
        answered = sum((each.result() for each in asked), Counter[str]())
    assert answered.total() == answered["stable"] + answered["canary"] == 1200


def test_the_shown_routes_are_all_to_stable_before_any_rollout(tmp_path: Path) -> None:
    settings = replace(Settings(), home=tmp_path)
    assert traefik.for_settings(settings).current("flights") == Routes()
