"""A click stream in the Criteo shape with a known truth: 13 numbers, 26 categories, a time and a click, any size, seeded.

The truth is a logistic model over the fields' own effects; a schedule of drifts changes it over time. It reads what the rows
say and nothing else, so the best AUC that any model can reach on a window is known.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.stats import rankdata

from include import settings
from include.artifacts.atomic_write import draft_of
from include.local.csv_formats import FORMATS

NUMBERS = tuple(f"i{n}" for n in range(1, 14))
CATEGORIES = tuple(f"c{n}" for n in range(1, 27))
#: Distinct values of the categories, as uneven as Criteo's: from a few to many thousands.
SIZES = tuple(int(4 * 1.44**n) for n in range(len(CATEGORIES)))
#: Share of missing values by number and by category, repeating.
MISSING = (0.0, 0.05, 0.2, 0.45)
#: Spread of one field's effect, in logits, and the usual share of clicks.
EFFECT, INTERCEPT = 0.22, -1.35

#: Rows that are made, and held in memory, at once.
PIECE = 1_000_000
A_DAY = 86_400_000  #: in milliseconds
#: The day that Criteo's `day_0` stands for in docs/models/criteo.yaml.
FIRST = date(2024, 1, 1)

Floats = NDArray[np.float64]
#: True probabilities of a click `[n]` and the clicks `[n]`.
TruthAndClicks = tuple[Floats, NDArray[np.int8]]
#: Called with a day and how many of its rows are written.
OnProgress = Callable[[date, int], None]


@dataclass(frozen=True)
class PlannedDrift:
    """A difference of the world by `size` from day `at` on, which reaches its full size after `days`.

    `shift` moves the distribution of the inputs, of all fields or of `field` alone; `concept` turns the effects. With
    `weekdays` (0 is Monday) it is a season: the world differs on these days alone.
    """

    __pydantic_config__ = {"extra": "forbid"}
    at: date
    kind: Literal["shift", "concept"] = "shift"
    days: int = 0
    size: float = 1.0
    field: Literal[(*NUMBERS, *CATEGORIES)] | None = None  # type: ignore[valid-type]
    weekdays: tuple[int, ...] = tuple(range(7))

    def strength(self, day: date) -> float:
        """Return the drift on that day: 0 before it and on other weekdays, `size` when complete, linear between."""
        if day.weekday() not in self.weekdays:
            return 0.0
        since = (day - self.at).days + 1
        return 0.0 if since <= 0 else self.size * min(1.0, since / (self.days + 1))


#: What the shipped stream goes through: one field, then all slowly, then what clicks mean, at once.
SCHEDULE = (
    PlannedDrift(date(2024, 2, 10), "shift", field="c10"),
    PlannedDrift(date(2024, 3, 1), "shift", days=20, size=0.7),
    PlannedDrift(date(2024, 4, 10), "concept", size=0.8),
)


@dataclass(frozen=True)
class Piece:
    """Rows of a day in order of time, and the true probability of a click of each, `[n]`."""

    rows: pl.DataFrame
    truth: Floats

    @property
    def truth_and_clicks(self) -> TruthAndClicks:
        """The true probabilities and the clicks, `[n]` each."""
        return self.truth, self.rows["click"].to_numpy()


@dataclass(frozen=True)
class Day:
    """The rows of one day; `best_auc` is the AUC that the true click probabilities reach on these very rows."""

    rows: pl.DataFrame
    best_auc: float


class Clicks:
    """A seeded stream of impressions; the same days come out alike in whatever order they are generated.

    `schedule` lists the drifts, `sizes` the numbers of distinct values of the categories.
    """

    def __init__(
        self, seed: int = 17, schedule: Sequence[PlannedDrift] = SCHEDULE, sizes: Sequence[int] = SIZES
    ) -> None:
        self._seed, self._schedule, self._sizes = seed, tuple(schedule), tuple(sizes)
        world = np.random.default_rng(seed)
        self._weights = [world.normal(0, EFFECT, size=2) for _ in NUMBERS]
        self._turned = [world.normal(0, EFFECT, size=2) for _ in NUMBERS]
        self._effects = [world.normal(0, EFFECT, size=n) for n in self._sizes]
        self._other = [world.normal(0, EFFECT, size=n) for n in self._sizes]

    def day(self, day: date, rows: int) -> Day:
        """Return `rows` impressions of that UTC day in order of time, and their best AUC."""
        pieces = list(self.pieces(day, rows))
        return Day(pl.concat(piece.rows for piece in pieces), _best_auc([piece.truth_and_clicks for piece in pieces]))

    def pieces(self, day: date, rows: int, most: int = PIECE) -> Iterator[Piece]:
        """Yield the same day in spans of at most `most` rows."""
        for number, done in enumerate(range(0, max(rows, 1), most)):
            yield self._piece(day, number, done, min(done + most, rows), rows)

    def _piece(self, day: date, number: int, first: int, end: int, of: int) -> Piece:
        random, rows = np.random.default_rng([self._seed, day.toordinal(), *([number] if number else [])]), end - first
        concept = sum(d.strength(day) for d in self._schedule if d.kind == "concept")
        columns: dict[str, object] = {}
        logit = np.full(rows, INTERCEPT)
        for n, name in enumerate(NUMBERS):
            columns[name], effect = self._number(n, random, rows, self._shift(name, day), concept)
            logit += effect
        for n, name in enumerate(CATEGORIES):
            columns[name], effect = self._category(n, random, rows, self._shift(name, day), concept)
            logit += effect
        truth = 1 / (1 + np.exp(-logit))
        click = (random.random(rows) < truth).astype(np.int8)
        from_ms, to_ms = (A_DAY * first // of, A_DAY * end // of) if of else (0, A_DAY)
        micros = np.sort(random.integers(from_ms, to_ms, rows)) * 1000
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
        frame = pl.DataFrame(
            {
                "id": [f"{day:%Y%m%d}-{n}" for n in range(first, end)],
                "click": click,
                "time": pl.Series(micros + start, dtype=pl.Datetime("us", "UTC")),
                **columns,
            }
        )
        return Piece(frame, truth)

    def names(self) -> Iterator[tuple[str, list[str]]]:
        """Yield every category with all its values, most frequent first."""
        for n, name in enumerate(CATEGORIES):
            yield name, _names(n, self._sizes[n])

    def _shift(self, field: str, day: date) -> float:
        return sum(d.strength(day) for d in self._schedule if d.kind == "shift" and d.field in (None, field))

    def _number(
        self, n: int, random: np.random.Generator, rows: int, shift: float, concept: float
    ) -> tuple[pl.Series, Floats]:
        """Counts with a long tail; their effect is linear and quadratic in the standardised logarithm of the count as written,
        half a count added."""
        logarithm = 1 + n / 6
        counts = np.floor(np.exp(random.normal(shift, 1, rows) + logarithm))
        score = np.log(counts + 0.5) - logarithm
        straight, bent = (1 - concept) * self._weights[n] + concept * self._turned[n]
        missing = random.random(rows) < MISSING[n % len(MISSING)]
        effect = np.where(missing, 0.0, straight * score + bent * (score**2 - 1) / 2)
        return pl.Series(counts).set(pl.Series(missing), None), effect

    def _category(
        self, n: int, random: np.random.Generator, rows: int, shift: float, concept: float
    ) -> tuple[pl.Series, Floats]:
        """Zipf's law over the values; a shift makes rare values common."""
        size = self._sizes[n]
        weights = 1 / np.arange(1, size + 1)
        weights = (1 - min(shift, 1)) * weights + min(shift, 1) * weights[::-1]
        drawn = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(rows)).clip(max=size - 1)
        effects = (1 - concept) * self._effects[n] + concept * self._other[n]
        missing = random.random(rows) < MISSING[n % len(MISSING)] / 2
        return pl.Series(_names(n, size)).gather(drawn).set(pl.Series(missing), None), np.where(
            missing, 0.0, effects[drawn]
        )


