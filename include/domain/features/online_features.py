"""What a server knows of the past at this moment: the sums that landed, and the outcomes that became known since."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar

from include.domain.categories import as_text, joined
from include.domain.features.aggregates import Aggregates, Group
from include.domain.features.hourly_sums import History, Series, beginning, together, unpack

#: Hours whose answers are kept of an entity: callers ask again and again about the events of some days.
KEPT = 168

T = TypeVar("T")
Keep = Callable[[Group, tuple[float, ...]], T]


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


class Known(Generic[T]):
    """For one model's aggregates. A landed window stands for what was known of its events up to its newest outcome; what
    became known of them later is added, as is all of the windows that have not landed."""

    def __init__(
        self, aggregates: Aggregates, landed: Iterable[LandedSums], fields: Sequence[str], keep: Keep[T]
    ) -> None:
        """`fields` are the names of a row's values in their order. What `keep` makes of a group's features, as tuple in
        their order, is what `find` gives of them; it is made once and remembered."""
        ordered = sorted(landed, key=lambda w: w.window)
        self._until = {w.window: w.until for w in ordered}
        self._of = [_OfGroup(group, ordered, fields, keep) for group in aggregates.groups]
        self._finders = [(of.kept.get, of.pick, of.find) for of in self._of]
        self.newest = max(self._until.values(), default=None)

    def add(self, outcome: Outcome) -> None:
        """It counts once and not at all where a landed window tells it."""
        if outcome.known > self._until.get(outcome.window, -1):
            self.newest = max(self.newest or 0, outcome.known)
            for of in self._of:
                of.add(outcome)

    def find(self, values: Sequence[Any], before: int) -> list[T]:
        """Of a row, for each group: what was known before that hour, NaN where nothing was."""
        found = []
        for kept, pick, find in self._finders:
            by_hour = kept(pick(values))
            answer = None if by_hour is None else by_hour.get(before)
            found.append(find(values, before) if answer is None else answer)
        return found

    @property
    def misses(self) -> dict[str, int]:
        """By group, how often an entity was asked for of which nothing is known at all."""
        return {of.group.name: of.misses for of in self._of}


class _OfGroup(Generic[T]):
    """Series are made when they are first asked for. Answers are kept by the columns' values, where all of these are
    texts: a number, which may be spelt in other ways, is looked up by its text each time."""

    def __init__(self, group: Group, landed: Sequence[LandedSums], fields: Sequence[str], keep: Keep[T]) -> None:
        held = [sums for w in landed if (sums := unpack(w.packed, group)) is not None]
        self.group, self._keep = group, keep
        self._nothing = keep(group, beginning(group).as_of(0))
        self._history = History(group, together(held, group.outcomes))
        self._series: dict[str, Series] = {}
        self._places = [fields.index(column) for column in group.by]
        self.pick: Callable[[Sequence[Any]], Any] = itemgetter(*self._places)
        self.kept: dict[str | tuple[str, ...], dict[int, T]] = {}
        self.misses = 0

    def find(self, values: Sequence[Any], before: int) -> T:
        """What was known, found anew."""
        own = [values[place] for place in self._places]
        if (name := joined([as_text(value) for value in own])) is None:
            return self._nothing
        if (series := self._known(name)) is None:
            self.misses += 1
            return self._nothing
        answer = self._keep(self.group, series.as_of(before))
        if all(type(value) is str for value in own):
            by_hour = self.kept.setdefault(self.pick(values), {})
            if len(by_hour) >= KEPT:
                by_hour.clear()
            by_hour[before] = answer
        return answer

    def add(self, outcome: Outcome) -> None:
        texts = [as_text(outcome.columns.get(column)) for column in self.group.by]
        if (name := joined(texts)) is not None:
            series = self._known(name)
            if series is None:
                series = self._series[name] = beginning(self.group)
            values = [outcome.values.get(o) for o in self.group.outcomes]
            series.add(outcome.known // 3600, outcome.known, values)
            self.kept.pop(texts[0] if len(texts) == 1 else tuple(texts), None)  # type: ignore[arg-type]

    def _known(self, name: str) -> Series | None:
        known = self._series.get(name)
        if known is None and (known := self._history.series(name)) is not None:
            self._series[name] = known
        return known
