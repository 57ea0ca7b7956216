"""Rows of Arrow tables put in order and split by window."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa


def take_rows(rows: pl.DataFrame, indices: pl.Series) -> pa.Table:
    """Return the rows at these indices, in their order; taken a column at a time, so that memory holds no second copy of all."""
    if len(indices) == rows.height and indices.is_sorted():
        return rows.to_arrow(compat_level=pl.CompatLevel.oldest())

    def take(column: pl.Series) -> pa.Array:
        return column.rechunk().gather(indices).to_arrow(compat_level=pl.CompatLevel.oldest())

    with ThreadPoolExecutor() as threads:
        return pa.table(list(threads.map(take, rows.iter_columns())), rows.columns)


def split_by_window(rows: pa.Table, order: Sequence[str]) -> dict[str, pa.Table]:
    """Return the rows by window label, each window's ordered by these columns and without the column `window`."""
    keys = pl.DataFrame(pl.from_arrow(rows.select(["window", *order]))).with_row_index("_index").sort("window", *order)
    if not keys["_index"].is_sorted():
        rows = take_rows(pl.DataFrame(pl.from_arrow(rows)), keys["_index"])
    without_window, parts, start = rows.drop_columns(["window"]), {}, 0
    for window, count in keys.group_by("window", maintain_order=True).len().iter_rows():
        parts[str(window)] = without_window.slice(start, count)
        start += count
    return parts
