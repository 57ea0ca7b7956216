"""Recorded rows sent through the gateway as live traffic, one row a request, in their own order."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4
from zlib import crc32

import aiohttp

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


class Replay:
    """Sends rows from a thread of its own until they or the caller's patience end; `rate` is requests a second."""

    def __init__(self, url: str, rows: Iterable[Mapping[str, Any]], rate: float, key: str) -> None:
        """`key` names the column that keeps a caller with one model."""
        self.tally = Tally()
        self._url, self._rows, self._rate, self._key = f"{url}/predict", iter(rows), rate, key
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
