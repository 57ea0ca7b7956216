"""Time travel: the very rows that a training run learnt from and was judged on, whatever was landed since."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.windows import Grain, window_of
from include.ports.registry import Registry
from include.ports.tables import Tables
from include.spec.data import Columns
from include.stages.training.dataset import labelled


def rows_of_run(run_id: str, registry: Registry, tables: Tables) -> dict[str, pl.DataFrame]:
    """`rows` of the dataset that the MLflow run records. Raises UserMistake for a run without a whole record, Corrupt for
    one that was changed."""
    with tempfile.TemporaryDirectory() as folder:
        tags = registry.record(run_id, Path(folder))
        return rows(store.read(Reference(f"{folder}/dataset.json", tags["dataset_digest"])), tables)


def rows(dataset: Mapping[str, Any], tables: Tables) -> dict[str, pl.DataFrame]:
    """By split (`train`, `validate`, `test`) the rows of the features table, in the order of the dataset's arrays.

    `dataset` is the content of a `dataset.json`. Raises UserMistake where the table no longer has that version.
    """
    columns, grain = Columns.model_validate(dataset["spec"]["columns"]), Grain(dataset["spec"]["window"])
    return {
        split: labelled(columns, tables, [window_of(name, grain) for name in names], dataset["table_version"])
        for split, names in dataset["windows"].items()
    }
