"""A digest of rows by value: the same rows give the same digest, however they lie in memory."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def content_digest(rows: pa.Table) -> str:
    """SHA-256 over each column's own: of its name, type, missing places and values, in row order.

    Raises TypeError for a column that is neither text nor of a fixed width.
    """
    with ThreadPoolExecutor() as threads:  # arrow and hashlib let go of the interpreter
        columns = threads.map(_column_digest, rows.column_names, rows.columns)
        return hashlib.sha256(b"".join(columns)).hexdigest()


def in_order(rows: pl.DataFrame, places: pl.Series) -> pa.Table:
    """The rows at these places, a column at a time, so that memory holds no second copy of all."""
    if len(places) == rows.height and places.is_sorted():
        return rows.to_arrow(compat_level=pl.CompatLevel.oldest())

    def taken(column: pl.Series) -> pa.Array:
        return column.rechunk().gather(places).to_arrow(compat_level=pl.CompatLevel.oldest())

    with ThreadPoolExecutor() as threads:
        return pa.table(list(threads.map(taken, rows.iter_columns())), rows.columns)


def by_window(rows: pa.Table, order: Sequence[str]) -> dict[str, pa.Table]:
    """The windows' rows by label, each in that order, without the column `window`."""
    places = pl.DataFrame(pl.from_arrow(rows.select(["window", *order]))).with_row_index("_at").sort("window", *order)
    if not places["_at"].is_sorted():
        rows = in_order(pl.DataFrame(pl.from_arrow(rows)), places["_at"])
    plain, parts, start = rows.drop_columns(["window"]), {}, 0
    for window, count in places.group_by("window", maintain_order=True).len().iter_rows():
        parts[str(window)] = plain.slice(start, count)
        start += count
    return parts


def _column_digest(name: str, column: pa.ChunkedArray) -> bytes:
    values = column.combine_chunks()
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    sha = hashlib.sha256(f"{name}:{'text' if text else values.type}:{len(values)}:{values.null_count}".encode())
    if values.null_count:
        sha.update(_bytes(np.packbits(_missing(values))))
    for part in _text(values) if text else [_fixed(values)]:
        sha.update(part)
    return sha.digest()


def _missing(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False))


def _text(values: pa.StringArray | pa.LargeStringArray) -> list[memoryview | bytes]:
    """Lengths and characters; what lies under a missing value does not count."""
    _, offsets, characters = values.buffers()
    width = np.int64 if pa.types.is_large_string(values.type) else np.int32
    bounds = np.frombuffer(offsets, dtype=width)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(bounds).astype(np.int32)
    if values.null_count and lengths[_missing(values)].any():
        return _text(pc.fill_null(values, ""))
    shown = memoryview(characters)[bounds[0] : bounds[-1]] if characters is not None and len(values) else b""
    return [_bytes(lengths), shown]


def _fixed(values: pa.Array) -> memoryview:
    width = values.type.bit_width
    if width % 8:
        raise TypeError(f"no digest of {values.type}")
    zero = (
        pa.scalar(0, pa.int64()).cast(values.type) if pa.types.is_timestamp(values.type) else pa.scalar(0, values.type)
    )
    return _bytes(np.ascontiguousarray(pc.fill_null(values, zero).to_numpy(zero_copy_only=False)))


def _bytes(values: NDArray[Any]) -> memoryview:
    return values.view(np.uint8).data
