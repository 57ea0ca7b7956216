"""A raw row becomes ids and numbers: the one function that features, trainer and server share.

Categorical values become ids of their field's own vocabulary; numbers stay raw, with NaN for a missing one, because the
exported model scales them itself. So training and serving cannot disagree.
"""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from struct import Struct
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from include.domain.categories import as_number, as_text, shown
from include.domain.features.transforms import Transform

MISSING = 0
UNKNOWN = 1
FIRST_KNOWN = 2
#: The least number that is infinite as float32.
INFINITE = 2.0**128 - 2.0**103
#: Times whose parts a RowEncoder remembers; live rows share their times.
REMEMBERED = 4096
#: Knots of the empirical distribution kept per number, for the model's rank-Gaussian scaling.
KNOTS = 65

TIME_PARTS: dict[str, Callable[[datetime], int]] = {
    "hour": lambda at: at.hour,
    "weekday": lambda at: at.weekday(),
    "month": lambda at: at.month,
}

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Encoding:
    """Fitted on training windows alone, stored with the model as `encoding.json`.

    `categorical` and `numeric` name the model's fields in order: columns, then transforms of them; the parts of the time are
    the last of the categorical ones. `vocabulary[field][text]` is an id from 2; `knots[field]` are its quantiles, ascending.
    """

    time: str
    zone: str
    time_parts: tuple[str, ...]
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    vocabulary: Mapping[str, Mapping[str, int]]
    knots: Mapping[str, tuple[float, ...]]
    transforms: tuple[Transform, ...] = ()

    @cached_property
    def made(self) -> Mapping[str, Transform]:
        """The transforms by name."""
        return {transform.name: transform for transform in self.transforms}

    def sources(self, field: str) -> tuple[str, ...]:
        """The raw columns of which a field is made."""
        if field in self.time_parts:
            return (self.time,)
        return self.made[field].of if field in self.made else (field,)

    @property
    def sizes(self) -> list[int]:
        """Ids per categorical field, missing and unknown among them."""
        return [FIRST_KNOWN + len(self.vocabulary[field]) for field in self.categorical]

    def encode(self, columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Raw columns of equal length n → ids `[n, categorical]`, numbers `[n, numeric]`; an absent column is missing.

        Raises ValueError, naming the field, for a number or a time that cannot be read.
        """
        rows = len(next(iter(columns.values())))
        ids = np.zeros((rows, len(self.categorical)), dtype=np.int64)
        for i, field in enumerate(self.categorical):
            vocabulary = self.vocabulary[field]
            texts = self._texts(field, columns, rows)
            ids[:, i] = [MISSING if text is None else vocabulary.get(text, UNKNOWN) for text in texts]
        numbers = np.full((rows, len(self.numeric)), np.nan, dtype=np.float32)
        for i, field in enumerate(self.numeric):
            if field in self.made:
                numbers[:, i] = as_numbers(field, self._transformed(field, columns, rows))
            elif field in columns:
                numbers[:, i] = as_numbers(field, columns[field])
        return ids, numbers

    def _transformed(self, field: str, columns: Columns, rows: int) -> list[Any]:
        transform = self.made[field]
        return [transform(v) for v in zip(*(columns.get(c, [None] * rows) for c in transform.of), strict=True)]

    def _texts(self, field: str, columns: Columns, rows: int) -> Iterable[str | None]:
        if field in self.time_parts:
            try:
                return time_part(field, columns.get(self.time, [None] * rows), self.zone)
            except ValueError as fault:
                raise ValueError(f"{self.time}: {fault}") from None
        if field in self.made:
            return self._transformed(field, columns, rows)
        return map(as_text, columns[field]) if field in columns else [None] * rows

    def to_dict(self) -> dict[str, Any]:
        return {
            "time": self.time, "zone": self.zone, "time_parts": list(self.time_parts),
            "categorical": list(self.categorical), "numeric": list(self.numeric),
            "vocabulary": {f: dict(v) for f, v in self.vocabulary.items()},
            "knots": {f: list(k) for f, k in self.knots.items()},
            "transforms": [asdict(transform) for transform in self.transforms],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Encoding":
        return cls(
            time=data["time"], zone=data["zone"], time_parts=tuple(data["time_parts"]),
            categorical=tuple(data["categorical"]), numeric=tuple(data["numeric"]),
            vocabulary=data["vocabulary"], knots={f: tuple(k) for f, k in data["knots"].items()},
            transforms=tuple(Transform(**made) for made in data.get("transforms", ())),
        )  # fmt: skip


class RowEncoder:
    """`Encoding.encode` for one row at a time, packed: the same values at a small part of its cost for a single row.

    A row is given as its values in the order of `fields`, others may follow: the time, the categorical columns, the numeric
    ones, but for those that somebody else finds (`looked_up`, the last of them).
    """

    def __init__(self, encoding: Encoding, looked_up: Sequence[str] = ()) -> None:
        vocabularies, made = encoding.vocabulary, encoding.made
        named = [f for f in encoding.categorical if f not in encoding.time_parts and f not in made]
        numeric = [f for f in encoding.numeric if f not in made and f not in looked_up]
        self.fields = (encoding.time, *named, *numeric)
        self._columns = [vocabularies[f].get for f in named]
        self._parts = [(TIME_PARTS[f], vocabularies[f]) for f in encoding.time_parts]
        self._time, self._zone, self._numeric = encoding.time, ZoneInfo(encoding.zone), numeric
        self._own = slice(1 + len(named), len(self.fields))
        placed = [(t, [self.fields.index(c) for c in t.of]) for t in encoding.transforms]
        self._classes = [(t, places, vocabularies[t.name].get) for t, places in placed if not t.is_number]
        self._numbers = [(t, places) for t, places in placed if t.is_number]
        self._remembered: dict[str, list[int]] = {}
        self._pack_ids = Struct(f"{len(encoding.categorical)}q").pack
        self._pack_numbers = Struct(f"{len(numeric) + len(self._numbers)}f").pack

    def __call__(self, values: Sequence[Any]) -> tuple[bytes, bytes]:
        """The row's ids (int64) and numbers (float32, NaN for a missing one). Raises ValueError naming the field, as
        `encode` does."""
        ids = [get(value) or _id(get, value) for get, value in zip(self._columns, values[1:], strict=False)]
        for transform, places, get in self._classes:
            ids.append(_id(get, transform([values[p] for p in places])))
        if self._parts:
            ids += self._time_ids(values[0])
        own = values[self._own]
        try:
            numbers = _finite(own)
        except (TypeError, OverflowError):  # one came as text, or is none
            numbers = _finite([as_number(field, value) for field, value in zip(self._numeric, own, strict=True)])
        if self._numbers:
            numbers += _finite([transform([values[p] for p in places]) for transform, places in self._numbers])
        return self._pack_ids(*ids), self._pack_numbers(*numbers)

    def _time_ids(self, value: Any) -> list[int]:
        if value is None:
            return [MISSING] * len(self._parts)
        known = self._remembered.get(value) if type(value) is str else None
        if known is not None:
            return known
        try:
            local = as_time(value).astimezone(self._zone)
        except (ValueError, OverflowError) as fault:
            raise ValueError(f"{self._time}: {fault}") from None
        ids = [vocabulary.get(str(read(local)), UNKNOWN) for read, vocabulary in self._parts]
        if type(value) is str:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[value] = ids
        return ids


def fit(
    columns: Columns, *, time: str, zone: str, time_parts: Sequence[str], categorical: Sequence[str],
    numeric: Sequence[str], min_frequency: int, transforms: Sequence[Transform] = (), looked_up: Sequence[str] = (),
    max_ids: int | None = None,
) -> Encoding:  # fmt: skip
    """The encoding of these rows: values seen `min_frequency` times or more by count, each number's quantiles.

    `looked_up` are numeric columns that a server finds by itself; they are the model's last. Of all fields' values together
    the `max_ids` most frequent are kept; the others are unknown.
    """
    classes, numbers = ([t.name for t in transforms if t.is_number is kind] for kind in (False, True))
    fields, measured = (*categorical, *classes, *time_parts), (*numeric, *numbers, *looked_up)
    blank = Encoding(time, zone, tuple(time_parts), fields, measured, {}, {}, tuple(transforms))
    rows = len(next(iter(columns.values())))
    counts = {f: _frequent(blank._texts(f, columns, rows), min_frequency) for f in fields}
    kept = _capped(counts, max_ids)
    vocabulary = {f: {text: i for i, text in enumerate(kept[f], FIRST_KNOWN)} for f in fields}
    made = {f: blank._transformed(f, columns, rows) for f in numbers}
    knots = {f: _knots(as_numbers(f, made.get(f, columns.get(f, ())))) for f in measured}
    return replace(blank, vocabulary=vocabulary, knots=knots)


def as_numbers(field: str, values: Sequence[Any]) -> NDArray[np.float32]:
    """float32 `[n]`, NaN where missing; infinite is missing. Raises ValueError naming the field and the value."""
    with np.errstate(over="ignore"):
        try:
            numbers = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            numbers = np.array([as_number(field, v) for v in values], dtype=np.float32)
    if numbers.ndim != 1:
        raise ValueError(f"{field}: {shown(values[0])} is not a number")
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def time_part(part: str, times: Iterable[Any], zone: str) -> list[str | None]:
    """`hour` (0–23), `weekday` (Monday is 0) or `month` (1–12) of each time in the zone, as text. Raises ValueError."""
    local, read = ZoneInfo(zone), TIME_PARTS[part]
    try:
        return [None if t is None else str(read(as_time(t).astimezone(local))) for t in times]
    except OverflowError as fault:
        raise ValueError(str(fault)) from None


def as_time(value: Any) -> datetime:
    """A datetime, an ISO text or epoch seconds as an aware datetime; without a zone it is UTC. Raises ValueError."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return datetime.fromtimestamp(value, UTC)
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{shown(value)} is not an ISO time or epoch seconds") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def packed(numbers: Sequence[float | None]) -> bytes:
    """As float32, NaN for one that is missing or infinite."""
    return array("f", _finite(numbers)).tobytes()


def _finite(numbers: Sequence[float | None]) -> list[float]:
    """NaN for one that is missing or infinite as float32. Raises TypeError or OverflowError for what is no double."""
    nan, least, most = math.nan, -INFINITE, INFINITE
    return [nan if n is None else n if least < n < most else nan * float(n) for n in numbers]


def _id(get: Callable[[str], int | None], value: Any) -> int:
    text = as_text(value)
    return MISSING if text is None else get(text) or UNKNOWN


def _frequent(texts: Iterable[str | None], min_frequency: int) -> list[tuple[int, str]]:
    """How often, and what: the most frequent first."""
    counts = Counter(text for text in texts if text is not None)
    return sorted(((n, t) for t, n in counts.items() if n >= min_frequency), key=lambda seen: (-seen[0], seen[1]))


def _capped(counts: Mapping[str, list[tuple[int, str]]], most: int | None) -> dict[str, list[str]]:
    """Each field's values, of all fields together no more than `most`."""
    ranked = sorted(((-n, field, text) for field, seen in counts.items() for n, text in seen), key=lambda rank: rank[0])
    kept: dict[str, list[str]] = {field: [] for field in counts}
    for _, field, text in ranked[:most]:
        kept[field].append(text)
    return kept


def _knots(numbers: NDArray[np.float32]) -> tuple[float, ...]:
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return (0.0,)
    quantiles = np.quantile(known.astype(np.float64), np.linspace(0, 1, KNOTS))
    return cast(tuple[float, ...], tuple(float(q) for q in np.unique(quantiles)))
