"""Sums of outcomes by entity and hour, and the aggregates that follow from them: for a table's rows, and for one row.

`AggregateHistory.as_of` is for columns of rows; `EntityHistory.as_of`, of one entity, gives the same numbers for one row in
microseconds. Hours are counted from 1970.
"""

import math
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from include.domain.errors import Corrupt
from include.domain.features.aggregates import AggregateGroup

#: Bits of a key that hold the hour: enough until the year 3883. The entity's number stands above them.
HOUR_BITS = 24
#: Separates the entities of a packed text; no text of a source holds it.
UNIT_SEPARATOR = "\x1f"
#: The arrays of each outcome, as packed windows name them.
OUTCOME_ARRAYS = ("counts", "sums", "lasts")
NAN = math.nan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HourlySums:
    """One group's outcomes by entity and hour, `[m]` each, in any order; an entity and hour may occur more than once.

    `newest` is the second, since 1970, in which the hour's newest outcome became known. For each outcome `counts` says how
    many values were known, `sums` is their sum, and `lasts` is the newest value, NaN where it is missing.
    """

    entities: Sequence[str]
    hours: Ints
    newest: Ints
    counts: Mapping[str, Floats]
    sums: Mapping[str, Floats]
    lasts: Mapping[str, Floats]


class EntityHistory:
    """The hours of one entity, ascending, with running totals; it grows as outcomes become known."""

    __slots__ = ("_counts", "_group", "_hours", "_lasts", "_newest", "_sums")

    def __init__(
        self,
        group: AggregateGroup,
        hours: list[int],
        newest: list[int],
        counts: list[list[float]],
        sums: list[list[float]],
        lasts: list[list[float]],
    ) -> None:
        self._group, self._hours, self._newest = group, hours, newest
        self._counts, self._sums, self._lasts = counts, sums, lasts

    @classmethod
    def empty(cls, group: AggregateGroup) -> "EntityHistory":
        """Return the history of an entity that has none yet."""
        outcomes = range(len(group.outcomes))
        return cls(group, [], [], [[0.0] for _ in outcomes], [[0.0] for _ in outcomes], [[] for _ in outcomes])

    def as_of(self, cutoff: int) -> tuple[float, ...]:
        """Return the group's features in their order, from the hours before `cutoff`; NaN where no outcome was known."""
        hours, group = self._hours, self._group
        end = bisect_left(hours, cutoff)
        starts = [bisect_left(hours, cutoff - span) for span in group.span_hours]
        features = []
        for k in range(len(group.mean)):
            counts, sums = self._counts[k], self._sums[k]
            count, total = counts[end], sums[end]
            features += [(total - sums[s]) / (count - counts[s]) if count > counts[s] else NAN for s in starts]
        if group.rows:
            features += [self._counts[0][end] - self._counts[0][s] for s in starts]
        has_recent = end > min(starts)
        features += [self._lasts[k][end - 1] if has_recent else NAN for k in group.last_indices]
        return tuple(features)

    def add(self, hour: int, second: int, values: Sequence[float | None]) -> None:
        """Add an outcome that became known in this second of that hour; `values` are in the order of `group.outcomes`."""
        i = bisect_right(self._hours, hour) - 1
        if i < 0 or self._hours[i] != hour:
            i += 1
            self._insert_hour(i, hour)
        for k, value in enumerate(values):
            if value is not None:
                for j in range(i + 1, len(self._hours) + 1):
                    self._counts[k][j] += 1
                    self._sums[k][j] += value
            new = NAN if value is None else value
            last = self._lasts[k][i]
            if second > self._newest[i] or (second == self._newest[i] and not new <= last):
                self._lasts[k][i] = last if second == self._newest[i] and value is None else new
        self._newest[i] = max(self._newest[i], second)

    def _insert_hour(self, i: int, hour: int) -> None:
        self._hours.insert(i, hour)
        self._newest.insert(i, -1)
        for totals in (*self._counts, *self._sums):
            totals.insert(i + 1, totals[i])
        for lasts in self._lasts:
            lasts.insert(i, NAN)


