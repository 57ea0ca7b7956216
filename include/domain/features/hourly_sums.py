"""Sums of outcomes by entity and hour, and what they say of an entity as of an hour: for a table's rows, and for one row.

`History.as_of` is for columns of rows; `Series.as_of`, of one entity, gives the same numbers for one row in microseconds.
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
from include.domain.features.aggregates import Group

#: Bits of a key that hold the hour since 1970: enough until the year 3883; the entity's number stands above them.
HOUR_BITS = 24
#: Stands between the entities of a packed text; no text of a source holds it.
UNIT = "\x1f"
NAN = math.nan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sums:
    """One group's outcomes by entity and hour, `[m]` each, in any order; the same entity and hour may occur more than once.

    `hours` and `newest` (the second in which the hour's newest outcome became known) count from 1970. For each outcome
    `counts`: how many values were known, `sums`: their sum, `lasts`: the newest value, NaN where it is missing.
    """

    entities: Sequence[str]
    hours: Ints
    newest: Ints
    counts: Mapping[str, Floats]
    sums: Mapping[str, Floats]
    lasts: Mapping[str, Floats]


class Series:
    """One entity's hours, ascending, with running totals; grows as outcomes become known."""

    __slots__ = ("_counts", "_group", "_hours", "_lasts", "_newest", "_sums")

    def __init__(
        self, group: Group, hours: list[int], newest: list[int], counts: list[list[float]],
        sums: list[list[float]], lasts: list[list[float]],
    ) -> None:  # fmt: skip
        self._group, self._hours, self._newest = group, hours, newest
        self._counts, self._sums, self._lasts = counts, sums, lasts

    def as_of(self, before: int) -> tuple[float, ...]:
        """The group's features in their order, from the hours before that one; NaN where nothing was known."""
        hours, group = self._hours, self._group
        end = bisect_left(hours, before)
        starts = [bisect_left(hours, before - span) for span in group.hours]
        found = []
        for k in range(len(group.mean)):
            counts, sums = self._counts[k], self._sums[k]
            count, total = counts[end], sums[end]
            found += [(total - sums[s]) / (count - counts[s]) if count > counts[s] else NAN for s in starts]
        if group.rows:
            found += [self._counts[0][end] - self._counts[0][s] for s in starts]
        fresh = end > min(starts)
        found += [self._lasts[k][end - 1] if fresh else NAN for k in group.places_of_last]
        return tuple(found)

    def add(self, hour: int, known: int, values: Sequence[float | None]) -> None:
        """One more outcome, `values` in the order of `group.outcomes`, known in second `known` of that hour."""
        i = bisect_right(self._hours, hour) - 1
        if i < 0 or self._hours[i] != hour:
            i += 1
            self._open(i, hour)
        for k, value in enumerate(values):
            if value is not None:
                for j in range(i + 1, len(self._hours) + 1):
                    self._counts[k][j] += 1
                    self._sums[k][j] += value
            new = NAN if value is None else value
            last = self._lasts[k][i]
            if known > self._newest[i] or (known == self._newest[i] and not new <= last):
                self._lasts[k][i] = last if known == self._newest[i] and value is None else new
        self._newest[i] = max(self._newest[i], known)

    def _open(self, i: int, hour: int) -> None:
        self._hours.insert(i, hour)
        self._newest.insert(i, -1)
        for totals in (*self._counts, *self._sums):
            totals.insert(i + 1, totals[i])
        for lasts in self._lasts:
            lasts.insert(i, NAN)


class History:
    """One group's sums, ready to be added up."""

    def __init__(self, group: Group, known: Sums) -> None:
        names, codes = np.unique(np.asarray(known.entities, dtype=object).astype(str), return_inverse=True)
        keys = (codes.astype(np.int64) << HOUR_BITS) | known.hours
        order = np.lexsort((known.newest, keys))
        self._group, self._codes = group, {str(name): n for n, name in enumerate(names)}
        self._keys, self._newest = keys[order], known.newest[order]
        self._counts = {name: _running(known.counts[name][order]) for name in group.outcomes}
        self._sums = {name: _running(known.sums[name][order]) for name in group.outcomes}
        self._lasts = {name: known.lasts[name][np.lexsort((_low(known.lasts[name]), known.newest, keys))]
                       for name in group.outcomes}  # fmt: skip

    def as_of(self, entities: Sequence[str | None], before: Ints) -> dict[str, Floats]:
        """The group's features `[n]` of entities, each from the hours before one; NaN where nothing was known."""
        group = self._group
        known = np.array([self._codes.get(e, -1) if e is not None else -1 for e in entities], dtype=np.int64)
        end = np.searchsorted(self._keys, (known << HOUR_BITS) | before)
        starts = [np.searchsorted(self._keys, (known << HOUR_BITS) | np.maximum(before - span, 0))
                  for span in group.hours]  # fmt: skip
        found = []
        for outcome in group.mean:
            counts, sums = self._counts[outcome], self._sums[outcome]
            for start in starts:
                count = counts[end] - counts[start]
                found.append(np.divide(sums[end] - sums[start], count, out=np.full(len(end), np.nan), where=count > 0))
        if group.rows:
            counts = self._counts[group.outcomes[0]]
            found += [counts[end] - counts[start] for start in starts]
        fresh = end > np.minimum.reduce(starts)
        for outcome in group.last:
            newest = self._lasts[outcome][np.maximum(end - 1, 0)] if len(self._keys) else np.full(len(end), np.nan)
            found.append(np.where(fresh, newest, np.nan))
        return dict(zip(group.features, found, strict=True))

    def series(self, entity: str) -> Series | None:
        """The entity by itself; None for one that nothing is known of."""
        code = self._codes.get(entity)
        if code is None:
            return None
        start, end = np.searchsorted(self._keys, [code << HOUR_BITS, (code + 1) << HOUR_BITS])
        hours = self._keys[start:end] & ((1 << HOUR_BITS) - 1)
        totals = slice(start, end + 1)
        return Series(
            self._group, hours.tolist(), self._newest[start:end].tolist(),
            [(c[totals] - c[start]).tolist() for c in self._counts.values()],
            [(s[totals] - s[start]).tolist() for s in self._sums.values()],
            [values[start:end].tolist() for values in self._lasts.values()],
        )  # fmt: skip


def beginning(group: Group) -> Series:
    """An entity of which nothing is known yet."""
    outcomes = range(len(group.outcomes))
    return Series(group, [], [], [[0.0] for _ in outcomes], [[0.0] for _ in outcomes], [[] for _ in outcomes])


def together(parts: Sequence[Sums], outcomes: Sequence[str]) -> Sums:
    """Several windows' sums as one."""

    def joined(arrays: Sequence[NDArray[np.generic]], kind: type) -> NDArray[np.generic]:
        return np.concatenate([np.empty(0, dtype=kind), *arrays]).astype(kind)

    entities = [entity for part in parts for entity in part.entities]
    hours, newest = (joined([getattr(p, n) for p in parts], np.int64) for n in ("hours", "newest"))
    by_kind = [{o: joined([getattr(p, kind)[o] for p in parts], np.float64) for o in outcomes}
               for kind in ("counts", "sums", "lasts")]  # fmt: skip
    return Sums(entities, hours, newest, *by_kind)  # type: ignore[arg-type]


def pack(groups: Mapping[str, Sums]) -> bytes:
    """The groups' sums of a window, by name, as NumPy's `.npz` without objects."""
    arrays: dict[str, Any] = {}
    for name, sums in groups.items():
        arrays[f"{name}/entities"] = np.frombuffer(UNIT.join(sums.entities).encode(), dtype=np.uint8)
        arrays |= {f"{name}/hours": sums.hours, f"{name}/newest": sums.newest}
        for kind in ("counts", "sums", "lasts"):
            arrays |= {f"{name}/{kind}/{o}": values for o, values in getattr(sums, kind).items()}
    out = BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def unpack(packed: bytes, group: Group) -> Sums | None:
    """One group's sums; None where the window was packed without the group or one of its outcomes. Raises Corrupt."""
    try:
        return _unpacked(packed, group)
    except (ValueError, OSError, BadZipFile, zlib.error) as fault:
        raise Corrupt(f"packed sums cannot be read: {fault}") from None


def _unpacked(packed: bytes, group: Group) -> Sums | None:
    with np.load(BytesIO(packed), allow_pickle=False) as held:
        names = {kind: {o: f"{group.name}/{kind}/{o}" for o in group.outcomes} for kind in ("counts", "sums", "lasts")}
        if any(name not in held for by_outcome in names.values() for name in by_outcome.values()):
            return None
        text = held[f"{group.name}/entities"].tobytes().decode()
        arrays = [{o: held[name] for o, name in by_outcome.items()} for by_outcome in names.values()]
        return Sums(
            text.split(UNIT) if text else [], held[f"{group.name}/hours"], held[f"{group.name}/newest"], *arrays
        )


def _running(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _low(values: Floats) -> Floats:
    """For sorting: a missing value is the least."""
    return np.where(np.isnan(values), -np.inf, values)
