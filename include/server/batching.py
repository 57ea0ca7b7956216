"""Rows of requests that arrived in the same turn of the event loop are scored together; no request waits for others to come."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from include.server.responses import RequestError
from include.server.rows import EncodedRow
from include.server.score_cache import ScoreCache
from include.server.servable_model import ServableModel

#: Rows of one inference, unless one request brings more; the rest waits for the next turn. More rows take more time and memory
#: in proportion.
MAX_BATCH = 64

logger = logging.getLogger("perennial.server")

#: Called with the scores of a request's rows, in their order, or with the reason why there are none.
OnScores = Callable[[list[float] | Exception], None]


@dataclass(frozen=True)
class QueueLimits:
    """Rows that may wait to be scored, and seconds that a request may wait; beyond either it gets 503."""

    max_rows: int = 8192
    max_seconds: float = 1.0


class Batcher:
    """The queue before one model: rows are always scored by the model that encoded them, also while versions are swapped.

    `observe` is called with the number of rows of each inference; `depth` is the number of rows that wait.
    """

    def __init__(
        self, model: ServableModel, limits: QueueLimits, observe: Callable[[int], None], cache: ScoreCache | None = None
    ) -> None:
        self.model = model
        self.depth = 0
        self._limits, self._observe, self._cache = limits, observe, cache
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[list[EncodedRow], float, OnScores]] = deque()

    def submit(self, rows: list[EncodedRow], started_at: float, on_scores: OnScores) -> None:
        """Have the rows scored at the next turn of the event loop, or at once if the cache holds all of them.

        `on_scores` gets RequestError (503) if they have then waited too long since `started_at` (time.perf_counter). Raises
        RequestError (503) if too many rows wait already.
        """
        if self._cache is not None and (cached := self._cache.get(rows)) is not None:
            on_scores(cached)
            return
        if self.depth >= self._limits.max_rows:
            raise RequestError(503, f"{self.depth} rows wait to be scored; come back in a second")
        if not self._queue:
            self._loop.call_soon(self._score_next_batch)
        self._queue.append((rows, started_at, on_scores))
        self.depth += len(rows)

    def _score_next_batch(self) -> None:
        batch: list[tuple[list[EncodedRow], OnScores]] = []
        size, earliest_start = 0, time.perf_counter() - self._limits.max_seconds
        while self._queue and size < MAX_BATCH:
            rows, started_at, on_scores = self._queue.popleft()
            self.depth -= len(rows)
            if started_at < earliest_start:
                limit = self._limits.max_seconds
                on_scores(RequestError(503, f"not scored within {limit:g} s; come back in a second"))
                continue
            batch.append((rows, on_scores))
            size += len(rows)
        if self._queue:
            self._loop.call_soon(self._score_next_batch)
        if batch:
            self._observe(size)
            self._score(batch)

    def _score(self, batch: list[tuple[list[EncodedRow], OnScores]]) -> None:
        all_rows = [row for rows, _ in batch for row in rows]
        try:
            scores = self.model.score(all_rows)
        except (RuntimeError, ValueError) as error:
            for _, on_scores in batch:
                on_scores(error)
            return
        if self._cache is not None:
            self._cache.add(all_rows, scores)
        start = 0
        for rows, on_scores in batch:
            try:
                on_scores(scores[start : start + len(rows)])
            except Exception:  # the other requests of the batch must get theirs
                logger.exception("a response could not be written")
            start += len(rows)
