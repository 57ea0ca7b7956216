"""Generate the files that `benchmarks.features.features` measures on: days of clicks with some bad rows and duplicates."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from include.local import clicks

START = date(2024, 1, 1)
ROWS_PER_DAY = 250_000
#: One in so many rows of a day is delivered twice, and one in so many holds text in place of a number.
SPOILED_EVERY = 1000


@dataclass
class Counts:
    """The numbers of rows by what became of them; every implementation must count the same."""

    read: int = 0
    landed: int = 0
    quarantined: int = 0
    duplicates: int = 0
    built: int = 0

    def add(self, **more: int) -> None:
        """Add to the counts that are named."""
        for name, rows in more.items():
            setattr(self, name, getattr(self, name) + rows)


def generate(folder: Path, rows: int) -> None:
    """Write that many rows to files of `ROWS_PER_DAY` rows, one a day."""
    stream = clicks.Clicks()
    for day in range(-(-rows // ROWS_PER_DAY)):
        day_rows = stream.day(START + timedelta(days=day), min(ROWS_PER_DAY, rows - day * ROWS_PER_DAY)).rows
        text = day_rows.with_columns(pl.col("i3").cast(pl.String), pl.col("time").dt.to_string("iso:strict"))
        bad, duplicates = pl.int_range(pl.len()) % SPOILED_EVERY == 1, text.gather_every(SPOILED_EVERY, offset=2)
        spoiled = text.with_columns(i3=pl.when(bad).then(pl.lit("many")).otherwise("i3"))
        unique = spoiled.head(spoiled.height - duplicates.height)  # so that the duplicates do not add rows to the file
        pl.concat([unique, duplicates]).write_csv(folder / f"{START + timedelta(days=day)}.tsv", separator="\t")
