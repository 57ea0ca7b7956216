"""The scores of the rows that were asked for last, of one version: a swap begins with an empty one."""

from collections import OrderedDict

from include.server.metrics import Counter
from include.server.rows import Encoded

Key = tuple[bytes, bytes]


class Cache:
    """Keeps the `most` rows used last; `outcomes` counts requests answered from it (hit) or not (miss)."""

    def __init__(self, most: int, outcomes: Counter) -> None:
        self._most, self._outcomes = most, outcomes
        self._held: OrderedDict[Key, float] = OrderedDict()

    def find(self, rows: list[Encoded]) -> list[float] | None:
        """All the rows' scores, or None where one is not known."""
        keys = [_key(row) for row in rows]
        if not all(key in self._held for key in keys):
            self._outcomes.add(("miss",))
            return None
        for key in keys:
            self._held.move_to_end(key)
        self._outcomes.add(("hit",))
        return [self._held[key] for key in keys]

    def keep(self, rows: list[Encoded], scores: list[float]) -> None:
        for row, score in zip(rows, scores, strict=True):
            self._held[_key(row)] = score
        while len(self._held) > self._most:
            self._held.popitem(last=False)


def _key(row: Encoded) -> Key:
    return row.ids, row.numbers
