"""A digest of rows by value: the same rows give the same digest, however they lie in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def content_digest(rows: pa.Table) -> str:
    """SHA-256 over each column's name, type, missing places and values, in row order.

    Raises TypeError for a column that is neither text nor of a fixed width.
    """
    sha = hashlib.sha256()
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        sha.update(f"{name}:{'text' if _is_text(values.type) else values.type}:{len(values)}".encode())
        sha.update(np.packbits(pc.is_null(values).to_numpy(zero_copy_only=False)).tobytes())
        sha.update(_text(values.cast(pa.large_string())) if _is_text(values.type) else _fixed(values))
    return sha.hexdigest()


def by_window(rows: pa.Table, order: Sequence[str]) -> dict[str, pa.Table]:
    """The windows' rows by label, each in that order, without the column `window`."""
    ranked = rows.sort_by([("window", "ascending"), *((name, "ascending") for name in order)])
    plain = ranked.drop_columns(["window"])
    counts = pc.value_counts(ranked["window"].combine_chunks())
    parts, start = {}, 0
    for count in counts.to_pylist():
        parts[str(count["values"])] = plain.slice(start, count["counts"])
        start += count["counts"]
    return parts


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(values: pa.LargeStringArray) -> bytes:
    """Lengths and characters; what lies under a missing value does not count."""
    filled = pc.fill_null(values, "")
    _, offsets, characters = filled.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[filled.offset : filled.offset + len(filled) + 1]
    shown = memoryview(characters)[bounds[0] : bounds[-1]] if characters is not None and len(filled) else b""
    return np.diff(bounds).tobytes() + bytes(shown)


def _fixed(values: pa.Array) -> bytes:
    width = values.type.bit_width
    if width % 8:
        raise TypeError(f"no digest of {values.type}")
    zero = (
        pa.scalar(0, pa.int64()).cast(values.type) if pa.types.is_timestamp(values.type) else pa.scalar(0, values.type)
    )
    return bytes(pc.fill_null(values, zero).to_numpy(zero_copy_only=False).tobytes())
