"""Recorded rows sent through the gateway as live traffic, one row a request, in their own order."""

import asyncio
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4
from zlib import crc32

import aiohttp

from include.domain.features.aggregates import Aggregates
from include.domain.features.online_features import Outcome
from include.online_store.store import OnlineStore

Row = Mapping[str, Any]

#: Requests under way at once: enough to keep two slots' batches filled, few enough to leave the cores to the stack.
CONNECTIONS = 16


@dataclass
class Tally:
    """What the callers saw: answers by the slot that gave them, and failures by HTTP status (0 is no answer)."""

    sent: int = 0
    by_slot: Counter[str] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)

    @property
    def failures(self) -> int:
        return self.failed.total()


class Stream:
    """Tells the online store what became known, as a consumer of a stream of outcomes would: all that a row can see, before
    it is sent."""

    def __init__(self, store: OnlineStore, outcomes: Sequence[Outcome], aggregates: Aggregates, time: str) -> None:
        """`outcomes` in the order in which they became known; `time` names the rows' time."""
        self._store, self._outcomes, self._aggregates, self._time = store, outcomes, aggregates, time
        self._told, self._hour = 0, -1

    def __call__(self, row: Row) -> None:
        hour = self._aggregates.hour(datetime.fromisoformat(row[self._time]).timestamp())
        if hour > self._hour:
            known = bisect_left(self._outcomes, hour * 3600, key=lambda outcome: outcome.known)
            self._store.add(self._outcomes[self._told : known])
            self._told, self._hour = max(self._told, known), hour


class Replay:
    """Sends rows from a thread of its own until they or the caller's patience end; `rate` is requests a second."""

    def __init__(
        self, url: str, rows: Iterable[Mapping[str, Any]], rate: float, key: str, before: Callable[[Row], None]
    ) -> None:
        """`key` names the column that keeps a caller with one model; `before` is called before each row is sent."""
        self.tally = Tally()
        self._url, self._rows, self._rate, self._key, self._before = f"{url}/predict", iter(rows), rate, key, before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), daemon=True, name="replay")

    def __enter__(self) -> "Replay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    async def _send_all(self) -> None:
        paced = self._paced()
        patience = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=patience) as session, asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._worker(session, paced))

    async def _worker(self, session: aiohttp.ClientSession, paced: Iterator[tuple[float, Mapping[str, Any]]]) -> None:
        for due, row in paced:
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            await self._send(session, row)

    def _paced(self) -> Iterator[tuple[float, Mapping[str, Any]]]:
        begun = time.monotonic()
        for n, row in enumerate(self._rows):
            if self._stop.is_set():
                return
            self._before(row)
            yield begun + n / self._rate, row

    async def _send(self, session: aiohttp.ClientSession, row: Mapping[str, Any]) -> None:
        self.tally.sent += 1
        bucket = crc32(str(row[self._key]).encode()) % 100
        headers = {"X-Request-Id": uuid4().hex, "X-Perennial-Bucket": f"{bucket:02d}"}
        try:
            async with session.post(self._url, json={"rows": [row]}, headers=headers) as answer:
                if answer.status == 200:
                    self.tally.by_slot[str((await answer.json())["slot"])] += 1
                else:
                    self.tally.failed[answer.status] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.tally.failed[0] += 1
