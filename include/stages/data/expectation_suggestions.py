"""Expectations suggested by the first landed windows: YAML for a person to read, never adopted by itself.

Every bound leaves room around the values of these windows, because the next ones differ; bounds on what a season may move
only warn.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import polars as pl
import yaml

from include.domain.errors import UserMistake
from include.domain.windows import window_of
from include.ports.tables import LANDED, Records, Tables
from include.spec.data import Columns, Expectation
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import chunked, landed_row_count

#: So many of the first windows are read, as far as they fit into memory; fewer than `MIN_WINDOWS` suggest nothing.
MAX_WINDOWS, MIN_WINDOWS = 14, 3
#: A categorical column is suggested as a list of values where it has at most so many, each in so many rows on average.
MAX_VALUES, MIN_ROWS_PER_VALUE = 30, 10
#: The share of a window's rows that may be out of bounds.
TOLERANCE = 0.01


def suggest(spec: ModelSpec, tables: Tables, records: Records) -> str:
    """Return the items of `validation.expectations`, one a line. Raises UserMistake when too few windows have landed."""
    first = [window_of(label, spec.window) for label in tables.windows(LANDED)[:MAX_WINDOWS]]
    windows = next(chunked(first, partial(landed_row_count, records)), [])
    if len(windows) < MIN_WINDOWS:
        raise UserMistake(
            f"{spec.name}: expectations are learnt from {MIN_WINDOWS} windows at least, and {len(windows)} landed with "
            "rows that fit into memory: land more"
        )
    names = [spec.columns.label, *spec.columns.features, "window"]
    rows = pl.DataFrame(pl.from_arrow(tables.read(LANDED, windows, columns=names)))
    span = f"{len(windows)} windows, {windows[0].label} to {windows[-1].label}, {rows.height} rows"
    return _yaml(f"learnt from {span}; keep what you agree with", list(suggest_expectations(spec.columns, rows)))


def suggest_expectations(columns: Columns, rows: pl.DataFrame) -> Iterator[Expectation]:
    """Yield what each column of the rows lets one expect of a window; `rows` has a column `window`."""
    for name in columns.features:
        yield from _null_share(name, rows)
        yield from _range(name, rows[name]) if name in columns.numeric else _value_set(name, rows[name])
    yield from _label_rate(columns.label, rows)


def _null_share(name: str, rows: pl.DataFrame) -> Iterator[Expectation]:
    """Expect at most twice the share that is missing in the worst window."""
    worst = max(rows.group_by("window").agg(pl.col(name).is_null().mean())[name])
    mostly = 1 - 2 * worst - TOLERANCE
    if mostly > 0:
        yield _expect("expect_column_values_to_not_be_null", column=name, mostly=_rounded(mostly, math.floor))


def _range(name: str, values: pl.Series) -> Iterator[Expectation]:
    """Expect the values' span and half of it on either side; a number that is never negative stays so."""
    low: Any = values.min()
    high: Any = values.max()
    if low is None or low == high:
        return
    room = (high - low) / 2
    lower = max(0.0, low - room) if low >= 0 else low - room
    upper = min(0.0, high + room) if high <= 0 else high + room
    yield _expect(
        "expect_column_values_to_be_between",
        "warn",
        column=name,
        min_value=_rounded(lower, math.floor),
        max_value=_rounded(upper, math.ceil),
        mostly=1 - TOLERANCE,
    )


def _value_set(name: str, values: pl.Series) -> Iterator[Expectation]:
    """Expect the values of a column that has few."""
    present = values.drop_nulls()
    distinct = sorted(present.unique())
    if 0 < len(distinct) <= MAX_VALUES and len(distinct) * MIN_ROWS_PER_VALUE <= len(present):
        yield _expect("expect_column_values_to_be_in_set", column=name, value_set=distinct, mostly=1 - TOLERANCE)


def _label_rate(name: str, rows: pl.DataFrame) -> Iterator[Expectation]:
    """Expect half the lowest to one and a half times the highest rate of a window, where every window has labels."""
    rates = rows.group_by("window").agg(pl.col(name).mean())[name]
    if rates.null_count():
        return
    low, high = _rounded(float(min(rates)) / 2, math.floor), _rounded(min(1.0, float(max(rates)) * 1.5), math.ceil)
    yield _expect("expect_column_mean_to_be_between", "warn", column=name, min_value=low, max_value=high)


def _expect(name: str, severity: Literal["warn", "fail"] = "fail", **arguments: Any) -> Expectation:
    return Expectation(expect=name, severity=severity, arguments=arguments)


def _rounded(value: float, outward: Callable[[float], int]) -> float:
    """Return the value with three significant digits, rounded by `outward` (math.floor or math.ceil)."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{outward(value / step) * step:.3g}")


def _yaml(comment: str, expectations: Sequence[Expectation]) -> str:
    items = (expectation.model_dump(exclude_defaults=True) for expectation in expectations)
    lines = [yaml.safe_dump(item, default_flow_style=True, sort_keys=False, width=math.inf).strip() for item in items]
    return "\n".join([f"    # {comment}", *(f"    - {line}" for line in lines)])
