"""Rows of requests that arrived in the same turn of the event loop are scored together; nobody waits for company."""

import asyncio
from collections.abc import Callable

from include.server.model import Encoded, Model

#: Rows of one inference; more would only need more memory.
MAX_BATCH = 256


class Batcher:
    """Belongs to one model, so rows are always scored by the model that encoded them, also across a swap."""

    def __init__(self, model: Model, observe: Callable[[int], None]) -> None:
        self.model = model
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._ids: list[list[int]] = []
        self._numbers: list[list[float]] = []
        self._waiting: list[tuple[int, asyncio.Future[list[float]]]] = []

    def submit(self, rows: list[Encoded]) -> asyncio.Future[list[float]]:
        """The rows' scores, in order, one turn of the loop from now."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        for ids, numbers in rows:
            self._ids.append(ids)
            self._numbers.append(numbers)
        scores: asyncio.Future[list[float]] = self._loop.create_future()
        self._waiting.append((len(rows), scores))
        return scores

    def _flush(self) -> None:
        ids, self._ids = self._ids, []
        numbers, self._numbers = self._numbers, []
        waiting, self._waiting = self._waiting, []
        scores: list[float] = []
        try:
            for start in range(0, len(ids), MAX_BATCH):
                stop = start + MAX_BATCH
                scores += self.model.score(ids[start:stop], numbers[start:stop])
                self._observe(len(ids[start:stop]))
        except (RuntimeError, ValueError) as fault:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(fault)
            return
        start = 0
        for count, future in waiting:
            if not future.done():
                future.set_result(scores[start : start + count])
            start += count
