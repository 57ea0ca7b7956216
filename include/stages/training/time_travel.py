"""Time travel: the very rows that a training run learnt from and was judged on, whatever was landed since."""

import tempfile
from pathlib import Path

import polars as pl

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.store import Reference
from include.domain.windows import Grain, window_of
from include.ports.registry import Registry
from include.ports.tables import Tables
from include.spec.data import Columns
from include.stages.training.dataset import labelled_rows


def rows_of_run(run_id: str, registry: Registry, tables: Tables) -> dict[str, pl.DataFrame]:
    """Return the rows of the dataset that the tracking run records, by split; see `rows`.

    Raises UserMistake for a run whose record is not whole, Corrupt for a record that was changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        tags = registry.download_record(run_id, Path(folder))
        dataset = Reference(f"{folder}/dataset.json", tags["dataset_digest"])
        return rows(store.read(dataset, DatasetManifest), tables)


def rows(dataset: DatasetManifest, tables: Tables) -> dict[str, pl.DataFrame]:
    """Return by split (`train`, `validate`, `test`) the rows of the features table in the order of the dataset's arrays.

    Raises UserMistake where the table no longer has that version.
    """
    columns, grain = Columns.model_validate(dataset.spec["columns"]), Grain(dataset.spec["window"])
    return {
        name: labelled_rows(columns, tables, [window_of(label, grain) for label in labels], dataset.table_version)
        for name, labels in dataset.windows.items()
    }
