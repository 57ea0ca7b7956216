"""Evidently's drift report, for people; decisions rest on this project's own statistics."""

from pathlib import Path

import pyarrow as pa

#: The most rows of either table that are compared: Evidently takes seconds for every ten thousand.
MAX_ROWS = 5000


def write(reference: pa.Table, newest: pa.Table, numeric: list[str], categorical: list[str], path: Path) -> Path:
    """Write the HTML of Evidently's `DataDriftPreset` on those columns of both tables, and return its path.

    Of a larger table, an even sample of `MAX_ROWS` rows is compared.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    reference_data, newest_data = (
        Dataset.from_pandas(_sample(rows.select([*numeric, *categorical])).to_pandas(), data_definition=columns)
        for rows in (reference, newest)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Report([DataDriftPreset()]).run(newest_data, reference_data).save_html(str(path))
    return path


def _sample(rows: pa.Table) -> pa.Table:
    step = max(1, -(-len(rows) // MAX_ROWS))
    return rows.take(list(range(0, len(rows), step)))
