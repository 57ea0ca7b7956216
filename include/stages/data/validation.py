"""Validation: is a landed window what the spec and the windows before it let one expect? One verdict a window, as a record."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import median

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from include.artifacts.window_records import LandedWindow, ValidatedWindow
from include.domain.verdict import Outcome, Verdict
from include.domain.windows import Window
from include.ports.tables import LANDED, Records, Tables
from include.ports.validation import Profile, Validator
from include.spec.data import Columns
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import chunked, landed_row_count, with_late_windows
from include.stages.data.parsing import landed_columns
from include.stages.data.row_order import split_by_window

#: A window is compared with so many windows before it, and with none when fewer than `MIN_COMPARED` of them have rows.
COMPARED_WINDOWS, MIN_COMPARED = 14, 3


@dataclass(frozen=True)
class WindowMeasures:
    """A window's own numbers: rows, the mean of the labels, the newest time, and the share of missing values by column.

    `label_rate` is None without labels. `newest` is None, and `null_shares` incomplete, where columns were not read.
    """

    rows: float
    label_rate: float | None
    newest: datetime | None
    null_shares: Mapping[str, float]


def validate(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, validator: Validator, records: Records, run: str
) -> dict[str, Verdict]:
    """Judge these windows and those to which the run landed late rows; return the verdicts by window label.

    Raises UserMistake for an expectation of the spec that cannot be judged.
    """
    windows = with_late_windows(spec, windows, records, run)
    chunks = list(chunked(windows, partial(landed_row_count, records)))
    profiles: list[Profile] = []
    rows: dict[str, pa.Table] = {}
    for chunk in chunks:
        rows = _read_rows(spec, chunk, tables, records, rows)
        profiles += profile_windows(spec, rows, chunk, _recorded_measures(chunk[0], records, profiles))
    columns = [*landed_columns(spec.columns), "window"]
    verdicts, page = validator.validate(
        (tables.read(LANDED, chunk, columns=columns) for chunk in chunks), profiles, run
    )
    for profile in profiles:
        landed = records.read(LandedWindow, profile.window)
        record = ValidatedWindow(
            verdict=verdicts[profile.window],
            measures=dict(profile.measures),
            page=page,
            run=run,
            digest=landed.digest if landed else None,
            table_version=landed.table_version if landed else None,
            spec_digest=spec.digest,
        )
        records.write(profile.window, record)
    return dict(verdicts)


def not_validated(windows: Iterable[Window], records: Records) -> list[str]:
    """Return the labels of the windows whose rows, as landed now, have not been validated with pass."""
    return [window.label for window in windows if not _has_passed(window.label, records)]


def _has_passed(label: str, records: Records) -> bool:
    landed, validated = records.read(LandedWindow, label), records.read(ValidatedWindow, label)
    if landed is None or validated is None or landed.digest != validated.digest:
        return False
    return validated.verdict.outcome is Outcome.PASS


def _read_rows(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, already_read: Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """Return by label the rows of the windows, and of the windows before them as many as fit into memory.

    Rows that were already read are not read again. Of the windows before them only labels and categories are read.
    """
    columns, earlier = spec.columns, windows[0].preceding(COMPARED_WINDOWS)
    recent = next(chunked(earlier, partial(landed_row_count, records)))
    rows = {window.label: already_read[window.label] for window in recent if window.label in already_read}
    unread = [window for window in recent if window.label not in rows]
    compared = [columns.label, *columns.categorical, "window"]
    for group, names in ((unread, compared), (windows, [*compared, *columns.numeric, columns.time])):
        if group:
            table = tables.read(LANDED, group, columns=names, dictionary_columns=columns.categorical)
            rows |= split_by_window(table, ())
    return rows


def _recorded_measures(
    first: Window, records: Records, profiles: Sequence[Profile]
) -> dict[str, Mapping[str, float | None]]:
    """Return what was measured of the windows before `first`, in this run (`profiles`) or an earlier one.

    So the rows of large windows need not be read again. Windows without rows are left out.
    """
    labels = [window.label for window in first.preceding(COMPARED_WINDOWS)]
    measures = {label: record.measures for label in labels if (record := records.read(ValidatedWindow, label))}
    measures |= {profile.window: profile.measures for profile in profiles}
    return {label: own for label, own in measures.items() if own["rows"]}


def profile_windows(
    spec: ModelSpec,
    rows: Mapping[str, pa.Table],
    windows: Sequence[Window],
    recorded: Mapping[str, Mapping[str, float | None]],
) -> list[Profile]:
    """Return the windows in numbers, each compared with the windows before it.

    `rows` has by label the rows of the windows, and of those before them as many as fit into memory; `recorded` has the
    measures of others before them.
    """
    measures = {label: _from_record(own) for label, own in recorded.items()}
    measures |= {label: _measure(spec.columns, own) for label, own in rows.items()}
    categories, labels = spec.columns.categorical, sorted(rows)
    with ThreadPoolExecutor() as threads:
        shares = threads.map(lambda name: _unseen_shares({label: rows[label][name] for label in labels}), categories)
    unseen = dict(zip(categories, shares, strict=True))
    return [_profile(window, measures, unseen) for window in windows]


def _from_record(measures: Mapping[str, float | None]) -> WindowMeasures:
    return WindowMeasures(measures["rows"] or 0, measures.get("label_rate"), newest=None, null_shares={})


def _measure(columns: Columns, rows: pa.Table) -> WindowMeasures:
    """Measure a window in the columns that were read of it."""
    names = set(rows.column_names)
    return WindowMeasures(
        len(rows),
        pc.mean(rows[columns.label]).as_py(),
        pc.max(rows[columns.time]).as_py() if columns.time in names else None,
        {name: rows[name].null_count / len(rows) for name in columns.features if name in names},
    )


def _profile(
    window: Window, measures: Mapping[str, WindowMeasures], unseen: Mapping[str, Mapping[str, float]]
) -> Profile:
    own = measures.get(window.label)
    if own is None or own.newest is None:
        return Profile(window.label, {"rows": 0.0})
    compared = [measures[w.label] for w in window.preceding(COMPARED_WINDOWS) if w.label in measures]
    usual_rows = _median([other.rows for other in compared])
    usual_rate = _median([other.label_rate for other in compared if other.label_rate is not None])
    profile: dict[str, float | None] = {
        "rows": float(own.rows),
        "label_rate": own.label_rate,
        "silence": window.share_after(own.newest),
        "volume": own.rows / usual_rows if usual_rows else None,
        "label_shift": None if own.label_rate is None or usual_rate is None else own.label_rate - usual_rate,
    }
    profile |= {f"nulls.{name}": share for name, share in own.null_shares.items()}
    if len(compared) >= MIN_COMPARED:
        profile |= {f"unseen.{name}": shares.get(window.label, 0.0) for name, shares in unseen.items()}
    return Profile(window.label, profile)


def _median(values: Sequence[float]) -> float | None:
    """Return the median of the windows compared; None where they are fewer than `MIN_COMPARED`."""
    return median(values) if len(values) >= MIN_COMPARED else None


def _unseen_shares(columns: Mapping[str, pa.ChunkedArray]) -> dict[str, float]:
    """Return by window the share of rows whose category occurs in none of the `COMPARED_WINDOWS` windows before it.

    `columns` has a categorical column by window label, oldest first.
    """
    counts = pl.concat(_category_counts(index, column) for index, column in enumerate(columns.values()))
    counts = counts.sort("category", maintain_order=True)
    category, window, rows = pl.col("category"), pl.col("window"), pl.col("rows")
    is_unseen = category.ne_missing(category.shift(1)) | (window - window.shift(1) > COMPARED_WINDOWS)
    shares = counts.with_columns(unseen=is_unseen).group_by("window").agg((rows * pl.col("unseen")).sum() / rows.sum())
    labels = list(columns)
    return {labels[index]: share for index, share in shares.iter_rows()}


def _category_counts(index: int, column: pa.ChunkedArray) -> pl.DataFrame:
    """Return the rows of each category in the window of this index.

    Categories are hashes, which sort faster than texts; one in 2^64 is taken for another.
    """
    encoded = column.combine_chunks().dictionary_encode()
    counts = np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(encoded.dictionary))
    hashes = pl.Series("category", encoded.dictionary).hash()
    windows = pl.Series("window", [index], pl.Int32).new_from_index(0, len(hashes))
    return pl.DataFrame([windows, hashes, pl.Series("rows", counts)])
