"""What a server knows of the past at this moment: the sums that landed, and the outcomes that became known since."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.domain.aggregates import Aggregates, Group, entity
from include.domain.history import History, Series, beginning, together, unpack
from include.domain.texts import BETWEEN, as_text


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
        self.misses: dict[str, int] = {group.name: 0 for group in aggregates.groups}
        self.newest = max(self._until.values(), default=None)

    def add(self, outcome: Outcome) -> None:
        """It counts once and not at all where a landed window tells it."""
        if outcome.known > self._until.get(outcome.window, -1):
            self.newest = max(self.newest or 0, outcome.known)
            for of in self._of:
                of.add(outcome)

    def reader(self, fields: Sequence[str]) -> Callable[[Sequence[Any], int], list[float]]:
        """A function of a row, given as its values in the order of `fields`, and the hour before which it sees: every
        aggregate, in the spec's order, NaN where nothing is known. What is not found at all is counted in `misses`."""
        readers = [(of.find, of.group.name, of.nothing, [fields.index(c) for c in of.group.by]) for of in self._of]
        misses = self.misses

        def read(values: Sequence[Any], before: int) -> list[float]:
            found: list[float] = []
            for find, name, nothing, places in readers:
                parts = [v if type(v := values[p]) is str and v else as_text(v) for p in places]
                if None in parts:
                    found += nothing
                elif (series := find(parts[0] if len(parts) == 1 else BETWEEN.join(parts))) is None:  # type: ignore[arg-type]
                    misses[name] += 1
                    found += nothing
                else:
                    found += series.as_of(before)
            return found

        return read


class _OfGroup:
    """Series are made when they are first asked for."""

    def __init__(self, group: Group, landed: Sequence[LandedSums]) -> None:
        held = [sums for w in landed if (sums := unpack(w.packed, group)) is not None]
        self.group, self.nothing = group, beginning(group).as_of(0)
        self._history = History(group, together(held, group.outcomes))
        self._series: dict[str, Series] = {}

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
