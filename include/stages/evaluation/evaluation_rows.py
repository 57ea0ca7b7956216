"""The labelled rows of a dataset's test windows, in the forms that scorers, gates and the model server take."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts.dataset_manifest import DatasetManifest
from include.domain.categories import as_text
from include.domain.errors import Corrupt
from include.domain.windows import window_of
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec

#: Fewer windows than this say too little about how windows differ: then equal parts of their time stand for them.
MIN_WINDOWS = 5
PARTS = 8
#: Raw columns by name: arrays of numbers with NaN for missing, lists of everything else.
RawColumns = dict[str, Any]


def read_test_rows(spec: ModelSpec, dataset: DatasetManifest, tables: Tables) -> pa.Table:
    """Return the labelled test rows in order of time, with every column of the table version that the dataset was made from.

    Raises Corrupt when the table holds another number of them than the dataset.
    """
    windows = [window_of(label, spec.window) for label in dataset.windows.test]
    rows = tables.read(dataset.table, windows, version=dataset.table_version)
    rows = rows.filter(rows[spec.columns.label].is_valid()).sort_by(spec.columns.time)
    if len(rows) != dataset.rows.test:
        raise Corrupt(
            f"{dataset.table} at version {dataset.table_version} holds {len(rows):,} labelled rows of the test windows "
            f"and the dataset {dataset.rows.test:,}; run the features stage again"
        )
    return rows


def raw_columns(rows: pa.Table, names: Sequence[str]) -> RawColumns:
    """Return the columns as an encoding takes them: numbers as arrays with NaN for missing, all else as lists."""
    return {name: _raw_values(rows[name]) for name in names}


def as_requests(rows: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as a caller of the model server sends them: ISO times, null for a missing number."""
    return [{name: _json_value(value) for name, value in row.items()} for row in rows.to_pylist()]


def slice_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the raw values of a column as an array that needs no pickle; a missing text is the empty one."""
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray([as_text(value) or "" for value in column.to_pylist()], dtype=np.str_)


def dependency_groups(times: NDArray[np.int64], window_seconds: int) -> NDArray[np.int64]:
    """Return for each row of `times` `[n]` (epoch seconds) the group of rows that depend on each other.

    Rows of one window do: one storm delays a whole day. Where windows are too few to show how they differ, equal parts of
    their time stand for them.
    """
    windows: NDArray[np.int64] = times // window_seconds
    if len(times) == 0 or len(np.unique(windows)) >= MIN_WINDOWS:
        return windows
    first, last = times.min(), times.max()
    return np.asarray((times - first) * PARTS // (last - first + 1))


def _raw_values(column: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(column.type):
        return column.to_numpy()
    return column.to_pylist()


def _json_value(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return None if isinstance(value, float) and not np.isfinite(value) else value
