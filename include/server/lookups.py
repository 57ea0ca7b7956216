"""Aggregates of a row's past: looked up in memory, which follows what is written to the online store."""

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from include.domain.errors import Corrupt, Unavailable
from include.domain.features.aggregates import AggregateGroup, Aggregates
from include.domain.features.encoding import pack_floats
from include.domain.features.online_features import OnlineFeatures
from include.online_store.protocol import OnlineStore, StoreChanges

logger = logging.getLogger("perennial.server")


class AggregateValues(msgspec.Struct, gc=False):
    """One group's aggregates for one row: packed float32 for the model, and the fields of a JSON object for the log."""

    packed: bytes
    json_fields: bytes


class StoreStatus(msgspec.Struct):
    """What `/status` says of the online store.

    `age_seconds` is the time since its last write, `known_until` the newest outcome's time (epoch seconds), `misses` counts
    by group the rows whose entity it does not know, `fault` (a key of the answer) says why it cannot be read.
    """

    age_seconds: float | None
    known_until: int | None
    misses: dict[str, int]
    fault: str | None


class Lookups:
    """The aggregates of one model. Without a store, or until it can be read, all of them are missing (NaN)."""

    def __init__(self, store: OnlineStore | None, aggregates: Aggregates, fields: Sequence[str]) -> None:
        """Read the whole store; `fields` are the names of a row's values in their order."""
        self._store, self._aggregates, self._fields = store, aggregates, fields
        self._cursor: tuple[int, int] | None = None
        self._landing = self._refreshed = False
        self.error: str | None = None if store else "no online store was named: --store"
        self.written_at: float | None = None
        self._features = OnlineFeatures(aggregates, [], fields, _pack_values)
        if store is not None and (content := self._read(store, None)) is not None:
            features = self._build(content)
            if features is not None:
                self._replace(features, content)

    def matches(self, aggregates: Aggregates, fields: Sequence[str]) -> bool:
        """Return whether a model with these aggregates and fields would look up the same."""
        return self._store is not None and (self._aggregates, self._fields) == (aggregates, fields)

    def find(self, values: Sequence[object], before: int) -> list[AggregateValues]:
        """Return each group's aggregates for a row as of hour `before` since 1970; NaN where nothing is known."""
        return self._features.find(values, before)

    def refresh(self) -> None:
        """Apply what was written, so that a request sees everything that was written before it came.

        The requests of one turn of the event loop share one look at the store, which costs as much as a row's aggregates.
        """
        store = self._store
        if store is None or self._refreshed:
            return
        self._refreshed = True
        asyncio.get_running_loop().call_soon(self._end_turn)
        if not self._landing and self._has_changed(store) and (changes := self._read(store, self._cursor)):
            self._apply(changes)

    def _end_turn(self) -> None:
        self._refreshed = False

    async def poll(self) -> None:
        """Read what was written since the last time; landed windows are put together in a thread, while requests go on."""
        store, cursor = self._store, self._cursor
        if store is None:
            return
        changes = await asyncio.to_thread(self._read, store, cursor)
        if changes is None or cursor != self._cursor:
            return
        self._apply(changes)
        if changes.landed is not None and (features := await asyncio.to_thread(self._build, changes)) is not None:
            self._replace(features, changes)

    @property
    def misses(self) -> dict[str, int]:
        """The rows since the last landing whose entity the store does not know, by group."""
        return self._features.misses

    def status(self) -> StoreStatus:
        """Return what `/status` says of the store."""
        age = None if self.written_at is None else round(time.time() - self.written_at, 1)
        return StoreStatus(age, self._features.newest, self.misses, self.error)

    def _has_changed(self, store: OnlineStore) -> bool:
        try:
            return store.has_changed()
        except Unavailable as error:
            self._set_error(error)
            return False

    def _read(self, store: OnlineStore, cursor: tuple[int, int] | None) -> StoreChanges | None:
        try:
            changes, self.error = store.read(cursor), None
            return changes
        except Unavailable as error:
            self._set_error(error)
            return None

    def _build(self, content: StoreChanges) -> OnlineFeatures[AggregateValues] | None:
        """Put landed windows and outcomes together, or return None if a window is corrupt."""
        try:
            features = OnlineFeatures(self._aggregates, content.landed or (), self._fields, _pack_values)
        except Corrupt as error:
            self._set_error(error)
            return None
        for outcome in content.outcomes:
            features.add(outcome)
        return features

    def _apply(self, changes: StoreChanges) -> None:
        """Add outcomes; after a landing, wait until `poll` has put the windows together."""
        self._landing = changes.landed is not None
        if changes.landed is None:
            for outcome in changes.outcomes:
                self._features.add(outcome)
            self._cursor, self.written_at = changes.cursor, changes.written_at

    def _replace(self, features: OnlineFeatures[AggregateValues], content: StoreChanges) -> None:
        self._landing, self._cursor, self.written_at = False, content.cursor, content.written_at
        self._features = features

    def _set_error(self, error: Unavailable | Corrupt) -> None:
        if self.error != str(error):
            logger.warning("%s", error)
        self.error = str(error)


def _pack_values(group: AggregateGroup, values: tuple[float, ...]) -> AggregateValues:
    numbers = pack_floats(values)
    # The log need not keep digits that the model never sees.
    shortest = map(float, map(str, np.frombuffer(numbers, np.float32)))
    return AggregateValues(numbers, msgspec.json.encode(dict(zip(group.features, shortest, strict=True)))[1:-1])
