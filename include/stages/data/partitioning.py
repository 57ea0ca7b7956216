"""The sorting of source rows into windows: each row belongs to one, and this run lands it there or not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import polars as pl

from include.artifacts.window_records import DeliveredFile, LandedWindow
from include.domain.prefetch import map_ahead
from include.domain.windows import Window, window_label
from include.ports.sources import Batch, SourceFile
from include.ports.tables import LANDED, QUARANTINE, Records
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import QUARANTINE_SCHEMA, ParsedRows, parse_rows, with_added_columns
from include.stages.data.spill_buffer import SpillBuffer
from include.stages.data.timestamps import TIMESTAMP


class WindowPartitioner:
    """Parses source files and puts their rows into a buffer by window, for a run that lands the windows `requested`.

    `rows_read` counts the files' records. `deliveries` has by window label and file name the files just read that hold
    rows of the window.
    """

    def __init__(self, spec: ModelSpec, requested: Mapping[str, Window], records: Records, buffer: SpillBuffer) -> None:
        self._spec, self._requested, self._records, self._buffer = spec, requested, records, buffer
        self.rows_read = 0
        self.deliveries: dict[str, dict[str, DeliveredFile]] = {label: {} for label in requested}

    def partition(
        self, files: Sequence[SourceFile], read: Callable[[SourceFile], Iterator[Batch]]
    ) -> Iterator[SourceFile]:
        """Yield each file once its rows lie in the buffer, while threads parse the next ones."""
        for file in files:
            for label, window in self._requested.items():
                if file.window in (None, window):
                    self.deliveries[label][file.name] = DeliveredFile(file.digest, late=False)
        batches = ((file, batch) for file in files for batch in chain(read(file), [None]))
        for file, parsed in map_ahead(self._parse, batches):
            if parsed is None:
                yield file
            else:
                self._add(file, parsed)

    def _parse(self, item: tuple[SourceFile, Batch | None]) -> tuple[SourceFile, ParsedRows | None]:
        file, batch = item
        if batch is None:
            return file, None
        columns = self._spec.columns
        if columns.added:
            batch = with_added_columns(columns, batch, self._window_of(file).start)
        return file, parse_rows(columns, self._spec.source.nulls, batch)

    def _add(self, file: SourceFile, parsed: ParsedRows) -> None:
        self.rows_read += parsed.rows.height + parsed.rejects.height
        start = self._window_of(file).start
        rows, rejects = parsed.rows, parsed.rejects.with_columns(pl.col("time").fill_null(start))
        if file.window:
            rows, early = self._split_off_early(rows, file.window)
            rejects = pl.concat([rejects.with_columns(time=pl.lit(start, TIMESTAMP)), early])
        self._add_to_buffer(file, rows, rejects)

    def _window_of(self, file: SourceFile) -> Window:
        """Return the file's own window, or the oldest one requested for a file that is no window's own."""
        return file.window or self._requested[min(self._requested)]

    def _add_to_buffer(self, file: SourceFile, rows: pl.DataFrame, rejects: pl.DataFrame) -> None:
        for label, part in self._by_window(rows, self._spec.columns.time):
            if file.name in self.deliveries.get(label, {}) or self._accepts_late_rows(label, file):
                self._buffer.add(LANDED, label, part)
        for label, part in self._by_window(rejects, "time"):
            if label in self._requested:
                self._buffer.add(QUARANTINE, label, part.drop("time"))

    def _accepts_late_rows(self, label: str, file: SourceFile) -> bool:
        """Return whether the file's rows of a window that is neither its own nor requested are landed.

        A window's own file is read with that window alone, so its late rows are landed whenever it is. Other files are
        read by every run: their rows of a window that landed before are landed when the file was absent or different then.
        """
        landed = self._records.read(LandedWindow, label)
        before = landed.files.get(file.name) if landed else None
        is_new = landed is not None and (before is None or before.digest != file.digest)
        if file.window or (is_new and label < max(self._requested)):
            self.deliveries.setdefault(label, {})[file.name] = DeliveredFile(file.digest, late=True)
            return True
        return False

    def _split_off_early(self, rows: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows before the end of the file's window, and the others as rejects: the file cannot know them yet."""
        time = pl.col(self._spec.columns.time)
        early = rows.filter(time >= window.end)
        reason = pl.format("after its file's window: {}", time.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
        row = pl.struct(pl.exclude("file", "line").cast(pl.String, strict=False)).struct.json_encode()
        column, start = pl.lit(self._spec.columns.time), pl.lit(window.start, TIMESTAMP)
        rejects = early.select("file", "line", column=column, reason=reason, raw=row, time=start)
        return rows.filter(time < window.end) if early.height else rows, rejects.select(*QUARANTINE_SCHEMA, "time")

    def _by_window(self, rows: pl.DataFrame, time: str) -> Iterator[tuple[str, pl.DataFrame]]:
        if not rows.height:
            return
        starts = rows[time].dt.truncate(self._spec.window.interval)
        if starts.min() == starts.max():
            yield window_label(starts[0]), rows
            return
        parts = rows.with_columns(starts.alias("_start")).partition_by("_start", as_dict=True, include_key=False)
        for (start,), part in parts.items():
            yield window_label(start), part
