"""Spark and DuckDB add up the same landed windows: every sum and every feature is the same."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from include.adapters.engines.duckdb import DuckDB
from include.adapters.engines.spark import Spark
from include.adapters.tables.delta import DeltaTables
from include.domain.windows import Window
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.features import aggregation
from tests.contract.data.test_flights import DAYS, spec, tables

__all__ = ["spec", "tables"]

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="no Java here: Spark needs Java 17")


@dataclass
class Collected:
    """An engine that has run already."""

    sums: pl.DataFrame

    def collect(
        self, tables: Tables, table: str, windows: Sequence[Window], expression: Callable[[Any], Any]
    ) -> pa.Table:
        return self.sums.to_arrow(compat_level=pl.CompatLevel.oldest())


def test_both_engines_give_the_same(tables: DeltaTables, spec: ModelSpec) -> None:
    collected = [
        pl.DataFrame(pl.from_arrow(e.collect(tables, "landed", DAYS, lambda rows: aggregation.hourly_sums(spec, rows))))
        for e in (DuckDB(), Spark("local[1]"))
    ]
    duckdb, spark = (sums.sort("window", *aggregation.ORDER).select(sorted(sums.columns)) for sums in collected)
    assert spark.schema == duckdb.schema
    assert spark.equals(duckdb, null_equal=True)
    assert duckdb.height > 5000
    before = pl.DataFrame(pl.from_arrow(tables.read("features", DAYS)))
    aggregation.write_sums(spec, DAYS, tables, Collected(spark), "spark")
    histories = aggregation.read_histories(spec, tables, DAYS[0], DAYS[-1])
    raw = before.drop(spec.features.aggregates.features)
    assert aggregation.with_aggregates(spec, raw, histories).select(before.columns).equals(before, null_equal=True)
