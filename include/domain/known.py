"""What a server knows of the past at this moment: the sums that landed, and the outcomes that became known since."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.domain.aggregates import Aggregates, Group, entity
from include.domain.history import History, Series, beginning, together, unpack
from include.domain.texts import as_text, joined


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one event: `key` names it, `window` is the label of its window; its outcome became known in second
    `known` since 1970. `columns` name its entities, `values` are its outcomes, None for one that it has not."""

    key: str
    window: str
    known: int
    columns: Mapping[str, Any]
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class LandedSums:
    """A window's sums as they landed, packed. `version` is that of the table `sums`; `until` the second of the newest
    outcome in them."""

    window: str
    version: int
    until: int
    packed: bytes


class Known:
    """For one model's aggregates. A landed window stands for what was known of its events up to its newest outcome; what
    became known of them later is added, as is all of the windows that have not landed."""

    def __init__(self, aggregates: Aggregates, landed: Iterable[LandedSums]) -> None:
        ordered = sorted(landed, key=lambda w: w.window)
        self._until = {w.window: w.until for w in ordered}
        self._of = [_OfGroup(group, ordered) for group in aggregates.groups]
        self.newest = max(self._until.values(), default=None)

    def add(self, outcome: Outcome) -> None:
        """It counts once and not at all where a landed window tells it."""
        if outcome.known > self._until.get(outcome.window, -1):
            self.newest = max(self.newest or 0, outcome.known)
            for of in self._of:
                of.add(outcome)

    @property
    def misses(self) -> dict[str, int]:
        """By group, how often an entity was asked for of which nothing is known at all."""
        return {of.group.name: of.misses for of in self._of}

    def reader(self, fields: Sequence[str]) -> Callable[[Sequence[Any], int], list[float]]:
        """A function of a row, given as its values in the order of `fields`, and the hour before which it sees: every
        aggregate, in the spec's order, NaN where nothing is known."""
        columns = list(dict.fromkeys(column for of in self._of for column in of.group.by))
        places = [fields.index(column) for column in columns]
        readers = [(of, [columns.index(column) for column in of.group.by]) for of in self._of]

        def read(values: Sequence[Any], before: int) -> list[float]:
            texts = [v if type(v := values[p]) is str and v else as_text(v) for p in places]
            found: list[float] = []
            for of, own in readers:
                found += of.as_of(texts[own[0]] if len(own) == 1 else joined([texts[i] for i in own]), before)
            return found

        return read


class _OfGroup:
    """Series are made when they are first asked for."""

    def __init__(self, group: Group, landed: Sequence[LandedSums]) -> None:
        held = [sums for w in landed if (sums := unpack(w.packed, group)) is not None]
        self.group, self.nothing = group, beginning(group).as_of(0)
        self._history = History(group, together(held, group.outcomes))
        self._series: dict[str, Series] = {}
        self.misses = 0

    def as_of(self, name: str | None, before: int) -> tuple[float, ...]:
        if name is None:
            return self.nothing
        series = self._series.get(name) or self.find(name)
        if series is None:
            self.misses += 1
            return self.nothing
        return series.as_of(before)

    def find(self, name: str) -> Series | None:
        known = self._series.get(name)
        if known is None and (known := self._history.series(name)) is not None:
            self._series[name] = known
        return known

    def add(self, outcome: Outcome) -> None:
        if (name := entity(outcome.columns, self.group.by)) is not None:
            series = self.find(name)
            if series is None:
                series = self._series[name] = beginning(self.group)
            values = [outcome.values.get(o) for o in self.group.outcomes]
            series.add(outcome.known // 3600, outcome.known, values)
