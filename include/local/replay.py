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

from include.domain.features.aggregates import SECONDS_PER_HOUR, Aggregates
from include.domain.features.online_features import EventOutcome
from include.online_store.protocol import OnlineStore

Row = Mapping[str, Any]

#: Requests under way at once: enough to keep two slots' batches filled, few enough to leave the cores to the stack.
CONNECTIONS = 16
#: Seconds after which a request counts as not answered.
REQUEST_TIMEOUT = 10


@dataclass
class ReplayCounts:
    """What the callers saw: answers by the slot that gave them, and failures by HTTP status (0 is no answer)."""

    sent: int = 0
    by_slot: Counter[str] = field(default_factory=Counter)
    by_failed_status: Counter[int] = field(default_factory=Counter)

    @property
    def failures(self) -> int:
        """How many requests got no score."""
        return self.by_failed_status.total()


class OutcomeFeed:
    """Writes outcomes to the online store as a consumer of a stream of them would.

    Called with a row before that is sent, it writes all outcomes that the row can see.
    """

    def __init__(self, store: OnlineStore, outcomes: Sequence[EventOutcome], aggregates: Aggregates, time: str) -> None:
        """Feed `outcomes`, in the order in which they became known; `time` names the column with the rows' time."""
        self._store, self._outcomes, self._aggregates, self._time = store, outcomes, aggregates, time
        self._written, self._hour = 0, -1

    def __call__(self, row: Row) -> None:
        """Write the outcomes that became known before the row's hour and are not written yet."""
        hour = self._aggregates.cutoff_hour(datetime.fromisoformat(row[self._time]).timestamp())
        if hour > self._hour:
            end = bisect_left(self._outcomes, hour * SECONDS_PER_HOUR, key=lambda outcome: outcome.known_at)
            self._store.add(self._outcomes[self._written : end])
            self._written, self._hour = max(self._written, end), hour


class TrafficReplay:
    """A context manager that sends rows from a thread of its own until there are no more, or until it is left."""

    def __init__(self, url: str, rows: Iterable[Row], rate: float, key: str, before: Callable[[Row], None]) -> None:
        """Send `rate` rows a second; `before` is called before each.

        `key` names the column whose hash is the bucket of a request, so that a key stays with one model.
        """
        self.counts = ReplayCounts()
        self._url, self._rows, self._rate, self._key, self._before = f"{url}/predict", iter(rows), rate, key, before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), daemon=True, name="replay")

    def __enter__(self) -> "TrafficReplay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    @property
    def running(self) -> bool:
        """Whether rows are still being sent."""
        return self._thread.is_alive()

    async def _send_all(self) -> None:
        scheduled = self._schedule()
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._worker(session, scheduled))

    async def _worker(self, session: aiohttp.ClientSession, scheduled: Iterator[tuple[float, Row]]) -> None:
        for due, row in scheduled:
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            await self._send(session, row)

    def _schedule(self) -> Iterator[tuple[float, Row]]:
        """Yield each row with the monotonic time at which it is due."""
        start = time.monotonic()
        for n, row in enumerate(self._rows):
            if self._stop.is_set():
                return
            self._before(row)
            yield start + n / self._rate, row

    async def _send(self, session: aiohttp.ClientSession, row: Row) -> None:
        self.counts.sent += 1
        bucket = crc32(str(row[self._key]).encode()) % 100
        headers = {"X-Request-Id": uuid4().hex, "X-Perennial-Bucket": f"{bucket:02d}"}
        try:
            async with session.post(self._url, json={"rows": [row]}, headers=headers) as response:
                if response.status == 200:
                    self.counts.by_slot[str((await response.json())["slot"])] += 1
                else:
                    self.counts.by_failed_status[response.status] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.counts.by_failed_status[0] += 1
