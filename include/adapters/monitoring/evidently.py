"""Evidently's drift report, for people; decisions rest on the watch's own statistics."""

from pathlib import Path

import pyarrow as pa

#: Rows of each side: Evidently takes seconds for every ten thousand.
ROWS = 5000


def write(reference: pa.Table, newest: pa.Table, numeric: list[str], categorical: list[str], path: Path) -> Path:
    """The HTML of its DataDriftPreset on an even sample of both tables."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    then, now = (
        Dataset.from_pandas(_sample(rows.select([*numeric, *categorical])).to_pandas(), data_definition=columns)
        for rows in (reference, newest)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Report([DataDriftPreset()]).run(now, then).save_html(str(path))
    return path


def _sample(rows: pa.Table) -> pa.Table:
    step = max(1, -(-len(rows) // ROWS))
    return rows.take(list(range(0, len(rows), step)))
