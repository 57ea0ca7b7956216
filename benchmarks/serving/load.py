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
from typing import Any, cast

#: Seconds between the requests that are handed out together, and before a broken connection is tried again.
PACE, RETRY = 0.001, 0.05
LOST = b"lost"
END = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Load:
    def __init__(self, requests: list[bytes], port: int, rate: float, connections: int) -> None:
        self.requests, self.port, self.rate, self.connections = requests, port, rate, connections
        self.poll, self.callers = select.epoll(), cast(dict[int, Caller], {})
        self.sent, self.unsent = 0, 0
        self.answers: list[tuple[bytes, float, float]] = []  #: status, when it was due and when it came
        self.idle: deque[Caller] = deque()
        self.due: deque[float] = deque()
        self.again = 0.0  #: when to try for the connections that are missing
        self.connect()
        while len(self.callers) < connections:
            time.sleep(RETRY)
            self.connect()
        self.begun, self.clock = time.perf_counter(), time.time()

    def connect(self) -> None:
        """As many connections as are missing, while the server takes any."""
        while len(self.callers) < self.connections:
            caller = Caller(self)
            if caller.connection.connect_ex(("127.0.0.1", self.port)):
                caller.connection.close()
                break
            self.callers[caller.connection.fileno()] = caller
            self.poll.register(caller.connection, select.EPOLLIN)
            self.idle.append(caller)

    def run(self, seconds: float) -> None:
        """Hand out what is due, every millisecond, until the end and until all is answered or has waited too long."""
        self.until, handed = self.begun + seconds, 0
        while (now := time.perf_counter()) < self.until:
            owed = int((now - self.begun) * self.rate)
            self.due.extend([self.begun + n / self.rate for n in range(handed, owed)])
            handed = owed
            while self.idle and (self.due or not self.rate):
                self.idle.popleft().send(self.due.popleft() if self.rate else now)
            self.turn(now + PACE)
        self.settle(seconds=5)
        self.unsent = len(self.due)
        self.due.clear()  # what is on its way can still be answered
        self.settle(seconds=5)

    def turn(self, until: float) -> None:
        """Take the answers that come by then."""
        while (left := until - time.perf_counter()) > 0:
            for descriptor, _ in self.poll.poll(left):
                self.callers[descriptor].read()
            if len(self.callers) < self.connections and until > self.again:
                self.again = until + RETRY
                self.connect()

    def stop(self) -> None:
        """Hand out nothing more."""
        self.until = 0.0

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def answered(self, caller: "Caller", status: bytes) -> None:
        now = time.perf_counter()
        self.answers.append((status, caller.since, now))
        if status == LOST:
            return
        if self.rate and self.due:
            caller.send(self.due.popleft())
        elif self.rate or now >= self.until:
            self.idle.append(caller)
        else:
            caller.send(now)

    def lost(self, caller: "Caller") -> None:
        """Its connection broke; another takes its place."""
        del self.callers[caller.connection.fileno()]
        caller.connection.close()
        if caller.waiting:
            self.answered(caller, LOST)
        else:
            self.idle.remove(caller)

    def settle(self, seconds: float) -> None:
        """Wait until all callers are idle, at most so long."""
        late = time.perf_counter() + seconds
        while len(self.idle) < self.connections and (now := time.perf_counter()) < late:
            self.turn(now + 10 * PACE)

    def report(self) -> dict[str, Any]:
        ordered = sorted(now - since for _, since, now in self.answers)
        taken = time.perf_counter() - self.begun
        statuses = Counter(status for status, _, _ in self.answers)
        errors = self.sent - statuses[b"200"] + self.unsent
        seconds = Counter(int(now - self.begun) for _, _, now in self.answers)
        failures = Counter(int(now - self.begun) for status, _, now in self.answers if status != b"200")
        failing = {second: [count, seconds[second]] for second, count in sorted(failures.items())}
        return {
            "generator": "load.py",
            "requests": self.sent,
            "errors": errors,
            "rps": round(len(ordered) / taken),
            "connections": self.connections,
            "rate": self.rate or None,
            **{f"p{p:g}_ms": _percentile(ordered, p) for p in (50, 90, 99, 99.9)},
            "max_ms": round(ordered[-1] * 1000, 2),
            "statuses": {s.decode(): n for s, n in statuses.items()},
            "began": self.clock,
            "failing_seconds": failing,
            "worst_second": round(max((count / of for count, of in failing.values()), default=0.0), 4),
        }


class Caller:
    """A connection, and the request that waits on it."""

    def __init__(self, load: Load) -> None:
        self.load, self.connection = load, socket.socket()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.since, self.waiting = b"", 0.0, False

    def send(self, since: float) -> None:
        self.since, self.waiting = since, True
        try:
            self.connection.sendall(self.load.next())
        except OSError:
            self.load.lost(self)

    def read(self) -> None:
        try:
            data = self.connection.recv(1 << 12)
        except OSError:
            data = b""
        if not data:
            self.load.lost(self)
            return
        buffer = self.buffer = self.buffer + data if self.buffer else data
        start = buffer.find(END) + len(END)
        if start < len(END) or len(buffer) < start + _length(buffer[:start]):
            return
        self.buffer, self.waiting = b"", False
        self.load.answered(self, buffer[9:12])


@lru_cache
def _length(head: bytes) -> float:
    """Of the body that follows, infinite where it is not told; heads of one second are alike."""
    found = LENGTH.search(head)
    return int(found[1]) if found else math.inf


def _percentile(ordered: list[float], percent: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 2)


def _requests(path: Path, route: str) -> list[bytes]:
    head = f"POST {route} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    bodies = path.read_bytes().splitlines()
    return [(head % len(body)).encode() + body for body in bodies]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="one JSON body a line")
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0, help="requests a second; 0 is a closed loop")
    options = parser.parse_args()
    gc.disable()
    load = Load(_requests(options.bodies, options.path), options.port, options.rate, options.connections)
    signal.signal(signal.SIGTERM, lambda *_: load.stop())
    load.run(options.seconds)
    print(json.dumps(load.report()))


if __name__ == "__main__":
    main()
