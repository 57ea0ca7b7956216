"""What was known of an entity before an event: sums by hour, added up as of the event's time.

An outcome counts in the hour in which it became known. An event at time t sees the hours that had ended `lead` before t, and
so never its own outcome or a later one, whenever it is computed. Training and serving call `History.as_of` alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.encoding import as_text

#: Bits of a key that hold the hour since 1970: enough until the year 3883; the entity's number stands above them.
HOUR_BITS = 24
BETWEEN = "|"
HOUR = timedelta(hours=1)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """For the entity that the columns `by` name together, over each span of `over` (whole hours): the mean of some
    outcomes, the number of `rows` known, and of `last` the newest value within the longest span."""

    __pydantic_config__ = {"extra": "forbid"}
    by: tuple[str, ...]
    over: tuple[timedelta, ...]
    mean: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    rows: bool = False

    @property
    def name(self) -> str:
        return "_".join(self.by)

    @property
    def outcomes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.mean, *self.last]))

    @property
    def features(self) -> tuple[str, ...]:
        """The numeric columns it gives, in order."""
        spans = [span_name(s) for s in self.over]
        means = [f"{outcome}_mean_{self.name}_{span}" for outcome in self.mean for span in spans]
        counts = [f"rows_{self.name}_{span}" for span in spans] if self.rows else []
        return (*means, *counts, *(f"{outcome}_last_{self.name}" for outcome in self.last))


@dataclass(frozen=True)
class Aggregates:
    """The `features.aggregates` section of a spec. `lead`: a prediction is asked for so long before the event."""

    __pydantic_config__ = {"extra": "forbid"}
    lead: timedelta = timedelta(0)
    groups: tuple[Group, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.features)

    @property
    def outcomes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(outcome for group in self.groups for outcome in group.outcomes))

    @property
    def longest(self) -> timedelta:
        return max((span for group in self.groups for span in group.over), default=timedelta(0))

    def hours(self, times: Ints) -> Ints:
        """For events at `times` (epoch seconds) the hour, since 1970, before which all is seen."""
        return (times - int(self.lead.total_seconds())) // 3600


class History:
    """One group's sums by entity and hour, ready to be added up.

    `entities` `[m]` and `hours` `[m]` (since 1970) in any order; for each outcome `counts`, `sums` and `lasts` `[m]`: how
    many values were known, their sum, and the newest of that hour. The same entity and hour may occur more than once.
    """

    def __init__(
        self, entities: Sequence[str], hours: Ints, counts: Mapping[str, Floats], sums: Mapping[str, Floats],
        lasts: Mapping[str, Floats],
    ) -> None:  # fmt: skip
        names, codes = np.unique(np.asarray(entities, dtype=object).astype(str), return_inverse=True)
        keys = (codes.astype(np.int64) << HOUR_BITS) | hours
        order = np.argsort(keys, kind="stable")
        self._codes = {str(name): n for n, name in enumerate(names)}
        self._keys = keys[order]
        self._counts = {name: _running(values[order]) for name, values in counts.items()}
        self._sums = {name: _running(values[order]) for name, values in sums.items()}
        self._lasts = {name: values[order] for name, values in lasts.items()}

    def as_of(self, group: Group, entities: Sequence[str | None], before: Ints) -> dict[str, Floats]:
        """The group's features `[n]` of entities, each as of an hour; NaN where nothing was known."""
        known = np.array(
            [self._codes.get(entity, -1) if entity is not None else -1 for entity in entities], dtype=np.int64
        )
        end = np.searchsorted(self._keys, (known << HOUR_BITS) | before)
        starts = {span: np.searchsorted(self._keys, (known << HOUR_BITS) | np.maximum(before - _hours(span), 0))
                  for span in group.over}  # fmt: skip
        found: dict[str, Floats] = {}
        for outcome in group.mean:
            for span, start in starts.items():
                count = self._counts[outcome][end] - self._counts[outcome][start]
                total = self._sums[outcome][end] - self._sums[outcome][start]
                mean = np.divide(total, count, out=np.full(len(end), np.nan), where=count > 0)
                found[f"{outcome}_mean_{group.name}_{span_name(span)}"] = mean
        if group.rows:
            counts = self._counts[group.outcomes[0]]
            found |= {f"rows_{group.name}_{span_name(s)}": counts[end] - counts[start] for s, start in starts.items()}
        for outcome in group.last:
            fresh = end > starts[max(group.over)]
            newest = self._lasts[outcome][np.maximum(end - 1, 0)] if len(self._keys) else np.full(len(end), np.nan)
            found[f"{outcome}_last_{group.name}"] = np.where(fresh, newest, np.nan)
        return found


def entity(row: Mapping[str, Any], by: Sequence[str]) -> str | None:
    """The entity's one name; None where a part of it is missing."""
    parts = [as_text(row.get(column)) for column in by]
    return None if any(part is None for part in parts) else BETWEEN.join(str(part) for part in parts)


def span_name(span: timedelta) -> str:
    hours = _hours(span)
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def faults(aggregates: Aggregates, categorical: Sequence[str], outcomes: Sequence[str]) -> Iterator[str]:
    """What is wrong with the section, given a spec's columns."""
    for n, group in enumerate(aggregates.groups):
        if unknown := [c for c in group.by if c not in categorical]:
            yield f"groups.{n}.by: {', '.join(unknown)}: not a categorical column"
        if unknown := [o for o in group.outcomes if o not in outcomes]:
            yield f"groups.{n}: {', '.join(unknown)}: neither the label nor one of columns.outcomes"
        if not group.over or any(s < HOUR or s % HOUR for s in group.over):
            yield f"groups.{n}.over: one or more spans of whole hours"
        if not group.outcomes:
            yield f"groups.{n}: name an outcome under mean or last"


def _hours(span: timedelta) -> int:
    return int(span / HOUR)


def _running(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])
