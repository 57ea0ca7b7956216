"""Sketching: the sketches of a window's rows, stored in the table `sketches`, so that a window is read once per champion."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.domain.categories import as_text
from include.domain.features.encoding import FIRST_ID, MISSING, UNKNOWN, Encoding, as_numbers
from include.domain.monitoring.sketch import Sketch, Sketches, merge, sketch_ids, sketch_numbers
from include.domain.windows import Grain, Window, window_of
from include.ports.tables import Tables

log = logging.getLogger(__name__)

TABLE = "sketches"
SCHEMA = pa.schema(
    [
        ("window", pa.string()),
        ("bins", pa.string()),
        ("content", pa.string()),
        ("feature", pa.string()),
        ("counts", pa.list_(pa.int64())),
        ("sums", pa.list_(pa.float64())),
    ]
)


def watched_features(encoding: Encoding) -> tuple[str, ...]:
    """Return the features that are sketched: the model's columns, but not those derived from others or parts of the time.

    Parts of the time follow the season, which is no drift.
    """
    left_out = {*encoding.time_parts, *encoding.transforms_by_name}
    return tuple(f for f in (*encoding.categorical, *encoding.numeric) if f not in left_out)


def bin_names(encoding: Encoding) -> dict[str, list[str]]:
    """Return, by feature, a description of each bin of its sketch."""
    names = {f: ["missing", "never seen in training", *encoding.vocabulary[f]] for f in encoding.categorical}
    for feature, knots in encoding.knots.items():
        ends = [f"{knot:.4g}" for knot in knots]
        between = [f"{a} to {b}" for a, b in pairwise(ends)]
        names[feature] = ["missing", f"below {ends[0]}", *between, f"from {ends[-1]}"]
    return names


def sketch_rows(encoding: Encoding, rows: pa.Table) -> dict[str, Sketch]:
    """Return the sketch of each watched feature of the rows, on the encoding's bins.

    A column that the rows lack, or one without numbers where the encoding needs them, is left out.
    """
    present = [f for f in watched_features(encoding) if f in rows.column_names]
    sketches = {f: _sketch_column(encoding, f, rows[f].combine_chunks()) for f in present}
    return {f: s for f, s in sketches.items() if s is not None}


def window_sketches(
    tables: Tables, source: str, encoding: Encoding, labels: Sequence[str], grain: Grain
) -> dict[str, Sketches]:
    """Return the sketches by window of the table `source`, for those of the labels that have landed.

    Stored sketches are used where they are on this encoding's bins and of what the window holds now. The others are made,
    reading a bounded piece at a time, and stored.
    """
    bins, contents = bins_digest(encoding), tables.contents(source)
    windows = {label: window_of(label, grain) for label in labels if label in contents}
    sketches: dict[str, Sketches] = {**_stored_sketches(tables, bins, list(windows.values()), contents)}
    fresh = {label: window for label, window in windows.items() if label not in sketches}
    for label, window in fresh.items():
        pieces = (sketch_rows(encoding, rows) for rows in tables.pieces(source, window))
        sketches[label] = reduce(lambda a, b: merge_windows((a, b)), pieces)
    if fresh:
        new_rows = {
            window: _stored_rows(label, bins, contents[label], sketches[label]) for label, window in fresh.items()
        }
        tables.replace(TABLE, new_rows, "watch")
    return {label: sketches[label] for label in windows}


def merge_windows(windows: Sequence[Sketches]) -> dict[str, Sketch]:
    """Return the sketches of all windows together, of the features that each of them has."""
    shared = [f for f in windows[0] if all(f in w for w in windows)]
    return {feature: merge([w[feature] for w in windows]) for feature in shared}


def bins_digest(encoding: Encoding) -> str:
    """Return the name of the encoding's bins: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(json.dumps(encoding.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def _sketch_column(encoding: Encoding, feature: str, column: pa.Array) -> Sketch | None:
    if feature not in encoding.knots:
        return _sketch_categories(encoding.vocabulary[feature], column)
    try:
        return sketch_numbers(encoding.knots[feature], _numbers(feature, column))
    except ValueError as error:
        log.warning("left out: %s", error)
        return None


def _stored_sketches(
    tables: Tables, bins: str, windows: Sequence[Window], contents: Mapping[str, str]
) -> dict[str, dict[str, Sketch]]:
    """Return the stored sketches by window and feature, where they are of the window's present content."""
    if tables.version(TABLE) is None or not windows:
        return {}
    rows = tables.read(TABLE, windows)
    rows = rows.filter(pc.equal(rows["bins"], bins))
    sketches: dict[str, dict[str, Sketch]] = {}
    for row in rows.to_pylist():
        if row.get("content") == contents[row["window"]]:
            counts, sums = np.array(row["counts"], dtype=np.int64), np.array(row["sums"], dtype=np.float64)
            sketches.setdefault(row["window"], {})[row["feature"]] = Sketch(counts, sums)
    return sketches


def _stored_rows(label: str, bins: str, content: str, sketches: Sketches) -> pa.Table:
    """Return the sketches of a window as rows of the table."""
    window = {"window": label, "bins": bins, "content": content}
    rows = [
        {**window, "feature": feature, "counts": sketch.counts.tolist(), "sums": sketch.sums.tolist()}
        for feature, sketch in sketches.items()
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _numbers(feature: str, column: pa.Array) -> NDArray[np.floating]:
    """Return the column as floats `[n]`, NaN where missing or infinite. Raises ValueError for what is no number."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return as_numbers(feature, column.to_pylist())
    numbers = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isinf(numbers), np.float32(np.nan), numbers) if np.isinf(numbers).any() else numbers


def _sketch_categories(vocabulary: Mapping[str, int], column: pa.Array) -> Sketch:
    """Return the sketch on the ids that `Encoding.encode` gives, each distinct value looked up once."""
    coded = column.dictionary_encode()
    texts = [as_text(value) for value in coded.dictionary.to_pylist()]
    ids = [MISSING if text is None else vocabulary.get(text, UNKNOWN) for text in texts]
    times = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(ids))
    all_ids = np.array([MISSING, *ids], dtype=np.intp)
    return sketch_ids(FIRST_ID + len(vocabulary), all_ids, np.array([column.null_count, *times]))
