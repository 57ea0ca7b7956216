"""The scores of the rows that were asked for last, of one version; a new version begins with an empty cache."""

from collections import OrderedDict

from include.server.prometheus import Counter
from include.server.rows import EncodedRow

CacheKey = tuple[bytes, bytes]


class ScoreCache:
    """Holds the `max_rows` rows used last (LRU); `outcomes` counts requests that it answered (hit) or could not (miss).

    It is not `cachetools.LRUCache`, which takes half again as long when half of the rows are missing.
    """

    def __init__(self, max_rows: int, outcomes: Counter) -> None:
        self._max_rows, self._outcomes = max_rows, outcomes
        self._scores: OrderedDict[CacheKey, float] = OrderedDict()

    def get(self, rows: list[EncodedRow]) -> list[float] | None:
        """Return the scores of all rows, or None if one of them is not in the cache."""
        keys = [_key(row) for row in rows]
        if not all(key in self._scores for key in keys):
            self._outcomes.inc(("miss",))
            return None
        for key in keys:
            self._scores.move_to_end(key)
        self._outcomes.inc(("hit",))
        return [self._scores[key] for key in keys]

    def add(self, rows: list[EncodedRow], scores: list[float]) -> None:
        """Store the scores, and drop the rows used least recently that no longer fit."""
        for row, score in zip(rows, scores, strict=True):
            self._scores[_key(row)] = score
        while len(self._scores) > self._max_rows:
            self._scores.popitem(last=False)


def _key(row: EncodedRow) -> CacheKey:
    return row.ids, row.numbers
