"""A load generator on raw connections: closed loop, or at a fixed rate with latency counted from when a request was due.

`python -m benchmarks.load --port 8088 --bodies rows.jsonl --seconds 60 --rate 10000` prints one JSON object. A rate counts
latency from the due time, so that a server that stalls is charged for every request that had to wait (no coordinated
omission). It keeps the default 64 connections busy at most; what is due beyond that waits here, and is charged too.
"""

import argparse
import asyncio
import gc
import json
import signal
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import uvloop


class Load:
    def __init__(self, requests: list[bytes], seconds: float, rate: float, connections: int) -> None:
        self.requests, self.rate, self.connections = requests, rate, connections
        self.begun = time.perf_counter()
        self.clock = time.time()  #: of the first request
        self.until = self.begun + seconds
        self.sent, self.unsent = 0, 0
        self.answers: list[tuple[bytes, float, float]] = []  #: status, when it was due and when it came
        self.idle: deque[Caller] = deque()
        self.ready = asyncio.Semaphore(0)
        self.due: deque[float] = deque()

    def stop(self) -> None:
        """Hand out nothing more."""
        self.until = time.perf_counter()

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def answered(self, caller: "Caller", status: bytes, since: float) -> None:
        now = time.perf_counter()
        self.answers.append((status, since, now))
        if caller.transport.is_closing():
            return
        if self.rate and self.due:
            caller.send(self.due.popleft())
        elif self.rate or now >= self.until:
            self.idle.append(caller)
        else:
            caller.send(now)

    def free(self) -> "Caller | None":
        """An idle caller whose connection stands."""
        while self.idle:
            if not (caller := self.idle.popleft()).transport.is_closing():
                return caller
        return None

    async def connect(self, port: int) -> None:
        """One more caller, and another in its place whenever its connection breaks."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, caller = await loop.create_connection(lambda: Caller(self), "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            self.idle.append(caller)
            self.ready.release()
            await caller.lost.wait()
            if caller in self.idle:
                self.idle.remove(caller)

    async def pace(self) -> None:
        """Hand out what is due, every millisecond, until the end and until all is answered."""
        handed = 0
        while (now := time.perf_counter()) < self.until:
            owed = int((now - self.begun) * self.rate)
            for n in range(handed, owed):
                due = self.begun + n / self.rate
                caller.send(due) if (caller := self.free()) else self.due.append(due)
            handed = owed
            await asyncio.sleep(0.001)

    async def settle(self, seconds: float) -> None:
        """Wait until all callers are idle, at most so long."""
        late = time.perf_counter() + seconds
        while len(self.idle) < self.connections and time.perf_counter() < late:
            await asyncio.sleep(0.01)

    def give_up(self) -> None:
        """Send nothing more of what is due: what is on its way can still be answered."""
        self.unsent = len(self.due)
        self.due.clear()

    def report(self) -> dict[str, Any]:
        ordered = sorted(now - since for _, since, now in self.answers)
        taken = time.perf_counter() - self.begun
        statuses = Counter(status for status, _, _ in self.answers)
        errors = self.sent - statuses[b"200"] + self.unsent
        seconds = Counter(int(now - self.begun) for _, _, now in self.answers)
        failures = Counter(int(now - self.begun) for status, _, now in self.answers if status != b"200")
        failing = {second: [count, seconds[second]] for second, count in sorted(failures.items())}
        return {
            "generator": "load.py", "requests": self.sent, "errors": errors, "rps": round(len(ordered) / taken), "connections": self.connections,
            "rate": self.rate or None, **{f"p{p:g}_ms": _percentile(ordered, p) for p in (50, 90, 99, 99.9)},
            "max_ms": round(ordered[-1] * 1000, 2), "statuses": {s.decode(): n for s, n in statuses.items()},
            "began": self.clock, "failing_seconds": failing,
            "worst_second": round(max((count / of for count, of in failing.values()), default=0.0), 4),
        }  # fmt: skip


class Caller(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load, self.buffer, self.since, self.waiting = load, b"", 0.0, False
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self.lost.set()
        if self.waiting:
            self.waiting = False
            self.load.answered(self, b"lost", self.since)

    def send(self, since: float) -> None:
        self.since, self.waiting = since, True
        self.transport.write(self.load.next())

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer = self.buffer + data if self.buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        mark = buffer.lower().find(b"content-length: ", 0, head)
        if len(buffer) < head + 4 + int(buffer[mark + 16 : buffer.find(b"\r", mark)]):
            return
        self.buffer, self.waiting = b"", False
        self.load.answered(self, buffer[9:12], self.since)


def _percentile(ordered: list[float], percent: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 2)


def _requests(path: Path, route: str) -> list[bytes]:
    head = f"POST {route} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    bodies = path.read_bytes().splitlines()
    return [(head % len(body)).encode() + body for body in bodies]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    load = Load(_requests(options.bodies, options.path), options.seconds, options.rate, options.connections)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    callers = [asyncio.create_task(load.connect(options.port)) for _ in range(options.connections)]
    for _ in callers:
        await load.ready.acquire()
    load.until += time.perf_counter() - load.begun
    load.begun, load.clock = time.perf_counter(), time.time()
    if options.rate:
        await load.pace()
    else:
        for _ in range(options.connections):
            load.idle.popleft().send(time.perf_counter())
        await asyncio.sleep(load.until - time.perf_counter())
    await load.settle(seconds=5)
    load.give_up()
    await load.settle(seconds=5)
    for caller in callers:
        caller.cancel()
    return load.report()


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
    print(json.dumps(uvloop.run(run(options))))


if __name__ == "__main__":
    main()
