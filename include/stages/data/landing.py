"""Landing: the source's rows of some windows, typed, into the table `landed`; what cannot be read, into `quarantine`.

A window holds what every file delivered for it: reading a file again replaces that file's rows and no other's. So a late
row, which comes with a later window's file, goes to its own window and stays there however often either is landed again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import polars as pl

from include.artifacts.window_records import LandedWindow, LandingCounts, LandingReport
from include.domain.errors import UserMistake
from include.domain.windows import Window, window_of
from include.ports.sources import Source
from include.ports.tables import LANDED, QUARANTINE, Records, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import QUARANTINE_SCHEMA, landed_schema
from include.stages.data.partitioning import WindowPartitioner
from include.stages.data.spill_buffer import SpillBuffer
from include.stages.data.window_writer import Delivery, WindowWriter

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Rows that the data stages hold in memory at once, and write in one commit.
ROWS_PER_CHUNK = 500_000
#: Reasons that are named when too many rows cannot be read.
REASONS_SHOWN = 3


def land(
    spec: ModelSpec, windows: Sequence[Window], source: Source, tables: Tables, records: Records, run: str
) -> LandingReport:
    """Land these windows, and the late rows of others that came with them.

    Raises UserMistake when more rows than the spec allows cannot be read, naming the commonest reasons, and whatever the
    source raises; nothing is written then. Raises Conflict when other runs wrote to the windows meanwhile.
    """
    requested = {window.label: window for window in windows}
    with SpillBuffer() as buffer:
        partitioner = WindowPartitioner(spec, requested, records, buffer)
        files = source.files(windows)
        numbers = [name for name, dtype in landed_schema(spec.columns).items() if dtype == pl.Float64]
        for count, _ in enumerate(partitioner.partition(files, partial(source.read, numbers=numbers)), 1):
            log.info("%s: read %d of %d files, %d rows", spec.name, count, len(files), partitioner.rows_read)
        _check_quarantined_share(spec, buffer, partitioner.rows_read)
        delivery = Delivery(requested.keys(), {file.name for file in files}, partitioner.deliveries)
        writer = WindowWriter(spec, buffer, tables, records, run, delivery)
        labels = sorted({*requested, *buffer.windows(LANDED)})
        landed: tuple[LandingCounts, ...] = ()
        for chunk in chunked(labels, partial(buffer.row_count, LANDED)):
            landed += tuple(writer.write(chunk))
            rows = sum(window.landed for window in landed)
            log.info("%s: landed %d of %d windows, %d rows", spec.name, len(landed), len(labels), rows)
    report = LandingReport(windows=landed, read=partitioner.rows_read)
    records.write(run, report)
    return report


def with_late_windows(spec: ModelSpec, windows: Sequence[Window], records: Records, run: str) -> list[Window]:
    """Return these windows and those to which the run landed late rows, oldest first."""
    report = records.read(LandingReport, run)
    landed = {window_of(counts.window, spec.window) for counts in report.windows} if report else set()
    return sorted(landed | set(windows))


def chunked(items: Sequence[T], row_count: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in order, in chunks of at most `ROWS_PER_CHUNK` rows, and of one item at least."""
    chunk: list[T] = []
    rows = 0
    for item in items:
        item_rows = row_count(item)
        if chunk and rows + item_rows > ROWS_PER_CHUNK:
            yield chunk
            chunk, rows = [], 0
        chunk.append(item)
        rows += item_rows
    if chunk:
        yield chunk


def landed_row_count(records: Records, window: Window) -> int:
    """Return how many rows the window has landed."""
    landed = records.read(LandedWindow, window.label)
    return landed.landed if landed else 0


def _check_quarantined_share(spec: ModelSpec, buffer: SpillBuffer, rows_read: int) -> None:
    """Raise UserMistake when more rows than the spec allows cannot be read."""
    limit, labels = spec.validation.max_quarantined, buffer.windows(QUARANTINE)
    count = sum(buffer.row_count(QUARANTINE, label) for label in labels)
    if count <= limit * rows_read:
        return
    rejects = pl.concat(buffer.read(QUARANTINE, label, QUARANTINE_SCHEMA) for label in labels)
    share = f"{count} of {rows_read} rows ({count / rows_read:.1%}) cannot be read, more than {limit:.1%}"
    reasons = _commonest_reasons(rejects)
    raise UserMistake("\n".join([f"{spec.name}: {share}; nothing was landed. Commonest:", *reasons]))


def _commonest_reasons(rejects: pl.DataFrame) -> list[str]:
    """Return a line for each of the commonest reasons, with the first row that shows it."""
    reason_class = pl.col("reason").str.split(": ").list.first()
    counts = rejects.with_columns(reason_class=reason_class).group_by("column", "reason_class")
    counted = counts.agg(pl.len(), pl.first("file", "line", "reason"))
    commonest = counted.sort("len", "column", "reason_class", descending=[True, False, False]).head(REASONS_SHOWN)
    return [
        f"  {row['len']} × {row['column'] or 'record'}: {row['reason']} ({row['file']} line {row['line']})"
        for row in commonest.iter_rows(named=True)
    ]
