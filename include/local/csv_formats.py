"""The files in which the click stream can be delivered: its own columns, or those of Criteo's and Avazu's raw logs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

#: Avazu's columns in order, and the stream's category that fills each; those that Avazu codes as whole numbers.
AVAZU = {
    "C1": "c3",
    "banner_pos": "c1",
    "site_id": "c18",
    "site_domain": "c16",
    "site_category": "c7",
    "app_id": "c19",
    "app_domain": "c12",
    "app_category": "c8",
    "device_id": "c25",
    "device_ip": "c26",
    "device_model": "c20",
    "device_type": "c2",
    "device_conn_type": "c4",
    "C14": "c17",
    "C15": "c5",
    "C16": "c6",
    "C17": "c13",
    "C18": "c9",
    "C19": "c11",
    "C20": "c14",
    "C21": "c10",
}
CODED = ("C1", "banner_pos", "device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22)))


@dataclass(frozen=True)
class FileFormat:
    """How a day's rows are delivered: the `model` whose inbox takes them, the pattern of the file's `name`, and its `columns`.

    A file without a `separator` is Parquet.
    """

    model: str
    name: str
    separator: str | None
    columns: Callable[[pl.DataFrame], pl.DataFrame]
    header: bool = True

    def write(self, path: Path, pieces: Iterable[pl.DataFrame]) -> None:
        """Write the pieces, of which there is at least one, as one file."""
        frames = map(self.columns, pieces)
        if self.separator is None:
            _write_parquet(path, frames)
            return
        with path.open("wb") as file:
            for n, piece in enumerate(frames):
                piece.write_csv(file, separator=self.separator, include_header=self.header and n == 0)


def _write_parquet(path: Path, pieces: Iterator[pl.DataFrame]) -> None:
    tables = (piece.to_arrow(compat_level=pl.CompatLevel.oldest()) for piece in pieces)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as file:
        for table in chain([first], tables):
            file.write_table(table)


def criteo(rows: pl.DataFrame) -> pl.DataFrame:
    """Return Criteo's columns: a click, 13 whole numbers and 26 categories; no key and no time."""
    return rows.drop("id", "time").with_columns(pl.col(pl.Float64).cast(pl.Int64))


def avazu(rows: pl.DataFrame) -> pl.DataFrame:
    """Return Avazu's columns: all are categories, and -1 or a text of zeros stands for a missing value."""
    number = {name: pl.col(AVAZU[name]).str.to_integer(base=16, dtype=pl.Int64).fill_null(-1) for name in CODED}
    text = {name: pl.col(own).fill_null("0" * 8) for name, own in AVAZU.items() if name not in CODED}
    key = pl.col("id").str.replace_all("-", "").alias("id")
    columns = [(number | text)[name].alias(name) for name in AVAZU]
    return rows.select(key, "click", pl.col("time").dt.strftime("%y%m%d%H").alias("hour"), *columns)


FORMATS = {
    "parquet": FileFormat("clicks", "{day}.parquet", None, lambda rows: rows),
    "tsv": FileFormat("clicks", "{day}.tsv", "\t", lambda rows: rows),
    "criteo": FileFormat("criteo", "day_{n}.tsv", "\t", criteo, header=False),
    "avazu": FileFormat("avazu", "{day}.csv", ",", avazu),
}
