"""Encoding of one row at a time: the same values as `Encoding.encode` at a small part of its cost for a single row."""

from collections.abc import Sequence
from struct import Struct
from typing import Any
from zoneinfo import ZoneInfo

from include.domain.categories import as_number
from include.domain.features.encoding import MISSING, UNKNOWN, Encoding, category_id, finite
from include.domain.features.times import TIME_PARTS, as_time

#: Times whose parts a RowEncoder caches; live rows share their times.
TIME_CACHE_SIZE = 4096


class RowEncoder:
    """Encodes rows of values in the order of `fields`: the time, the categorical columns, then the numeric ones.

    More values may follow. The numeric columns `aggregates`, the last of the encoding's, are left out: others look them up.
    """

    def __init__(self, encoding: Encoding, aggregates: Sequence[str] = ()) -> None:
        vocabulary, transforms = encoding.vocabulary, encoding.transforms_by_name
        columns = [f for f in encoding.categorical if f not in encoding.time_parts and f not in transforms]
        numeric = [f for f in encoding.numeric if f not in transforms and f not in aggregates]
        self.fields = (encoding.time, *columns, *numeric)
        self._vocabularies = [vocabulary[field].get for field in columns]
        self._time_parts = [(TIME_PARTS[field], vocabulary[field]) for field in encoding.time_parts]
        self._time, self._zone, self._numeric = encoding.time, ZoneInfo(encoding.zone), numeric
        self._numeric_values = slice(1 + len(columns), len(self.fields))
        sources = [(t, [self.fields.index(column) for column in t.of]) for t in encoding.transforms]
        self._category_transforms = [(t, indices, vocabulary[t.name].get) for t, indices in sources if not t.is_number]
        self._number_transforms = [(t, indices) for t, indices in sources if t.is_number]
        self._time_cache: dict[str, list[int]] = {}
        self._pack_ids = Struct(f"{len(encoding.categorical)}q").pack
        self._pack_numbers = Struct(f"{len(numeric) + len(self._number_transforms)}f").pack

    def __call__(self, values: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return the row's ids (int64) and numbers (float32, NaN for a missing one), packed.

        Raises ValueError naming the field, as `Encoding.encode` does.
        """
        vocabularies = self._vocabularies
        ids = [get(value) or category_id(get, value) for get, value in zip(vocabularies, values[1:], strict=False)]
        for transform, indices, get in self._category_transforms:
            ids.append(category_id(get, transform([values[i] for i in indices])))
        if self._time_parts:
            ids += self._time_ids(values[0])
        raw = values[self._numeric_values]
        try:
            numbers = finite(raw)
        except (TypeError, OverflowError):  # one of them is a text, or no number
            numbers = finite([as_number(field, value) for field, value in zip(self._numeric, raw, strict=True)])
        if self._number_transforms:
            transformed = [transform([values[i] for i in indices]) for transform, indices in self._number_transforms]
            numbers += finite(transformed)
        return self._pack_ids(*ids), self._pack_numbers(*numbers)

    def _time_ids(self, value: Any) -> list[int]:
        if value is None:
            return [MISSING] * len(self._time_parts)
        cached = self._time_cache.get(value) if type(value) is str else None
        if cached is not None:
            return cached
        try:
            local = as_time(value).astimezone(self._zone)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{self._time}: {error}") from None
        ids = [vocabulary.get(str(part_of(local)), UNKNOWN) for part_of, vocabulary in self._time_parts]
        if type(value) is str:
            if len(self._time_cache) >= TIME_CACHE_SIZE:
                self._time_cache.clear()
            self._time_cache[value] = ids
        return ids
