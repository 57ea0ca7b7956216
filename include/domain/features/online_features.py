"""The aggregates that a server knows at a moment: from the sums that landed, and the outcomes that became known since."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar, cast

from include.domain.categories import as_text, join_texts
from include.domain.features.aggregates import SECONDS_PER_HOUR, AggregateGroup, Aggregates
from include.domain.features.hourly_sums import AggregateHistory, EntityHistory, concatenate, unpack

#: Hours for which an entity's aggregates are cached: callers ask again and again about the events of some days.
MAX_CACHED_HOURS = 168

T = TypeVar("T")
#: Makes of a group's features, a tuple in their order, what a server keeps and returns.
Convert = Callable[[AggregateGroup, tuple[float, ...]], T]


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """The outcome of one event, and when it became known.

    `key` names the event, `window` is the label of its window. `known_at` is the second, since 1970, in which the outcome
    became known. `columns` name the event's entities, `values` are its outcomes, None for one that it does not have.
    """

    key: str
    window: str
    known_at: int
    columns: Mapping[str, Any]
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class LandedSums:
    """The packed sums of a landed window.

    `version` is that of the table `sums`, `known_until` the second of the newest outcome in them.
    """

    window: str
    version: int
    known_until: int
    packed: bytes


class OnlineFeatures(Generic[T]):
    """One model's aggregates as of now.

    The sums of a landed window stand for the outcomes of its events that were known up to `known_until`. Outcomes that
    became known later are added, as are all those of windows that have not landed. `newest` is the second of the newest
    outcome, None without any.
    """

    def __init__(
        self, aggregates: Aggregates, landed: Iterable[LandedSums], fields: Sequence[str], convert: Convert[T]
    ) -> None:
        """Read the landed sums; `fields` names a row's values in their order. Raises Corrupt for damaged sums."""
        windows = sorted(landed, key=lambda window: window.window)
        self._known_until = {window.window: window.known_until for window in windows}
        self._groups = [_GroupFeatures(group, windows, fields, convert) for group in aggregates.groups]
        self._lookups = [(group.cache.get, group.cache_key, group.find) for group in self._groups]
        self.newest = max(self._known_until.values(), default=None)

    def add(self, outcome: EventOutcome) -> None:
        """Add an outcome, unless the sums of its window hold it already."""
        if outcome.known_at > self._known_until.get(outcome.window, -1):
            self.newest = max(self.newest or 0, outcome.known_at)
            for group in self._groups:
                group.add(outcome)

    def find(self, values: Sequence[Any], cutoff: int) -> list[T]:
        """Return for each group the converted features of a row, from the outcomes before hour `cutoff`."""
        converted = []
        for cache, cache_key, find in self._lookups:
            by_hour = cache(cache_key(values))
            features = None if by_hour is None else by_hour.get(cutoff)
            converted.append(find(values, cutoff) if features is None else features)
        return converted

    @property
    def misses(self) -> dict[str, int]:
        """The number of look-ups of an entity without any outcome, by group."""
        return {group.name: group.misses for group in self._groups}


class _GroupFeatures(Generic[T]):
    """The aggregates of one group.

    The history of an entity is made when it is first looked up. Features are cached by the values of the group's columns
    where all of these are texts; a number, which may be spelt in other ways, is looked up by its text each time.
    """

    def __init__(
        self, group: AggregateGroup, landed: Sequence[LandedSums], fields: Sequence[str], convert: Convert[T]
    ) -> None:
        sums = [unpacked for window in landed if (unpacked := unpack(window.packed, group)) is not None]
        self.name, self._group, self._convert = group.name, group, convert
        self._missing = convert(group, EntityHistory.empty(group).as_of(0))
        self._landed = AggregateHistory(group, concatenate(sums, group.outcomes))
        self._entities: dict[str, EntityHistory] = {}
        self._indices = [fields.index(column) for column in group.by]
        self.cache_key: Callable[[Sequence[Any]], Any] = itemgetter(*self._indices)
        self.cache: dict[str | tuple[str, ...], dict[int, T]] = {}
        self.misses = 0

    def find(self, values: Sequence[Any], cutoff: int) -> T:
        """Return the features of a row, and cache them."""
        parts = [values[index] for index in self._indices]
        if (name := join_texts([as_text(part) for part in parts])) is None:
            return self._missing
        if (history := self._entity(name)) is None:
            self.misses += 1
            return self._missing
        features = self._convert(self._group, history.as_of(cutoff))
        if all(type(part) is str for part in parts):
            by_hour = self.cache.setdefault(self.cache_key(values), {})
            if len(by_hour) >= MAX_CACHED_HOURS:
                by_hour.clear()
            by_hour[cutoff] = features
        return features

    def add(self, outcome: EventOutcome) -> None:
        """Add an outcome to its entity's history, and drop what is cached of the entity."""
        texts = [as_text(outcome.columns.get(column)) for column in self._group.by]
        if (name := join_texts(texts)) is None:
            return
        history = self._entity(name)
        if history is None:
            history = self._entities[name] = EntityHistory.empty(self._group)
        values = [outcome.values.get(each) for each in self._group.outcomes]
        history.add(outcome.known_at // SECONDS_PER_HOUR, outcome.known_at, values)
        present = cast(list[str], texts)
        self.cache.pop(present[0] if len(present) == 1 else tuple(present), None)

    def _entity(self, name: str) -> EntityHistory | None:
        history = self._entities.get(name)
        if history is None and (history := self._landed.entity(name)) is not None:
            self._entities[name] = history
        return history
