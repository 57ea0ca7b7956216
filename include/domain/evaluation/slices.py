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
#: So many small slices are named; of the rest the number is.
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


@dataclass(frozen=True)
class Cut:
    """One column's slices: `names` `[k]`, the slice of each row `index` `[n]`, and how many `rows` `[k]` each has."""

    names: NDArray[np.str_]
    index: NDArray[np.intp]
    rows: NDArray[np.intp]

    def below(self, min_rows: int, absent: Sequence[str]) -> list[str]:
        """The slices too small to judge, the largest first, and the `absent` ones, which have no row at all."""
        small = [level for level in np.argsort(-self.rows, kind="stable") if self.rows[level] < min_rows]
        return [*(f"{self.names[level]} ({self.rows[level]:,})" for level in small), *(f"{v} (0)" for v in absent)]


def effects(
    rules: Slices, worse: Floats, columns: Mapping[str, ArrayLike], confidence: float, groups: ArrayLike | None
) -> list[SliceEffect]:
    """Every slice of `rules.by` with enough rows, the most suspect first.

    `worse` `[n]`: how much greater each row's loss is than under the champion; `columns` `[n]`: raw values by name.
    """
    found = []
    for column, cut in _cuts(rules, columns).items():
        for level in np.flatnonzero(cut.rows >= rules.min_rows):
            inside = cut.index == level
            part = statistics.mean(worse[inside])
            own = None if groups is None else np.asarray(groups)[inside]
            p, interval = statistics.p_value_above(part, rules.margin, own), part.interval(confidence, own)
            found.append(SliceEffect(column, str(cut.names[level]), int(cut.rows[level]), part.value, interval, p))
    adjusted = statistics.holm_adjusted([effect.p for effect in found])
    found = [replace(effect, p=float(p)) for effect, p in zip(found, adjusted, strict=True)]
    return sorted(found, key=lambda effect: (effect.p, -effect.worse_by))


def judge(
    rules: Slices, found: list[SliceEffect], columns: Mapping[str, ArrayLike], confidence: float,
    absent: Mapping[str, Sequence[str]],
) -> list[Check]:  # fmt: skip
    """One check per column of `rules.by`; a column that is not there fails. `absent`: values without a row, by column."""
    cuts = _cuts(rules, columns)
    checks = []
    for name in rules.by:
        if name in cuts:
            small = cuts[name].below(rules.min_rows, absent.get(name, ()))
            checks.append(_column(rules, name, [e for e in found if e.column == name], small, confidence))
        else:
            said = f"{name}: the column to slice by is not in the test rows"
            checks.append(Check(f"slices of {name}", Outcome.FAIL, said))
    return checks


def _column(rules: Slices, name: str, found: list[SliceEffect], small: list[str], confidence: float) -> Check:
    title = f"slices of {name}"
    named = ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED:,} more" if len(small) > NAMED else "")
    if not found:
        return Check(title, Outcome.INCONCLUSIVE, f"{name}: no slice has {rules.min_rows:,} rows: {named}")
    unjudged = f"; not judged, with fewer than {rules.min_rows:,} rows: {named}" if small else ""
    bad = [effect for effect in found if effect.p < 1 - confidence]
    worst = found[0]
    if bad:
        said = f"worse than the champion by more than {rules.margin:g} logloss: {'; '.join(map(str, bad))}"
    else:
        said = f"{name}: none of {len(found)} slices is worse by more than {rules.margin:g} logloss; most suspect is {worst}"
    said += unjudged
    outcome = Outcome.FAIL if bad else Outcome.PASS
    return Check(title, outcome, said, worst.worse_by, rules.margin, worst.interval)


def _cuts(rules: Slices, columns: Mapping[str, ArrayLike]) -> dict[str, Cut]:
    """The slices of each column of `rules.by` that is there."""
    found = {}
    for column in (name for name in rules.by if name in columns):
        names, index, rows = np.unique(_levels(np.asarray(columns[column])), return_inverse=True, return_counts=True)
        found[column] = Cut(names, index, rows)
    return found


def _levels(values: NDArray[np.generic]) -> NDArray[np.str_]:
    """The slice of each row by name, `[n]`."""
    if values.dtype.kind not in "iuf" or len(np.unique(values)) <= MAX_LEVELS:
        return np.asarray([as_text(v) or "missing" for v in values])
    numbers = values.astype(np.float64)
    edges = np.unique(np.nanquantile(numbers, (0.25, 0.5, 0.75)))
    names = np.asarray([f"up to {edge:g}" for edge in edges] + [f"above {edges[-1]:g}"])
    return np.where(np.isnan(numbers), "missing", names[np.searchsorted(edges, numbers)])
