"""Slices: is there a part of the traffic on which the challenger is much worse than the champion?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from include.domain import statistics
from include.domain.bounds import SECTION, NonNegativeFloat, PositiveInt
from include.domain.categories import as_text
from include.domain.statistics import Floats
from include.domain.verdict import Check, Outcome

#: A numeric column with more distinct values than this is cut at its quartiles.
MAX_LEVELS = 20
#: So many small slices are named; of the others only the number is given.
NAMED = 5


@dataclass(frozen=True)
class Slices:
    """No slice of at least `min_rows` may be worse than the champion by more than `margin` nats (Holm over all)."""

    __pydantic_config__ = SECTION
    by: tuple[str, ...] = ()
    min_rows: PositiveInt = 500
    margin: NonNegativeFloat = 0.02


@dataclass(frozen=True)
class SliceEffect:
    """How much greater the challenger's logloss is than the champion's on one slice.

    `p` is the p-value, adjusted by Holm over all slices, of the hypothesis that `worse_by` is within the margin.
    """

    column: str
    value: str
    rows: int
    worse_by: float
    interval: tuple[float, float]
    p: float

    def __str__(self) -> str:
        lower, upper = self.interval
        return f"{self.column}={self.value} ({self.rows:,} rows) by {self.worse_by:+.4f} ({lower:+.4f} to {upper:+.4f})"


@dataclass(frozen=True)
class SlicedColumn:
    """The slices of one column: their `names` `[k]`, the slice of each row `index` `[n]`, and their counts of `rows` `[k]`."""

    names: NDArray[np.str_]
    index: NDArray[np.intp]
    rows: NDArray[np.intp]

    def too_small(self, min_rows: int, values_without_rows: Sequence[str]) -> list[str]:
        """Return the slices too small to judge, with their rows: the largest first, and last those that have no row at all."""
        small = [level for level in np.argsort(-self.rows, kind="stable") if self.rows[level] < min_rows]
        empty = [f"{value} (0)" for value in values_without_rows]
        return [*(f"{self.names[level]} ({self.rows[level]:,})" for level in small), *empty]


def effects(
    settings: Slices,
    differences: Floats,
    columns: Mapping[str, ArrayLike],
    confidence: float,
    groups: ArrayLike | None,
) -> list[SliceEffect]:
    """Return the effect on every slice that has enough rows, the most suspect first.

    `differences` `[n]` say how much greater each row's loss is than under the champion. `columns` are raw values `[n]` by
    name. `groups` `[n]` say which rows depend on each other.
    """
    unadjusted = []
    for column, sliced in _sliced_columns(settings, columns).items():
        for level in np.flatnonzero(sliced.rows >= settings.min_rows):
            is_inside = sliced.index == level
            estimate = statistics.mean(differences[is_inside])
            inside_groups = None if groups is None else np.asarray(groups)[is_inside]
            unadjusted.append(
                SliceEffect(
                    column=column,
                    value=str(sliced.names[level]),
                    rows=int(sliced.rows[level]),
                    worse_by=estimate.value,
                    interval=estimate.interval(confidence, inside_groups),
                    p=statistics.p_value_above(estimate, settings.margin, inside_groups),
                )
            )
    adjusted = statistics.holm_adjusted([effect.p for effect in unadjusted])
    judged = [replace(effect, p=float(p)) for effect, p in zip(unadjusted, adjusted, strict=True)]
    return sorted(judged, key=lambda effect: (effect.p, -effect.worse_by))


def judge(
    settings: Slices,
    slice_effects: list[SliceEffect],
    columns: Mapping[str, ArrayLike],
    confidence: float,
    values_without_rows: Mapping[str, Sequence[str]],
) -> list[Check]:
    """Return one check for each column of `settings.by`; a column that is not there fails.

    `slice_effects` are what `effects` returned, `values_without_rows` by column the values that no row has.
    """
    sliced = _sliced_columns(settings, columns)
    checks = []
    for name in settings.by:
        if name in sliced:
            too_small = sliced[name].too_small(settings.min_rows, values_without_rows.get(name, ()))
            column_effects = [effect for effect in slice_effects if effect.column == name]
            checks.append(_judge_column(settings, name, column_effects, too_small, confidence))
        else:
            sentence = f"{name}: the column to slice by is not in the test rows"
            checks.append(Check(f"slices of {name}", Outcome.FAIL, sentence))
    return checks


def _judge_column(
    settings: Slices, name: str, slice_effects: list[SliceEffect], too_small: list[str], confidence: float
) -> Check:
    title, alpha = f"slices of {name}", 1 - confidence
    names = ", ".join(too_small[:NAMED]) + (f" and {len(too_small) - NAMED:,} more" if len(too_small) > NAMED else "")
    if not slice_effects:
        return Check(title, Outcome.INCONCLUSIVE, f"{name}: no slice has {settings.min_rows:,} rows: {names}")
    not_judged = f"; not judged, with fewer than {settings.min_rows:,} rows: {names}" if too_small else ""
    worse = [effect for effect in slice_effects if effect.p < alpha]
    most_suspect = slice_effects[0]
    if worse:
        sentence = f"worse than the champion by more than {settings.margin:g} logloss: {'; '.join(map(str, worse))}"
    else:
        sentence = (
            f"{name}: none of {len(slice_effects)} slices is worse by more than {settings.margin:g} logloss; "
            f"most suspect is {most_suspect}"
        )
    outcome = Outcome.FAIL if worse else Outcome.PASS
    return Check(title, outcome, sentence + not_judged, most_suspect.worse_by, settings.margin, most_suspect.interval)


def _sliced_columns(settings: Slices, columns: Mapping[str, ArrayLike]) -> dict[str, SlicedColumn]:
    """Return the slices of each column of `settings.by` that is there."""
    sliced = {}
    for column in (name for name in settings.by if name in columns):
        levels = _level_names(np.asarray(columns[column]))
        names, index, rows = np.unique(levels, return_inverse=True, return_counts=True)
        sliced[column] = SlicedColumn(names, index, rows)
    return sliced


def _level_names(values: NDArray[np.generic]) -> NDArray[np.str_]:
    """Return the name of each row's slice, `[n]`: its value, or a range where a column has many numbers."""
    if values.dtype.kind not in "iuf" or len(np.unique(values)) <= MAX_LEVELS:
        return np.asarray([as_text(value) or "missing" for value in values])
    numbers = values.astype(np.float64)
    edges = np.unique(np.nanquantile(numbers, (0.25, 0.5, 0.75)))
    names = np.asarray([f"up to {edge:g}" for edge in edges] + [f"above {edges[-1]:g}"])
    return np.where(np.isnan(numbers), "missing", names[np.searchsorted(edges, numbers)])
