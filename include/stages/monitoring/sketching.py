"""Rows of a window → its sketches, kept in the table `sketches`, so that a window is read once for each champion."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.domain.categories import as_text
from include.domain.features.encoding import FIRST_KNOWN, MISSING, UNKNOWN, Encoding, as_numbers
from include.domain.monitoring.sketch import Sketch, Sketches, merge, sketch_ids, sketch_numbers
from include.domain.windows import Grain, Window, window_of
from include.ports.tables import Tables

log = logging.getLogger(__name__)

TABLE = "sketches"
SCHEMA = pa.schema(
    [
        ("window", pa.string()), ("bins", pa.string()), ("content", pa.string()), ("feature", pa.string()),
        ("counts", pa.list_(pa.int64())), ("sums", pa.list_(pa.float64())),
    ]
)  # fmt: skip


def features(encoding: Encoding) -> tuple[str, ...]:
    """What is watched: the model's columns without the parts of the time, whose season is known, and what is made of others."""
    left_out = {*encoding.time_parts, *encoding.made}
    return tuple(f for f in (*encoding.categorical, *encoding.numeric) if f not in left_out)


def names(encoding: Encoding) -> dict[str, list[str]]:
    """What each bin of a feature's sketch holds, in words."""
    found = {f: ["missing", "never seen in training", *encoding.vocabulary[f]] for f in encoding.categorical}
    for feature, knots in encoding.knots.items():
        ends = [f"{knot:.4g}" for knot in knots]
        between = [f"{a} to {b}" for a, b in pairwise(ends)]
        found[feature] = ["missing", f"below {ends[0]}", *between, f"from {ends[-1]}"]
    return found


def sketch(encoding: Encoding, rows: pa.Table) -> dict[str, Sketch]:
    """Each watched feature of the rows on the encoding's bins; a column that the rows lack, or that holds no numbers where
    the encoding wants some, is left out."""
    held = [f for f in features(encoding) if f in rows.column_names]
    found = {f: _column(encoding, f, rows[f].combine_chunks()) for f in held}
    return {f: s for f, s in found.items() if s is not None}


def _column(encoding: Encoding, feature: str, column: pa.Array) -> Sketch | None:
    if feature not in encoding.knots:
        return _categories(encoding.vocabulary[feature], column)
    try:
        return sketch_numbers(encoding.knots[feature], _numbers(feature, column))
    except ValueError as fault:
        log.warning("left out: %s", fault)
        return None


def of_windows(
    tables: Tables, source: str, encoding: Encoding, labels: Sequence[str], grain: Grain
) -> dict[str, Sketches]:
    """The windows' sketches, from the table where it has them for this encoding and what the window holds now, else made."""
    bins, contents = digest(encoding), tables.contents(source)
    windows = {label: window_of(label, grain) for label in labels if label in contents}
    found: dict[str, Sketches] = {**_kept(tables, bins, list(windows.values()), contents)}
    fresh = {label: window for label, window in windows.items() if label not in found}
    for label, window in fresh.items():
        found[label] = reduce(_both, (sketch(encoding, rows) for rows in tables.pieces(source, window)))
    if fresh:
        made = {window: _rows(label, bins, contents[label], found[label]) for label, window in fresh.items()}
        tables.replace(TABLE, made, "watch")
    return {label: found[label] for label in windows}


def summed(windows: Sequence[Sketches]) -> dict[str, Sketch]:
    """The windows as one, in the features that all of them have."""
    held = [f for f in windows[0] if all(f in w for w in windows)]
    return {feature: merge([w[feature] for w in windows]) for feature in held}


def _both(a: Sketches, b: Sketches) -> Sketches:
    return summed((a, b))


def digest(encoding: Encoding) -> str:
    """Names the bins."""
    return hashlib.sha256(json.dumps(encoding.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def _kept(tables: Tables, bins: str, windows: Sequence[Window], contents: Mapping[str, str]
           ) -> dict[str, dict[str, Sketch]]:  # fmt: skip
    if tables.version(TABLE) is None or not windows:
        return {}
    rows = tables.read(TABLE, windows)
    rows = rows.filter(pc.equal(rows["bins"], bins))
    found: dict[str, dict[str, Sketch]] = {}
    for row in rows.to_pylist():
        if row.get("content") == contents[row["window"]]:
            held = Sketch(np.array(row["counts"], dtype=np.int64), np.array(row["sums"], dtype=np.float64))
            found.setdefault(row["window"], {})[row["feature"]] = held
    return found


def _rows(label: str, bins: str, content: str, sketches: Sketches) -> pa.Table:
    entries: Iterable[dict[str, object]] = (
        {
            "window": label,
            "bins": bins,
            "content": content,
            "feature": f,
            "counts": s.counts.tolist(),
            "sums": s.sums.tolist(),
        }
        for f, s in sketches.items()
    )
    return pa.Table.from_pylist(list(entries), schema=SCHEMA)


def _numbers(feature: str, column: pa.Array) -> NDArray[np.floating]:
    """float32 `[n]`, NaN where missing or infinite."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return as_numbers(feature, column.to_pylist())
    numbers = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isinf(numbers), np.float32(np.nan), numbers) if np.isinf(numbers).any() else numbers


def _categories(vocabulary: Mapping[str, int], column: pa.Array) -> Sketch:
    """On the ids that `Encoding.encode` gives, looked up once for each distinct value."""
    coded = column.dictionary_encode()
    texts = [as_text(value) for value in coded.dictionary.to_pylist()]
    ids = [MISSING if text is None else vocabulary.get(text, UNKNOWN) for text in texts]
    times = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(ids))
    every = np.array([MISSING, *ids], dtype=np.intp)
    return sketch_ids(FIRST_KNOWN + len(vocabulary), every, np.array([column.null_count, *times]))
