"""An airport's departure board as it stood at a moment: which flights had left and how late, which were due and had not left.

Nothing here knows what became of a flight later: one that was cancelled in the end waits like any other, and every flight is
off the board `SHOWN` after its planned departure.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

SHOWN = timedelta(hours=3)
#: How long before, of the flights that had left, the delay counts.
RECENT = timedelta(hours=1)
#: Between two groups on the axis, in seconds: longer than any time since 1970.
APART = 1 << 34
#: Stands for the departure of a flight that never left.
NEVER = APART // 2

Seconds = NDArray[np.int64]


def board(flights: pl.DataFrame, by: Sequence[str], name: str) -> list[pl.Series]:
    """Return columns of the board as it stood when each flight was asked about, of the flights that are alike in `by`.

    `flights` has `departure` (as planned), `left` (null where it never left) and `asked`. The columns are

    `<name>_waiting`, how many were due and had not left; `<name>_overdue`, their minutes past the plan in all; `<name>_delay`,
    by how many minutes those of the last hour had left late, on average, null where none had.
    """
    of = flights.select(pl.struct(by).rank("dense")).to_series().cast(pl.Int64).to_numpy() * APART
    planned, requested = (flights[column].dt.epoch("s").to_numpy() for column in ("departure", "asked"))
    left = flights["left"].dt.epoch("s").fill_null(NEVER).to_numpy()
    due = np.minimum(planned, left)
    gone = np.minimum(left, planned + int(SHOWN.total_seconds()))
    now, before = of + requested, of + requested - int(RECENT.total_seconds())
    came, went, away = _Running(of + due, due), _Running(of + gone, due), _Running(of + left, left - planned)
    waiting = came.count(now) - went.count(now)
    overdue = waiting * requested - (came.total(now) - went.total(now))
    late, recent = away.total(now) - away.total(before), away.count(now) - away.count(before)
    delay = np.divide(late, recent * 60, out=np.full(len(of), np.nan), where=recent > 0)
    return [
        pl.Series(f"{name}_waiting", waiting.astype(np.float64)),
        pl.Series(f"{name}_overdue", overdue / 60),
        pl.Series(f"{name}_delay", delay).fill_nan(None),
    ]


class _Running:
    """Values at places on the axis, counted and added up to a place."""

    def __init__(self, places: Seconds, values: Seconds) -> None:
        order = np.argsort(places, kind="stable")
        self._places, self._totals = places[order], np.concatenate([[0], np.cumsum(values[order])])

    def count(self, until: Seconds) -> Seconds:
        return np.searchsorted(self._places, until, side="right")

    def total(self, until: Seconds) -> Seconds:
        totals: Seconds = self._totals[self.count(until)]
        return totals
