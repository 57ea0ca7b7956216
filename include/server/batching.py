"""Rows of requests that arrived in the same turn of the event loop are scored together; nobody waits for company."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from include.server.answers import Refused
from include.server.cache import Cache
from include.server.model import Model
from include.server.rows import Encoded

#: Rows of one inference, unless one request brings more; the rest waits for the next turn. More take longer in proportion, and
#: memory.
MAX_BATCH = 64

logger = logging.getLogger("perennial.server")

Done = Callable[[list[float] | Exception], None]


@dataclass(frozen=True)
class Queue:
    """Rows that may wait to be scored, and seconds that a request may wait; more and longer get 503."""

    rows: int = 8192
    seconds: float = 1.0


class Batcher:
    """Belongs to one model, so rows are always scored by the model that encoded them, also across a swap."""

    def __init__(self, model: Model, bounds: Queue, observe: Callable[[int], None], cache: Cache | None = None) -> None:
        self.model = model
        self.depth = 0
        self._bounds, self._observe, self._cache = bounds, observe, cache
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[list[Encoded], float, Done]] = deque()

    def submit(self, rows: list[Encoded], since: float, done: Done) -> None:
        """`done` is told the rows' scores, in order, at the next turn of the loop, or why there are none: Refused (503) where
        they have waited too long `since` then (time.perf_counter). Raises Refused (503) when too many rows wait.
        """
        if self._cache is not None and (known := self._cache.find(rows)) is not None:
            done(known)
            return
        if self.depth >= self._bounds.rows:
            raise Refused(503, f"{self.depth} rows wait to be scored; come back in a second")
        if not self._waiting:
            self._loop.call_soon(self._turn)
        self._waiting.append((rows, since, done))
        self.depth += len(rows)

    def _turn(self) -> None:
        taken: list[tuple[list[Encoded], Done]] = []
        size, late = 0, time.perf_counter() - self._bounds.seconds
        while self._waiting and size < MAX_BATCH:
            rows, since, done = self._waiting.popleft()
            self.depth -= len(rows)
            if since < late:
                done(Refused(503, f"not scored within {self._bounds.seconds:g} s; come back in a second"))
                continue
            taken.append((rows, done))
            size += len(rows)
        if self._waiting:
            self._loop.call_soon(self._turn)
        if taken:
            self._observe(size)
            self._score(taken)

    def _score(self, taken: list[tuple[list[Encoded], Done]]) -> None:
        encoded = [row for rows, _ in taken for row in rows]
        try:
            found = self.model.score(encoded)
        except (RuntimeError, ValueError) as fault:
            for _, done in taken:
                done(fault)
            return
        if self._cache is not None:
            self._cache.keep(encoded, found)
        start = 0
        for rows, done in taken:
            try:
                done(found[start : start + len(rows)])
            except Exception:  # the others of the batch must have theirs
                logger.exception("an answer could not be given")
            start += len(rows)
