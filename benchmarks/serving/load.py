"""A load generator on raw connections: closed loop, or at a fixed rate with latency counted from when a request was due.

`python -m benchmarks.serving.load --port 8088 --bodies rows.jsonl --seconds 60 --rate 10000` prints one JSON object. A rate counts
latency from the due time, so that a server that stalls is charged for every request that had to wait (no coordinated
omission). It keeps the default 64 connections busy at most; what is due beyond that waits here, and is charged too. For Linux.
"""

import argparse
import gc
import json
import math
import re
import select
import signal
import socket
import time
from collections import Counter, deque
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Seconds between the requests that are sent together, and before a broken connection is replaced.
SEND_INTERVAL, RECONNECT_INTERVAL = 0.001, 0.05
#: The status of a request whose connection broke.
LOST = b"lost"
HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class LoadGenerator:
    """Sends the requests in turn over its connections; a `rate` of 0 is a closed loop.

    `responses` has of each answered request its status, when it was due and when the response came (time.perf_counter).
    """

    def __init__(self, requests: list[bytes], port: int, rate: float, connections: int) -> None:
        self.requests, self.port, self.rate, self.connections = requests, port, rate, connections
        self.poll = select.epoll()
        self.callers: dict[int, Caller] = {}
        self.sent, self.unsent = 0, 0
        self.responses: list[tuple[bytes, float, float]] = []
        self.idle: deque[Caller] = deque()
        self.due: deque[float] = deque()
        self.reconnect_at = 0.0
        self.connect()
        while len(self.callers) < connections:
            time.sleep(RECONNECT_INTERVAL)
            self.connect()
        self.started_at, self.started_clock = time.perf_counter(), time.time()

    def connect(self) -> None:
        """Open the connections that are missing, as long as the server accepts."""
        while len(self.callers) < self.connections:
            caller = Caller(self)
            if caller.connection.connect_ex(("127.0.0.1", self.port)):
                caller.connection.close()
                break
            self.callers[caller.connection.fileno()] = caller
            self.poll.register(caller.connection, select.EPOLLIN)
            self.idle.append(caller)

    def run(self, seconds: float) -> None:
        """Send what is due, every millisecond, until the end; then wait for the responses, ten seconds at most."""
        self.send_until, total_due = self.started_at + seconds, 0
        while (now := time.perf_counter()) < self.send_until:
            due_by_now = int((now - self.started_at) * self.rate)
            self.due.extend([self.started_at + n / self.rate for n in range(total_due, due_by_now)])
            total_due = due_by_now
            while self.idle and (self.due or not self.rate):
                self.idle.popleft().send(self.due.popleft() if self.rate else now)
            self.receive(now + SEND_INTERVAL)
        self.await_responses(seconds=5)
        self.unsent = len(self.due)
        self.due.clear()  # requests that were sent can still be answered
        self.await_responses(seconds=5)

    def receive(self, until: float) -> None:
        """Read the responses that come until then (time.perf_counter)."""
        while (left := until - time.perf_counter()) > 0:
            for descriptor, _ in self.poll.poll(left):
                self.callers[descriptor].read()
            if len(self.callers) < self.connections and until > self.reconnect_at:
                self.reconnect_at = until + RECONNECT_INTERVAL
                self.connect()

    def stop(self) -> None:
        """Send no more."""
        self.send_until = 0.0

    def next_request(self) -> bytes:
        """Return the request to send next."""
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def on_response(self, caller: "Caller", status: bytes) -> None:
        """Count a response and give its caller the next request, if there is one."""
        now = time.perf_counter()
        self.responses.append((status, caller.due_at, now))
        if status == LOST:
            return
        if self.rate and self.due:
            caller.send(self.due.popleft())
        elif self.rate or now >= self.send_until:
            self.idle.append(caller)
        else:
            caller.send(now)

    def on_connection_lost(self, caller: "Caller") -> None:
        """Drop a caller whose connection broke; `connect` replaces it."""
        del self.callers[caller.connection.fileno()]
        caller.connection.close()
        if caller.waiting:
            self.on_response(caller, LOST)
        else:
            self.idle.remove(caller)

    def await_responses(self, seconds: float) -> None:
        """Wait until all callers are idle, at most that many seconds."""
        give_up_at = time.perf_counter() + seconds
        while len(self.idle) < self.connections and (now := time.perf_counter()) < give_up_at:
            self.receive(now + 10 * SEND_INTERVAL)

    def report(self) -> dict[str, Any]:
        """Return the figures of the run; latencies are in milliseconds, `failing_seconds` has errors and responses by second."""
        latencies = sorted(now - due_at for _, due_at, now in self.responses)
        elapsed = time.perf_counter() - self.started_at
        statuses = Counter(status for status, _, _ in self.responses)
        seconds = Counter(int(now - self.started_at) for _, _, now in self.responses)
        failures = Counter(int(now - self.started_at) for status, _, now in self.responses if status != b"200")
        failing = {second: [count, seconds[second]] for second, count in sorted(failures.items())}
        return {
            "generator": "load.py",
            "requests": self.sent,
            "errors": self.sent - statuses[b"200"] + self.unsent,
            "rps": round(len(latencies) / elapsed),
            "connections": self.connections,
            "rate": self.rate or None,
            **{f"p{p:g}_ms": _percentile_ms(latencies, p) for p in (50, 90, 99, 99.9)},
            "max_ms": round(latencies[-1] * 1000, 2),
            "statuses": {status.decode(): count for status, count in statuses.items()},
            "began": self.started_clock,
            "failing_seconds": failing,
            "worst_second": round(max((errors / total for errors, total in failing.values()), default=0.0), 4),
        }


