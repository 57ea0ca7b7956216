"""The past of a row's entities, from the online store: looked up in memory, which follows what is written there."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from include.domain.errors import Corrupt, Unavailable
from include.domain.features.aggregates import Aggregates, Group
from include.domain.features.encoding import packed
from include.domain.features.online_features import Known
from include.online_store.store import OnlineStore, StoreChanges

logger = logging.getLogger("perennial.server")


class Found(msgspec.Struct, gc=False):
    """A group's features of one row: packed as the model takes them, and as the JSON that the log keeps, without braces."""

    packed: bytes
    text: bytes


class Lookups:
    """One model's. Without a store, or before it answers, nothing is known: every aggregate is missing, and counted so."""

    def __init__(self, store: OnlineStore | None, aggregates: Aggregates, fields: Sequence[str]) -> None:
        """Reads the store whole; `fields` are the names of a row's values in their order."""
        self._store, self._aggregates, self._fields = store, aggregates, fields
        self._mark: tuple[int, int] | None = None
        self._landing = self._looked = False
        self.fault: str | None = None if store else "no online store was named: --store"
        self.written: float | None = None
        self.known = Known(aggregates, [], fields, _found)
        if store is not None and (news := self._news(None)) is not None and (known := self._built(news)) is not None:
            self._take(known, news)

    def tells(self, aggregates: Aggregates, fields: Sequence[str]) -> bool:
        """Whether it tells what a model with these wants to know."""
        return self._store is not None and (self._aggregates, self._fields) == (aggregates, fields)

    def find(self, values: Sequence[Any], before: int) -> list[Found]:
        """Every group's aggregates of a row as of that hour since 1970; NaN where nothing was known."""
        return self.known.find(values, before)

    def look(self) -> None:
        """Take up what was written, so that a request sees all that was written before it came: once for all requests of
        a turn of the event loop, because a look costs as much as a row's aggregates."""
        store = self._store
        if store is None or self._looked:
            return
        self._looked = True
        asyncio.get_running_loop().call_soon(self._forget)
        if not self._landing and self._changed(store) and (news := self._news(self._mark)):
            self._apply(news)

    def _forget(self) -> None:
        self._looked = False

    async def follow(self) -> None:
        """Read what was written since; windows that landed are put together beside the requests, not before them."""
        if self._store is None:
            return
        mark = self._mark
        news = await asyncio.to_thread(self._news, mark)
        if news is None or mark != self._mark:
            return
        self._apply(news)
        if news.landed is not None and (known := await asyncio.to_thread(self._built, news)) is not None:
            self._take(known, news)

    @property
    def misses(self) -> dict[str, int]:
        """By group, since the last landing."""
        return self.known.misses

    def status(self) -> dict[str, Any]:
        """`age_seconds` since the store was last written, `known_until` the newest outcome's time (epoch seconds)."""
        age = None if self.written is None else round(time.time() - self.written, 1)
        return {"age_seconds": age, "known_until": self.known.newest, "misses": self.misses, "fault": self.fault}

    def _changed(self, store: OnlineStore) -> bool:
        try:
            return store.has_changed()
        except Unavailable as fault:
            self._note(fault)
            return False

    def _news(self, since: tuple[int, int] | None) -> StoreChanges | None:
        assert self._store is not None
        try:
            news, self.fault = self._store.read(since), None
            return news
        except Unavailable as fault:
            self._note(fault)
            return None

    def _built(self, news: StoreChanges) -> Known[Found] | None:
        try:
            known = Known(self._aggregates, news.landed or (), self._fields, _found)
        except Corrupt as fault:
            self._note(fault)
            return None
        for outcome in news.outcomes:
            known.add(outcome)
        return known

    def _apply(self, news: StoreChanges) -> None:
        """What became known. After a landing it waits until `follow` has put the windows together."""
        self._landing = news.landed is not None
        if news.landed is None:
            for outcome in news.outcomes:
                self.known.add(outcome)
            self._mark, self.written = news.cursor, news.written_at

    def _take(self, known: Known[Found], news: StoreChanges) -> None:
        self._landing, self._mark, self.written = False, news.cursor, news.written_at
        self.known = known

    def _note(self, fault: Unavailable | Corrupt) -> None:
        if self.fault != str(fault):
            logger.warning("%s", fault)
        self.fault = str(fault)


def _found(group: Group, values: tuple[float, ...]) -> Found:
    numbers = packed(values)
    # The log need not keep digits that the model never sees.
    said = map(float, map(str, np.frombuffer(numbers, np.float32)))
    return Found(numbers, msgspec.json.encode(dict(zip(group.features, said, strict=True)))[1:-1])
