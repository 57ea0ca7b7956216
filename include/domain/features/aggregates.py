"""Aggregates of an entity's past outcomes: which there are, and which hours an event sees.

An outcome counts in the hour in which it became known. An event at time t sees the hours that had ended `lead` before t, and
so never its own outcome or a later one, whenever the aggregate is computed. Hours are counted from 1970.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.bounds import SECTION, Duration, PositiveDuration
from include.domain.categories import as_text, join_texts
from include.domain.windows import HOUR

SECONDS_PER_HOUR = 3600

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AggregateGroup:
    """Aggregates of the entity that the columns `by` name together, over each span of `over` (whole hours).

    There are the `mean` of some outcomes, the number of `rows` whose outcome is known, and of the outcomes in `last` the
    newest value within the longest span.
    """

    __pydantic_config__ = SECTION
    by: tuple[str, ...]
    over: tuple[PositiveDuration, ...]
    mean: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    rows: bool = False

    @property
    def name(self) -> str:
        """The name of the group in features and in the table `sums`."""
        return "_".join(self.by)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcomes of `mean` and `last`, each once."""
        return tuple(dict.fromkeys([*self.mean, *self.last]))

    @cached_property
    def span_hours(self) -> tuple[int, ...]:
        """The spans in hours."""
        return tuple(_hours(span) for span in self.over)

    @cached_property
    def last_indices(self) -> tuple[int, ...]:
        """The indices of `last` among `outcomes`."""
        return tuple(self.outcomes.index(outcome) for outcome in self.last)

    @property
    def features(self) -> tuple[str, ...]:
        """The numeric columns of the group, in order."""
        spans = [span_name(span) for span in self.over]
        means = [f"{outcome}_mean_{self.name}_{span}" for outcome in self.mean for span in spans]
        counts = [f"rows_{self.name}_{span}" for span in spans] if self.rows else []
        return (*means, *counts, *(f"{outcome}_last_{self.name}" for outcome in self.last))


@dataclass(frozen=True)
class Aggregates:
    """The `features.aggregates` section of a spec. A prediction is asked for `lead` before the event."""

    __pydantic_config__ = SECTION
    lead: Duration = timedelta(0)
    groups: tuple[AggregateGroup, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The numeric columns of all groups, in order."""
        return tuple(name for group in self.groups for name in group.features)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcomes of all groups, each once."""
        return tuple(dict.fromkeys(outcome for group in self.groups for outcome in group.outcomes))

    @property
    def longest_span(self) -> timedelta:
        """The longest span of any group."""
        return max((span for group in self.groups for span in group.over), default=timedelta(0))

    def cutoff_hours(self, times: Ints) -> Ints:
        """Return for events at `times` (epoch seconds `[n]`) the hour before which all outcomes are seen `[n]`."""
        return (times - int(self.lead.total_seconds())) // SECONDS_PER_HOUR

    def cutoff_hour(self, time: float) -> int:
        """Return for an event at `time` (epoch seconds) the hour before which all outcomes are seen."""
        return (int(time) - int(self.lead.total_seconds())) // SECONDS_PER_HOUR


def entity_name(row: Mapping[str, Any], by: Sequence[str]) -> str | None:
    """Return the one name of the entity that the columns `by` of the row name together; None where one is missing."""
    return join_texts([as_text(row.get(column)) for column in by])


def span_name(span: timedelta) -> str:
    """Return a span as features are named by it: `3h`, or `7d` for whole days."""
    hours = _hours(span)
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def find_errors(aggregates: Aggregates, categorical: Sequence[str], outcomes: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the section, for a spec with these columns and outcomes, each by its path."""
    names = [group.name for group in aggregates.groups]
    for n, group in enumerate(aggregates.groups):
        if names.index(group.name) < n:
            yield f"groups.{n}.by: {', '.join(group.by)} has a group already: put all its spans and outcomes there"
        if unknown := [column for column in group.by if column not in categorical]:
            yield f"groups.{n}.by: {', '.join(unknown)}: not a categorical column"
        if unknown := [outcome for outcome in group.outcomes if outcome not in outcomes]:
            yield f"groups.{n}: {', '.join(unknown)}: neither the label nor one of columns.outcomes"
        if not group.over or any(span < HOUR or span % HOUR for span in group.over):
            yield f"groups.{n}.over: one or more spans of whole hours"
        if not group.outcomes:
            yield f"groups.{n}: name an outcome under mean or last"


def _hours(span: timedelta) -> int:
    return int(span / HOUR)
