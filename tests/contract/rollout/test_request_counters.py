"""Counts from the pages of model servers that come and go."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from include.adapters.serving.request_counters import RequestCounters, server_readings
from include.adapters.serving.slots import HttpSlots
from include.domain.errors import Unavailable, UserMistake
from include.domain.rollout.variants import RequestCounts
from include.server.prometheus import Metrics


class Server:
    """A model server's pages: what it counted, and what it serves."""

    def __init__(self, slot: str) -> None:
        self.slot, self.metrics = slot, Metrics(slot, "flights")
        self.version = "1"

    def answer(self, requests: int, seconds: float = 0.001, code: str = "200") -> None:
        for _ in range(requests):
            self.metrics.requests.inc(("/predict", code, "1"))
            self.metrics.request_seconds.observe(seconds, ("/predict",))
        self.metrics.requests.inc(("/v2/health/ready", "200", "1"))

    def page(self, path: str) -> str:
        if path == "/status":
            return json.dumps({"ready": True, "model": "flights", "version": self.version})
        return self.metrics.render().decode()


@contextmanager
def listening(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = server.page(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


class HAProxy(Server):
    """An HAProxy's page, as version 2.8 writes it, with the tries that it made again elsewhere."""

    def __init__(self) -> None:
        super().__init__("")
        self.redispatched = 0

    def page(self, path: str) -> str:
        return (
            "# TYPE haproxy_server_redispatch_warnings_total counter\n"
            'haproxy_server_redispatch_warnings_total{proxy="stable",server="stable"} 0\n'
            f'haproxy_server_redispatch_warnings_total{{proxy="canary",server="canary-2"}} {self.redispatched}\n'
            'haproxy_server_http_responses_total{proxy="canary",server="canary-2",code="2xx"} 9\n'
        )


def counters(folder: Path, stable: str, canary: str, gateway: str | None = None) -> RequestCounters:
    return RequestCounters({"stable": [stable], "canary": [canary]}, folder, gateway)


def test_requests_errors_and_slow_answers_are_counted_by_slot(tmp_path: Path) -> None:
    stable, canary = Server("stable"), Server("canary")
    stable.answer(9, seconds=0.001)
    stable.answer(2, seconds=0.2)
    canary.answer(3, code="500")
    with listening(stable) as one, listening(canary) as two:
        counts = counters(tmp_path, one, two).request_counts("flights", 100)
    assert counts == {"stable": RequestCounts(11, 0, 2), "canary": RequestCounts(3, 3, 0)}


def test_tries_that_no_server_answered_are_errors_of_the_slot_and_those_it_answered_are_not_counted_twice(
    tmp_path: Path,
) -> None:
    stable, canary, gateway = Server("stable"), Server("canary"), HAProxy()
    stable.answer(9)
    canary.answer(10)
    canary.answer(3, code="500")
    gateway.redispatched = 3  # the three that it answered with an error
    with listening(stable) as one, listening(canary) as two, listening(gateway) as three:
        gateway_counters = counters(tmp_path, one, two, three)
        assert gateway_counters.request_counts("flights", 100)["canary"] == RequestCounts(13, 3, 0)
        gateway.redispatched += 5  # the server is dead
        assert gateway_counters.request_counts("flights", 100)["canary"] == RequestCounts(18, 8, 0)
        gateway.redispatched = 2  # the gateway was started anew
        assert gateway_counters.request_counts("flights", 100) == {
            "stable": RequestCounts(9, 0, 0),
            "canary": RequestCounts(20, 10, 0),
        }


def test_a_pod_that_goes_or_is_started_anew_takes_nothing_away(tmp_path: Path) -> None:
    first = Server("stable")
    first.answer(10)
    with listening(first) as url:
        assert counters(tmp_path, url, url).request_counts("flights", 100)["stable"].requests == 10
        first.metrics = Metrics("stable", "flights")
        first.answer(4)
        assert counters(tmp_path, url, url).request_counts("flights", 100)["stable"].requests == 14
    second = Server("stable")
    second.answer(5)
    with listening(second) as url:
        assert counters(tmp_path, url, url).request_counts("flights", 100)["stable"].requests == 19


def test_sums_from_before_failures_were_counted_go_on(tmp_path: Path) -> None:
    stable = Server("stable")
    stable.answer(10)
    with listening(stable) as url:
        old = {"pods": {f"stable {url}": [7, 0, 0]}, "sums": {"stable": [7, 0, 0]}}
        (tmp_path / "flights-100.json").write_text(json.dumps(old))
        assert counters(tmp_path, url, url).request_counts("flights", 100)["stable"] == RequestCounts(10, 0, 0)


def test_without_any_server_there_is_no_count(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no model server answers"):
        counters(tmp_path, "http://127.0.0.1:1", "http://{model}.invalid:80").request_counts("flights", 100)


def test_a_bound_that_the_histogram_lacks_is_named() -> None:
    server = Server("stable")
    server.answer(1)
    with pytest.raises(UserMistake, match=r"slow_ms: 70 is no bound .* 50, 75, 100"):
        server_readings(server.page("/metrics"), 70)


def test_a_slot_is_ready_when_each_server_behind_its_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Server("canary")) as url:
        slots = HttpSlots({"canary": [url], "stable": ["http://{model}-stable.invalid:80"]})
        slots.await_version("canary", "flights", "1", timeout=5)
        with pytest.raises(Unavailable, match="it serves version 1 of flights"):
            slots.await_version("canary", "flights", "2", timeout=0)
        with pytest.raises(Unavailable, match=r"flights-stable\.invalid: no server has this name"):
            slots.await_version("stable", "flights", "1", timeout=0)
        other = Server("canary")
        other.version = "0"
        with listening(other) as late, pytest.raises(Unavailable, match="it serves version 0 of flights"):
            HttpSlots({"canary": [url, late]}).await_version("canary", "flights", "1", timeout=0)