class AggregateHistory:
    """One group's sums with running totals over all entities and hours."""

    def __init__(self, group: AggregateGroup, sums: HourlySums) -> None:
        names, codes = np.unique(np.asarray(sums.entities, dtype=object).astype(str), return_inverse=True)
        keys = (codes.astype(np.int64) << HOUR_BITS) | sums.hours
        order = np.lexsort((sums.newest, keys))
        self._group, self._codes = group, {str(name): n for n, name in enumerate(names)}
        self._keys, self._newest = keys[order], sums.newest[order]
        self._counts = {name: _running_total(sums.counts[name][order]) for name in group.outcomes}
        self._sums = {name: _running_total(sums.sums[name][order]) for name in group.outcomes}
        self._lasts: dict[str, Floats] = {}
        for name in group.outcomes:
            by_value = np.lexsort((_missing_first(sums.lasts[name]), sums.newest, keys))
            self._lasts[name] = sums.lasts[name][by_value]

    def as_of(self, entities: Sequence[str | None], cutoffs: Ints) -> dict[str, Floats]:
        """Return the group's features `[n]` of entities, each from the hours before its cutoff.

        They are NaN where no outcome was known, or the entity is None.
        """
        group = self._group
        codes = np.array([self._codes.get(e, -1) if e is not None else -1 for e in entities], dtype=np.int64)
        end = np.searchsorted(self._keys, (codes << HOUR_BITS) | cutoffs)
        first_hours = [np.maximum(cutoffs - span, 0) for span in group.span_hours]
        starts = [np.searchsorted(self._keys, (codes << HOUR_BITS) | first) for first in first_hours]
        features = []
        for outcome in group.mean:
            counts, sums = self._counts[outcome], self._sums[outcome]
            for start in starts:
                count = counts[end] - counts[start]
                mean = np.divide(sums[end] - sums[start], count, out=np.full(len(end), np.nan), where=count > 0)
                features.append(mean)
        if group.rows:
            counts = self._counts[group.outcomes[0]]
            features += [counts[end] - counts[start] for start in starts]
        has_recent = end > np.minimum.reduce(starts)
        for outcome in group.last:
            newest = self._lasts[outcome][np.maximum(end - 1, 0)] if len(self._keys) else np.full(len(end), np.nan)
            features.append(np.where(has_recent, newest, np.nan))
        return dict(zip(group.features, features, strict=True))

    def entity(self, name: str) -> EntityHistory | None:
        """Return the history of one entity; None for one that has none."""
        code = self._codes.get(name)
        if code is None:
            return None
        start, end = np.searchsorted(self._keys, [code << HOUR_BITS, (code + 1) << HOUR_BITS])
        hours = self._keys[start:end] & ((1 << HOUR_BITS) - 1)
        totals = slice(start, end + 1)
        return EntityHistory(
            self._group,
            hours.tolist(),
            self._newest[start:end].tolist(),
            [(counts[totals] - counts[start]).tolist() for counts in self._counts.values()],
            [(sums[totals] - sums[start]).tolist() for sums in self._sums.values()],
            [lasts[start:end].tolist() for lasts in self._lasts.values()],
        )


def concatenate(parts: Sequence[HourlySums], outcomes: Sequence[str]) -> HourlySums:
    """Return several windows' sums as one; no rows, with these outcomes, where there are no windows."""
    entities = [entity for part in parts for entity in part.entities]
    hours, newest = _join_ints([part.hours for part in parts]), _join_ints([part.newest for part in parts])
    counts = {outcome: _join_floats([part.counts[outcome] for part in parts]) for outcome in outcomes}
    sums = {outcome: _join_floats([part.sums[outcome] for part in parts]) for outcome in outcomes}
    lasts = {outcome: _join_floats([part.lasts[outcome] for part in parts]) for outcome in outcomes}
    return HourlySums(entities, hours, newest, counts, sums, lasts)


def pack(groups: Mapping[str, HourlySums]) -> bytes:
    """Return the groups' sums of a window, by group name, as a NumPy `.npz` file without pickled objects."""
    arrays: dict[str, Any] = {}
    for name, sums in groups.items():
        arrays[f"{name}/entities"] = np.frombuffer(UNIT_SEPARATOR.join(sums.entities).encode(), dtype=np.uint8)
        arrays |= {f"{name}/hours": sums.hours, f"{name}/newest": sums.newest}
        for kind in OUTCOME_ARRAYS:
            arrays |= {f"{name}/{kind}/{outcome}": values for outcome, values in getattr(sums, kind).items()}
    out = BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def unpack(packed: bytes, group: AggregateGroup) -> HourlySums | None:
    """Return one group's sums of a window; None where it was packed without the group or one of its outcomes.

    Raises Corrupt for bytes that are no packed window.
    """
    try:
        return _unpack(packed, group)
    except (ValueError, OSError, BadZipFile, zlib.error) as error:
        raise Corrupt(f"packed sums cannot be read: {error}") from None


def _unpack(packed: bytes, group: AggregateGroup) -> HourlySums | None:
    with np.load(BytesIO(packed), allow_pickle=False) as arrays:
        names = [{outcome: f"{group.name}/{kind}/{outcome}" for outcome in group.outcomes} for kind in OUTCOME_ARRAYS]
        if any(name not in arrays for by_outcome in names for name in by_outcome.values()):
            return None
        text = arrays[f"{group.name}/entities"].tobytes().decode()
        counts, sums, lasts = ({outcome: arrays[name] for outcome, name in by_outcome.items()} for by_outcome in names)
        hours, newest = arrays[f"{group.name}/hours"], arrays[f"{group.name}/newest"]
        return HourlySums(text.split(UNIT_SEPARATOR) if text else [], hours, newest, counts, sums, lasts)


def _join_ints(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64)


def _join_floats(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate([np.empty(0, dtype=np.float64), *arrays]).astype(np.float64)


def _running_total(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _missing_first(values: Floats) -> Floats:
    """Return the values for sorting: a missing one is the least."""
    return np.where(np.isnan(values), -np.inf, values)
