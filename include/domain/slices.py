"""Slices: is there a part of the traffic on which the challenger is much worse than the champion?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from include.domain import statistics
from include.domain.encoding import as_text
from include.domain.statistics import Floats
from include.domain.verdict import Check, Outcome

#: A numeric column with more distinct values than this is cut at its quartiles.
MAX_LEVELS = 20


@dataclass(frozen=True)
class Slices:
    """No slice of at least `min_rows` may be worse than the champion by more than `margin` nats (Holm over all)."""

    __pydantic_config__ = {"extra": "forbid"}
    by: tuple[str, ...] = ()
    min_rows: int = 500
    margin: float = 0.02


@dataclass(frozen=True)
class SliceEffect:
    """How much worse the challenger's logloss is than the champion's on a slice; `p`, by Holm, of "within the margin"."""

    column: str
    value: str
    rows: int
    worse_by: float
    interval: tuple[float, float]
    p: float

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.column}={self.value} ({self.rows:,} rows) by {self.worse_by:+.4f} ({low:+.4f} to {high:+.4f})"


def effects(
    rules: Slices, worse: Floats, columns: Mapping[str, ArrayLike], confidence: float, groups: ArrayLike | None
) -> list[SliceEffect]:
    """Every slice of `rules.by` with enough rows, the most suspect first.

    `worse` `[n]`: how much greater each row's loss is than under the champion; `columns` `[n]`: raw values by name.
    """
    found = []
    for column, value, inside in _slices(rules, columns):
        part = statistics.mean(worse[inside])
        own = None if groups is None else np.asarray(groups)[inside]
        p = statistics.p_above(part, rules.margin, own)
        found.append(SliceEffect(column, value, int(inside.sum()), part.value, part.interval(confidence, own), p))
    adjusted = statistics.holm([effect.p for effect in found])
    found = [replace(effect, p=float(p)) for effect, p in zip(found, adjusted, strict=True)]
    return sorted(found, key=lambda effect: (effect.p, -effect.worse_by))


def judge(rules: Slices, found: list[SliceEffect], columns: Mapping[str, ArrayLike], confidence: float) -> list[Check]:
    """One check per column of `rules.by`; a column that is not there fails."""
    return [
        _column(rules, name, [e for e in found if e.column == name], name in columns, confidence) for name in rules.by
    ]


def _column(rules: Slices, name: str, found: list[SliceEffect], present: bool, confidence: float) -> Check:
    title = f"slices of {name}"
    if not present:
        return Check(title, Outcome.FAIL, f"{name}: the column to slice by is not in the test rows")
    if not found:
        return Check(title, Outcome.INCONCLUSIVE, f"{name}: no slice has {rules.min_rows:,} rows")
    bad = [effect for effect in found if effect.p < 1 - confidence]
    worst = found[0]
    if bad:
        said = f"worse than the champion by more than {rules.margin:g} logloss: {'; '.join(map(str, bad))}"
    else:
        said = f"{name}: none of {len(found)} slices is worse by more than {rules.margin:g} logloss; most suspect is {worst}"
    outcome = Outcome.FAIL if bad else Outcome.PASS
    return Check(title, outcome, said, worst.worse_by, rules.margin, worst.interval)


def _slices(rules: Slices, columns: Mapping[str, ArrayLike]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for column in (name for name in rules.by if name in columns):
        names, index = np.unique(_levels(np.asarray(columns[column])), return_inverse=True)
        for i, rows in enumerate(np.bincount(index)):
            if rows >= rules.min_rows:
                yield column, str(names[i]), index == i


def _levels(values: NDArray[np.generic]) -> NDArray[np.str_]:
    """The slice of each row by name, `[n]`."""
    if values.dtype.kind not in "iuf" or len(np.unique(values)) <= MAX_LEVELS:
        return np.asarray([as_text(v) or "missing" for v in values])
    numbers = values.astype(np.float64)
    edges = np.unique(np.nanquantile(numbers, (0.25, 0.5, 0.75)))
    names = np.asarray([f"up to {edge:g}" for edge in edges] + [f"above {edges[-1]:g}"])
    return np.where(np.isnan(numbers), "missing", names[np.searchsorted(edges, numbers)])