def _names(n: int, size: int) -> list[str]:
    """The texts of the n-th category's values, most frequent first."""
    return [f"{(value * 2654435761 + n * 97) & 0xFFFFFFFF:08x}" for value in range(size)]


def area(scores: Floats, labels: NDArray[np.int8]) -> float:
    """Return the area under the ROC curve by mid-ranks (Mann-Whitney); NaN where only one class is present."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def days(start: date, end: date) -> Iterator[date]:
    """Yield the days of `[start, end)`."""
    return (start + timedelta(days=n) for n in range((end - start).days))


def deliver(
    inbox: Path,
    start: date,
    end: date,
    rows: int,
    *,
    form: str = "parquet",
    clicks: Clicks | None = None,
    on_progress: OnProgress | None = None,
) -> dict[date, float]:
    """Write a file of `rows` impressions for each day of `[start, end)`; return each day's best AUC.

    `form` is one of `FORMATS`; `on_progress` is called with a day and the rows written so far. A file appears when it is
    whole.
    """
    stream, file_format = clicks or Clicks(), FORMATS[form]
    inbox.mkdir(parents=True, exist_ok=True)
    best = {}
    for day in days(start, end):
        path = inbox / file_format.name.format(day=day, n=(day - FIRST).days)
        parts: list[TruthAndClicks] = []
        with draft_of(path) as draft:
            file_format.write(draft, _observed(day, stream.pieces(day, rows), parts, on_progress))
        best[day] = _best_auc(parts)
    return best


def _observed(
    day: date, pieces: Iterable[Piece], parts: list[TruthAndClicks], on_progress: OnProgress | None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of the pieces; append their truth and clicks to `parts`, and report the rows so far."""
    done = 0
    for piece in pieces:
        yield piece.rows
        parts.append(piece.truth_and_clicks)
        done += piece.rows.height
        if on_progress:
            on_progress(day, done)


