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
from include.artifacts.files import draft_of
from include.local.csv_formats import SHAPES

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
Scored = tuple[Floats, NDArray[np.int8]]
Tell = Callable[[date, int], None]


@dataclass(frozen=True)
class Drift:
    """From day `at` on (reaching its full size after `days`) the world differs by `size`.

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
        """0 before and on other weekdays, `size` when complete, a straight line between."""
        if day.weekday() not in self.weekdays:
            return 0.0
        since = (day - self.at).days + 1
        return 0.0 if since <= 0 else self.size * min(1.0, since / (self.days + 1))


#: What the shipped stream goes through: one field, then all slowly, then what clicks mean, at once.
SCHEDULE = (
    Drift(date(2024, 2, 10), "shift", field="c10"),
    Drift(date(2024, 3, 1), "shift", days=20, size=0.7),
    Drift(date(2024, 4, 10), "concept", size=0.8),
)


@dataclass(frozen=True)
class Piece:
    """Rows of a day in order of time, and the true probability of a click of each, `[n]`."""

    rows: pl.DataFrame
    truth: Floats

    @property
    def scored(self) -> Scored:
        return self.truth, self.rows["click"].to_numpy()


@dataclass(frozen=True)
class Day:
    """One window of the stream; `best_auc` is what the true click probabilities reach on these very rows."""

    rows: pl.DataFrame
    best_auc: float


class Clicks:
    """The stream: `seed`, `schedule` and the fields' `sizes` decide everything, whatever days are asked for and in what
    order."""

    def __init__(self, seed: int = 17, schedule: Sequence[Drift] = SCHEDULE, sizes: Sequence[int] = SIZES) -> None:
        self._seed, self._schedule, self._sizes = seed, tuple(schedule), tuple(sizes)
        world = np.random.default_rng(seed)
        self._weights = [world.normal(0, EFFECT, size=2) for _ in NUMBERS]
        self._turned = [world.normal(0, EFFECT, size=2) for _ in NUMBERS]
        self._effects = [world.normal(0, EFFECT, size=n) for n in self._sizes]
        self._other = [world.normal(0, EFFECT, size=n) for n in self._sizes]

    def day(self, day: date, rows: int) -> Day:
        """`rows` impressions of that UTC day in order of time, and the best AUC."""
        pieces = list(self.pieces(day, rows))
        return Day(pl.concat(piece.rows for piece in pieces), _best_auc([piece.scored for piece in pieces]))

    def pieces(self, day: date, rows: int, most: int = PIECE) -> Iterator[Piece]:
        """The same day, at most so many rows at a time, each a span of the day."""
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
        frame = pl.DataFrame({
            "id": [f"{day:%Y%m%d}-{n}" for n in range(first, end)], "click": click,
            "time": pl.Series(micros + start, dtype=pl.Datetime("us", "UTC")), **columns,
        })  # fmt: skip
        return Piece(frame, truth)

    def names(self) -> Iterator[tuple[str, list[str]]]:
        """Every category with all its values, most frequent first."""
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
    """Area under the ROC curve by ranks; NaN where only one class is there."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def days(start: date, end: date) -> Iterator[date]:
    return (start + timedelta(days=n) for n in range((end - start).days))


def deliver(
    inbox: Path, start: date, end: date, rows: int, *, form: str = "parquet", clicks: Clicks | None = None,
    tell: Tell | None = None,
) -> dict[date, float]:  # fmt: skip
    """Write a file of `rows` impressions, of any number, for each day of `[start, end)`; each day's best AUC.

    `form` is one of `SHAPES`; `tell` hears of a day how many rows are written. A file appears when it is whole.
    """
    stream, shape = clicks or Clicks(), SHAPES[form]
    inbox.mkdir(parents=True, exist_ok=True)
    best = {}
    for day in days(start, end):
        path = inbox / shape.name.format(day=day, n=(day - FIRST).days)
        scored: list[Scored] = []
        with draft_of(path) as draft:
            shape.write(draft, _noted(day, stream.pieces(day, rows), scored, tell))
        best[day] = _best_auc(scored)
    return best


def _noted(day: date, pieces: Iterable[Piece], scored: list[Scored], tell: Tell | None) -> Iterator[pl.DataFrame]:
    """The pieces' rows; what they were scored goes to the list, how many they were to `tell`."""
    done = 0
    for piece in pieces:
        yield piece.rows
        scored.append(piece.scored)
        done += piece.rows.height
        if tell:
            tell(day, done)


def _best_auc(scored: Sequence[Scored]) -> float:
    truth, clicks = zip(*scored, strict=True)
    return area(np.concatenate(truth), np.concatenate(clicks))


def _drift(text: str) -> Drift:
    """Raises ArgumentTypeError, which names every fault by its path."""
    try:
        return TypeAdapter(Drift).validate_json(text)
    except ValidationError as fault:
        told = (f"{'.'.join(map(str, e['loc'])) or text}: {e['msg']}" for e in fault.errors())
        raise argparse.ArgumentTypeError("; ".join(told)) from None


def main() -> None:
    """`python -m include.local.clicks 2024-01-01 2024-04-01`: deliver these days into the home's inbox."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("start", type=date.fromisoformat, help=f"for criteo {FIRST} or later: that is day_0")
    arguments.add_argument("end", type=date.fromisoformat, help="the first day that is not delivered")
    arguments.add_argument("--rows", type=int, default=20_000, help="impressions a day")
    arguments.add_argument("--form", choices=SHAPES, default="parquet")
    arguments.add_argument("--drift", action="append", type=_drift, help="instead of the shipped ones, as JSON, e.g. "
                           '{"at": "2024-03-01", "field": "i3", "size": 0.5}; may be repeated')  # fmt: skip
    given = arguments.parse_args()
    stream = Clicks(schedule=given.drift or SCHEDULE)
    inbox = settings.from_env().home / "inbox" / SHAPES[given.form].model

    def tell(day: date, done: int) -> None:
        print(f"{day}  {done:,} of {given.rows:,} rows", end="\r", file=sys.stderr, flush=True)  # noqa: T201

    for day in days(given.start, given.end):
        (best,) = deliver(
            inbox, day, day + timedelta(days=1), given.rows, form=given.form, clicks=stream, tell=tell
        ).values()
        print(f"{day}  {given.rows:,} rows, best possible AUC {best:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