class Caller:
    """A connection, and the request that waits on it since `due_at`."""

    def __init__(self, load: LoadGenerator) -> None:
        self.load, self.connection = load, socket.socket()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.due_at, self.waiting = b"", 0.0, False

    def send(self, due_at: float) -> None:
        """Send the next request, which was due at that moment."""
        self.due_at, self.waiting = due_at, True
        try:
            self.connection.sendall(self.load.next_request())
        except OSError:
            self.load.on_connection_lost(self)

    def read(self) -> None:
        """Read what came, and report the response once it is whole."""
        try:
            data = self.connection.recv(1 << 12)
        except OSError:
            data = b""
        if not data:
            self.load.on_connection_lost(self)
            return
        buffer = self.buffer = self.buffer + data if self.buffer else data
        body_start = buffer.find(HEAD_END) + len(HEAD_END)
        if body_start < len(HEAD_END) or len(buffer) < body_start + _content_length(buffer[:body_start]):
            return
        self.buffer, self.waiting = b"", False
        self.load.on_response(self, buffer[9:12])


@lru_cache
def _content_length(head: bytes) -> float:
    """Return the length of the body after this head, infinite if the head has none; the heads of one second are alike."""
    header = CONTENT_LENGTH.search(head)
    return int(header[1]) if header else math.inf


def _percentile_ms(ascending: list[float], percent: float) -> float:
    return round(ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))] * 1000, 2)


def _requests(path: Path, route: str) -> list[bytes]:
    head = f"POST {route} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    bodies = path.read_bytes().splitlines()
    return [(head % len(body)).encode() + body for body in bodies]


def main() -> None:
    """Run the load that the arguments describe, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="one JSON body a line")
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0, help="requests a second; 0 is a closed loop")
    options = parser.parse_args()
    gc.disable()
    load = LoadGenerator(_requests(options.bodies, options.path), options.port, options.rate, options.connections)
    signal.signal(signal.SIGTERM, lambda *_: load.stop())
    load.run(options.seconds)
    print(json.dumps(load.report()))


if __name__ == "__main__":
    main()
