"""A raw row becomes ids and numbers: the one function that features, trainer and server share.

Categorical values become ids of their field's own vocabulary; numbers stay raw, with NaN for a missing one, because the
exported model scales them itself. So training and serving cannot disagree.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from include.domain.categories import as_number, as_text, quote
from include.domain.features.times import time_part
from include.domain.features.transforms import Transform

#: The ids of a missing and of an unknown category, and the first one of a vocabulary.
MISSING, UNKNOWN, FIRST_ID = 0, 1, 2
#: The least number that is infinite as float32.
FLOAT32_LIMIT = 2.0**128 - 2.0**103
#: Knots of the empirical distribution of a number, for the model's rank-Gaussian scaling.
KNOTS = 65

RawColumns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Encoding:
    """How rows are encoded: fitted on training windows alone, stored with the model as `encoding.json`.

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
    def transforms_by_name(self) -> Mapping[str, Transform]:
        """The transforms by the name of their field."""
        return {transform.name: transform for transform in self.transforms}

    def source_columns(self, field: str) -> tuple[str, ...]:
        """Return the raw columns of which a field is made."""
        if field in self.time_parts:
            return (self.time,)
        transform = self.transforms_by_name.get(field)
        return transform.of if transform else (field,)

    @property
    def sizes(self) -> list[int]:
        """The number of ids of each categorical field, missing and unknown among them."""
        return [FIRST_ID + len(self.vocabulary[field]) for field in self.categorical]

    def encode(self, columns: RawColumns) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids `[n, categorical]` and numbers `[n, numeric]` of raw columns of n rows; an absent column is missing.

        Raises ValueError, naming the field, for a number or a time that cannot be read.
        """
        rows = len(next(iter(columns.values())))
        ids = np.zeros((rows, len(self.categorical)), dtype=np.int64)
        for i, field in enumerate(self.categorical):
            vocabulary = self.vocabulary[field]
            texts = self.texts(field, columns, rows)
            ids[:, i] = [MISSING if text is None else vocabulary.get(text, UNKNOWN) for text in texts]
        numbers = np.full((rows, len(self.numeric)), np.nan, dtype=np.float32)
        for i, field in enumerate(self.numeric):
            if field in self.transforms_by_name:
                numbers[:, i] = as_numbers(field, self.transformed(field, columns, rows))
            elif field in columns:
                numbers[:, i] = as_numbers(field, columns[field])
        return ids, numbers

    def texts(self, field: str, columns: RawColumns, rows: int) -> Iterable[str | None]:
        """Return a categorical field's texts, one a row. Raises ValueError as `encode` does."""
        if field in self.time_parts:
            try:
                return time_part(field, columns.get(self.time, [None] * rows), self.zone)
            except ValueError as error:
                raise ValueError(f"{self.time}: {error}") from None
        if field in self.transforms_by_name:
            return self.transformed(field, columns, rows)
        return map(as_text, columns[field]) if field in columns else [None] * rows

    def transformed(self, field: str, columns: RawColumns, rows: int) -> list[Any]:
        """Return the values of a transform's field, one a row. Raises ValueError as `encode` does."""
        transform = self.transforms_by_name[field]
        sources = (columns.get(column, [None] * rows) for column in transform.of)
        return [transform(values) for values in zip(*sources, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `encoding.json`."""
        return {
            "time": self.time,
            "zone": self.zone,
            "time_parts": list(self.time_parts),
            "categorical": list(self.categorical),
            "numeric": list(self.numeric),
            "vocabulary": {field: dict(ids) for field, ids in self.vocabulary.items()},
            "knots": {field: list(knots) for field, knots in self.knots.items()},
            "transforms": [asdict(transform) for transform in self.transforms],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Encoding":
        """Return the encoding that `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        return cls(
            time=content["time"],
            zone=content["zone"],
            time_parts=tuple(content["time_parts"]),
            categorical=tuple(content["categorical"]),
            numeric=tuple(content["numeric"]),
            vocabulary=content["vocabulary"],
            knots={field: tuple(knots) for field, knots in content["knots"].items()},
            transforms=tuple(Transform(**transform) for transform in content.get("transforms", ())),
        )


def fit(
    columns: RawColumns,
    *,
    time: str,
    zone: str,
    time_parts: Sequence[str],
    categorical: Sequence[str],
    numeric: Sequence[str],
    min_frequency: int,
    transforms: Sequence[Transform] = (),
    aggregates: Sequence[str] = (),
    max_ids: int | None = None,
) -> Encoding:
    """Return the encoding of these rows: a vocabulary for each category, quantiles for each number.

    A vocabulary has the values that occur `min_frequency` times or more, the most frequent first; of all fields together
    the `max_ids` most frequent, the others are unknown. `aggregates` are numeric columns that a server looks up itself;
    they are the last of the model's numbers.
    """
    categories, numbers = ([t.name for t in transforms if t.is_number is is_number] for is_number in (False, True))
    categorical_fields = (*categorical, *categories, *time_parts)
    numeric_fields = (*numeric, *numbers, *aggregates)
    unfitted = Encoding(time, zone, tuple(time_parts), categorical_fields, numeric_fields, {}, {}, tuple(transforms))
    rows = len(next(iter(columns.values())))
    counts = {
        field: _frequent_texts(unfitted.texts(field, columns, rows), min_frequency) for field in categorical_fields
    }
    vocabularies = _most_frequent(counts, max_ids)
    vocabulary = {
        field: {text: i for i, text in enumerate(vocabularies[field], FIRST_ID)} for field in categorical_fields
    }
    transformed = {field: unfitted.transformed(field, columns, rows) for field in numbers}
    raw = {field: transformed.get(field, columns.get(field, ())) for field in numeric_fields}
    knots = {field: _knots(as_numbers(field, values)) for field, values in raw.items()}
    return replace(unfitted, vocabulary=vocabulary, knots=knots)


def as_numbers(field: str, values: Sequence[Any]) -> NDArray[np.float32]:
    """Return float32 `[n]`, NaN where missing or infinite. Raises ValueError naming the field and the value."""
    with np.errstate(over="ignore"):
        try:
            numbers = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            numbers = np.array([as_number(field, value) for value in values], dtype=np.float32)
    if numbers.ndim != 1:
        raise ValueError(f"{field}: {quote(values[0])} is not a number")
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def category_id(vocabulary: Callable[[str], int | None], value: Any) -> int:
    """Return the id of a raw value; `vocabulary` is the `get` of a field's vocabulary."""
    text = as_text(value)
    return MISSING if text is None else vocabulary(text) or UNKNOWN


def pack_floats(numbers: Sequence[float | None]) -> bytes:
    """Return the numbers as float32, NaN for one that is missing or infinite."""
    return array("f", finite(numbers)).tobytes()


def finite(numbers: Sequence[float | None]) -> list[float]:
    """Return the numbers with NaN for one that is missing or infinite as float32.

    Raises TypeError or OverflowError for what is no double.
    """
    nan, least, most = float("nan"), -FLOAT32_LIMIT, FLOAT32_LIMIT
    return [nan if n is None else n if least < n < most else nan * float(n) for n in numbers]


def _frequent_texts(texts: Iterable[str | None], min_frequency: int) -> list[tuple[int, str]]:
    """Return the count and the text of each value that is frequent enough, the most frequent first."""
    counts = Counter(text for text in texts if text is not None)
    frequent = [(count, text) for text, count in counts.items() if count >= min_frequency]
    return sorted(frequent, key=lambda pair: (-pair[0], pair[1]))


def _most_frequent(counts: Mapping[str, list[tuple[int, str]]], max_ids: int | None) -> dict[str, list[str]]:
    """Return each field's values, of all fields together no more than `max_ids`."""
    ranked = [(-count, field, text) for field, pairs in counts.items() for count, text in pairs]
    texts: dict[str, list[str]] = {field: [] for field in counts}
    for _, field, text in sorted(ranked, key=lambda rank: rank[0])[:max_ids]:
        texts[field].append(text)
    return texts


def _knots(numbers: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the distinct quantiles of the numbers that are not missing; 0 where there are none."""
    present = numbers[np.isfinite(numbers)]
    if not len(present):
        return (0.0,)
    quantiles = np.quantile(present.astype(np.float64), np.linspace(0, 1, KNOTS))
    return cast(tuple[float, ...], tuple(float(quantile) for quantile in np.unique(quantiles)))
