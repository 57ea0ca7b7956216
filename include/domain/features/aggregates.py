"""What was known of an entity before an event: sums by hour, added up as of the event's time.

An outcome counts in the hour in which it became known. An event at time t sees the hours that had ended `lead` before t, and
so never its own outcome or a later one, whenever it is computed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Duration, PositiveDuration
from include.domain.categories import as_text, joined

HOUR = timedelta(hours=1)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """For the entity that the columns `by` name together, over each span of `over` (whole hours): the mean of some
    outcomes, the number of `rows` known, and of `last` the newest value within the longest span."""

    __pydantic_config__ = SECTION
    by: tuple[str, ...]
    over: tuple[PositiveDuration, ...]
    mean: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    rows: bool = False

    @property
    def name(self) -> str:
        return "_".join(self.by)

    @property
    def outcomes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.mean, *self.last]))

    @cached_property
    def hours(self) -> tuple[int, ...]:
        """The spans."""
        return tuple(_hours(span) for span in self.over)

    @cached_property
    def places_of_last(self) -> tuple[int, ...]:
        """Of `last` among `outcomes`."""
        return tuple(self.outcomes.index(outcome) for outcome in self.last)

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

    __pydantic_config__ = SECTION
    lead: Duration = timedelta(0)
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

    def hour(self, time: float) -> int:
        """The same of one event."""
        return (int(time) - int(self.lead.total_seconds())) // 3600


def entity(row: Mapping[str, Any], by: Sequence[str]) -> str | None:
    """The entity's one name; None where a part of it is missing."""
    return joined([as_text(row.get(column)) for column in by])


def span_name(span: timedelta) -> str:
    hours = _hours(span)
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def faults(aggregates: Aggregates, categorical: Sequence[str], outcomes: Sequence[str]) -> Iterator[str]:
    """What is wrong with the section, given a spec's columns."""
    names = [group.name for group in aggregates.groups]
    for n, group in enumerate(aggregates.groups):
        if names.index(group.name) < n:
            yield f"groups.{n}.by: {', '.join(group.by)} has a group already: put all its spans and outcomes there"
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
