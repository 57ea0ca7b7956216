"""Mergeable histograms: what is kept of a window's rows, so that drift is measured without reading them again.

The bins are the champion's encoding: a number's knots, a category's vocabulary. Sketches of two windows add up to the
sketch of both, in constant memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: The bin of missing values, first in every sketch; a category's second bin holds the values that training never saw.
MISSING_BIN = 0
UNKNOWN_BIN = 1


@dataclass(frozen=True)
class Sketch:
    """One feature over some rows.

    `counts` int64 `[bins]`: a category's by id, a number's as missing, below the first knot, between knots …, from the
    last knot on. `sums` float64 `[4]` of a number: Σx, Σx², Σ(first knot − x) below, Σ(x − last knot) above.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(self.counts + other.counts, self.sums + other.sums)

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def numeric(self) -> bool:
        return len(self.sums) > 0

    @property
    def missing(self) -> float:
        """Share of rows without a value."""
        return float(self.counts[MISSING_BIN] / max(1, self.rows))

    @property
    def unknown(self) -> float:
        """Share of rows with a value that training never saw; 0 for a number."""
        return 0.0 if self.numeric else float(self.counts[UNKNOWN_BIN] / max(1, self.rows))

    @property
    def deviation(self) -> float:
        """Standard deviation of the known numbers; 0 when there are none."""
        known = self.rows - int(self.counts[MISSING_BIN])
        if not self.numeric or not known:
            return 0.0
        mean = self.sums[0] / known
        return float(np.sqrt(max(0.0, self.sums[1] / known - mean * mean)))


#: A window's sketches by feature.
Sketches = Mapping[str, Sketch]


def of_numbers(knots: Sequence[float], values: NDArray[np.floating]) -> Sketch:
    """Values `[n]`, NaN where missing; `knots` ascending, at least one."""
    edges = np.asarray(knots, dtype=values.dtype)
    known = np.sort(values[~np.isnan(values)])
    below = np.searchsorted(known, edges)  # a sort and a few searches take a tenth of n searches
    counts = np.diff(below, prepend=0, append=len(known))
    exact = known.astype(np.float64, copy=False)
    low, high = exact[: below[0]], exact[below[-1] :]
    sums = (exact.sum(), (exact * exact).sum(), (float(edges[0]) - low).sum(), (high - float(edges[-1])).sum())
    return Sketch(np.concatenate(([len(values) - len(known)], counts)), np.array(sums))


def of_ids(size: int, ids: NDArray[np.integer], times: NDArray[np.integer] | None = None) -> Sketch:
    """Ids `[n]` below `size`, each counted once or so many `times` `[n]`; 0 is missing, 1 unknown."""
    return Sketch(np.bincount(ids, times, minlength=size).astype(np.int64), np.zeros(0))


def total(sketches: Sequence[Sketch]) -> Sketch:
    """The sum; raises ValueError for none or for sketches on other bins."""
    if len({len(s.counts) for s in sketches}) != 1:
        raise ValueError(f"sketches of one feature with {sorted({len(s.counts) for s in sketches})} bins do not add up")
    return Sketch(np.sum([s.counts for s in sketches], axis=0), np.sum([s.sums for s in sketches], axis=0))
