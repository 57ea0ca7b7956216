"""Expectations learnt from the first landed windows: a proposal as YAML for a person to read, never adopted by itself.

Every bound leaves room around what was seen, because the next windows are not the first ones again; bounds on what a season
may move only warn.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import polars as pl
import yaml

from include.domain.errors import UserMistake
from include.domain.windows import window_of
from include.ports.tables import Records, Tables
from include.spec.data import Columns, Expectation
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import landed_rows, pieces
from include.stages.data.partitioning import LANDED

#: So many of the first windows teach, as far as they fit into memory; fewer than `ENOUGH` teach nothing.
FIRST, ENOUGH = 14, 3
#: A categorical column with at most so many values, each of them seen `OFTEN` times on average, is a list of known ones.
FEW, OFTEN = 30, 10
#: What may be out of bounds, as a share of a window's rows.
TOLERATED = 0.01


def propose(spec: ModelSpec, tables: Tables, records: Records) -> str:
    """The items of `validation.expectations`, one a line. Raises UserMistake when too few windows have landed."""
    windows = [window_of(name, spec.window) for name in tables.windows(LANDED)[:FIRST]]
    taught = next(pieces(windows, landed_rows(records)), [])
    if len(taught) < ENOUGH:
        raise UserMistake(
            f"{spec.name}: expectations are learnt from {ENOUGH} windows at least, and {len(taught)} landed with rows "
            "that fit into memory: land more"
        )
    names = [spec.columns.label, *spec.columns.features, "window"]
    rows = pl.DataFrame(pl.from_arrow(tables.read(LANDED, taught, columns=names)))
    span = f"{len(taught)} windows, {taught[0].label} to {taught[-1].label}, {rows.height} rows"
    return _yaml(f"learnt from {span}; keep what you agree with", list(learn(spec.columns, rows)))


def learn(columns: Columns, rows: pl.DataFrame) -> Iterator[Expectation]:
    """What each column of the rows lets one expect of a window; `rows` with column `window`."""
    for name in columns.features:
        yield from _nulls(name, rows)
        yield from _range(name, rows[name]) if name in columns.numeric else _known(name, rows[name])
    yield from _label_rate(columns.label, rows)


def _nulls(name: str, rows: pl.DataFrame) -> Iterator[Expectation]:
    """At most twice the share that was missing in the worst window."""
    worst = max(rows.group_by("window").agg(pl.col(name).is_null().mean())[name])
    mostly = 1 - 2 * worst - TOLERATED
    if mostly > 0:
        yield _expect("expect_column_values_to_not_be_null", column=name, mostly=_rounded(mostly, math.floor))


def _range(name: str, values: pl.Series) -> Iterator[Expectation]:
    """What was seen and half its span on either side; a number that was never negative stays so."""
    low: Any = values.min()
    high: Any = values.max()
    if low is None or low == high:
        return
    room = (high - low) / 2
    least = max(0.0, low - room) if low >= 0 else low - room
    most = min(0.0, high + room) if high <= 0 else high + room
    yield _expect("expect_column_values_to_be_between", "warn", column=name, min_value=_rounded(least, math.floor),
                  max_value=_rounded(most, math.ceil), mostly=1 - TOLERATED)  # fmt: skip


def _known(name: str, values: pl.Series) -> Iterator[Expectation]:
    seen = values.drop_nulls()
    known = sorted(seen.unique())
    if 0 < len(known) <= FEW and len(known) * OFTEN <= len(seen):
        yield _expect("expect_column_values_to_be_in_set", column=name, value_set=known, mostly=1 - TOLERATED)


def _label_rate(name: str, rows: pl.DataFrame) -> Iterator[Expectation]:
    """From half the lowest to one and a half times the highest rate of a window, where every window has labels."""
    rates = rows.group_by("window").agg(pl.col(name).mean())[name]
    if rates.null_count():
        return
    low, high = float(min(rates)) / 2, min(1.0, float(max(rates)) * 1.5)
    yield _expect("expect_column_mean_to_be_between", "warn", column=name, min_value=_rounded(low, math.floor),
                  max_value=_rounded(high, math.ceil))  # fmt: skip


def _expect(name: str, severity: Literal["warn", "fail"] = "fail", **arguments: Any) -> Expectation:
    return Expectation(expect=name, severity=severity, arguments=arguments)


def _rounded(value: float, outward: Callable[[float], int]) -> float:
    """Three significant digits."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{outward(value / step) * step:.3g}")


def _yaml(note: str, expectations: Sequence[Expectation]) -> str:
    items = [yaml.safe_dump(e.model_dump(exclude_defaults=True), default_flow_style=True, sort_keys=False,
                            width=math.inf).strip() for e in expectations]  # fmt: skip
    return "\n".join([f"    # {note}", *(f"    - {item}" for item in items)])