def _best_auc(parts: Sequence[TruthAndClicks]) -> float:
    truth, clicks = zip(*parts, strict=True)
    return area(np.concatenate(truth), np.concatenate(clicks))


def _drift(text: str) -> PlannedDrift:
    """Parse a drift from JSON. Raises ArgumentTypeError, which names every error by its path."""
    try:
        return TypeAdapter(PlannedDrift).validate_json(text)
    except ValidationError as error:
        sentences = (f"{'.'.join(map(str, e['loc'])) or text}: {e['msg']}" for e in error.errors())
        raise argparse.ArgumentTypeError("; ".join(sentences)) from None


def main() -> None:
    """Deliver these days into the home's inbox: `python -m include.local.clicks 2024-01-01 2024-04-01`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("start", type=date.fromisoformat, help=f"for criteo {FIRST} or later: that is day_0")
    parser.add_argument("end", type=date.fromisoformat, help="the first day that is not delivered")
    parser.add_argument("--rows", type=int, default=20_000, help="impressions a day")
    parser.add_argument("--form", choices=FORMATS, default="parquet")
    parser.add_argument(
        "--drift",
        action="append",
        type=_drift,
        help="instead of the shipped ones, as JSON, e.g. "
        '{"at": "2024-03-01", "field": "i3", "size": 0.5}; may be repeated',
    )
    arguments = parser.parse_args()
    stream = Clicks(schedule=arguments.drift or SCHEDULE)
    inbox = settings.from_env().home / "inbox" / FORMATS[arguments.form].model

    def show_progress(day: date, done: int) -> None:
        print(f"{day}  {done:,} of {arguments.rows:,} rows", end="\r", file=sys.stderr, flush=True)  # noqa: T201

    for day in days(arguments.start, arguments.end):
        (best,) = deliver(
            inbox,
            day,
            day + timedelta(days=1),
            arguments.rows,
            form=arguments.form,
            clicks=stream,
            on_progress=show_progress,
        ).values()
        print(f"{day}  {arguments.rows:,} rows, best possible AUC {best:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
