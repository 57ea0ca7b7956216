"""What `benchmarks.features.features` measures on: days of the click stream with some bad rows and some duplicates, and what became of them."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from include.local import clicks

START = date(2024, 1, 1)
A_DAY = 250_000
#: Of a day's rows one in so many is delivered twice, and as many again hold a number that is none.
SPOILED = 1000


@dataclass
class Counts:
    """Rows by what became of them; the same for everybody who does the work."""

    read: int = 0
    landed: int = 0
    quarantined: int = 0
    duplicates: int = 0
    built: int = 0

    def add(self, **more: int) -> None:
        for name, rows in more.items():
            setattr(self, name, getattr(self, name) + rows)


def generate(folder: Path, rows: int) -> None:
    """Files of `A_DAY` rows, one a day."""
    stream = clicks.Clicks()
    for n in range(-(-rows // A_DAY)):
        made = stream.day(START + timedelta(days=n), min(A_DAY, rows - n * A_DAY)).rows
        text = made.with_columns(pl.col("i3").cast(pl.String), pl.col("time").dt.to_string("iso:strict"))
        bad, twice = pl.int_range(pl.len()) % SPOILED == 1, text.gather_every(SPOILED, offset=2)
        spoiled = text.with_columns(i3=pl.when(bad).then(pl.lit("many")).otherwise("i3"))
        replaced = spoiled.head(spoiled.height - twice.height)  # so that the file has as many rows as were asked for
        pl.concat([replaced, twice]).write_csv(folder / f"{START + timedelta(days=n)}.tsv", separator="\t")
