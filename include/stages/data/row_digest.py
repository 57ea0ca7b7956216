"""A digest of rows by value: the same rows give the same digest, however they lie in memory."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def content_digest(rows: pa.Table) -> str:
    """Return the SHA-256 over the digests of the columns: of each its name, type, missing places and values, in row order.

    Raises TypeError for a column that is neither text nor of a fixed width.
    """
    with ThreadPoolExecutor() as threads:  # pyarrow and hashlib release the interpreter lock
        columns = threads.map(_column_digest, rows.column_names, rows.columns)
        return hashlib.sha256(b"".join(columns)).hexdigest()


def _column_digest(name: str, column: pa.ChunkedArray) -> bytes:
    values = column.combine_chunks()
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    type_name = "text" if is_text else values.type
    sha = hashlib.sha256(f"{name}:{type_name}:{len(values)}:{values.null_count}".encode())
    if values.null_count:
        sha.update(_bytes(np.packbits(_is_null(values))))
    for buffer in _text_buffers(values) if is_text else [_fixed_width_buffer(values)]:
        sha.update(buffer)
    return sha.digest()


def _is_null(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False))


def _text_buffers(values: pa.StringArray | pa.LargeStringArray) -> list[memoryview | bytes]:
    """Return the lengths and the characters; a missing value counts as empty, whatever lies under it."""
    _, offsets, characters = values.buffers()
    width = np.int64 if pa.types.is_large_string(values.type) else np.int32
    bounds = np.frombuffer(offsets, dtype=width)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(bounds).astype(np.int32)
    if values.null_count and lengths[_is_null(values)].any():
        return _text_buffers(pc.fill_null(values, ""))
    text = memoryview(characters)[bounds[0] : bounds[-1]] if characters is not None and len(values) else b""
    return [_bytes(lengths), text]


def _fixed_width_buffer(values: pa.Array) -> memoryview:
    """Return the values' bytes; a missing value counts as zero, whatever lies under it."""
    if values.type.bit_width % 8:
        raise TypeError(f"no digest of {values.type}")
    is_time = pa.types.is_timestamp(values.type)
    zero = pa.scalar(0, pa.int64()).cast(values.type) if is_time else pa.scalar(0, values.type)
    return _bytes(np.ascontiguousarray(pc.fill_null(values, zero).to_numpy(zero_copy_only=False)))


def _bytes(values: NDArray[Any]) -> memoryview:
    return values.view(np.uint8).data
