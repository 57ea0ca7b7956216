"""Which window each row of a source file belongs to, and whether it is taken there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import polars as pl

from include.domain.prefetch import side_by_side
from include.domain.windows import Window, window_label
from include.ports.sources import Batch, SourceFile
from include.ports.tables import Records
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import REJECTS, Typed, cast, with_added
from include.stages.data.spill_buffer import Spool
from include.stages.data.timestamps import TIMESTAMP

LANDED, QUARANTINE = "landed", "quarantine"


class Sorter:
    """Sorts rows into the spool for a run that lands the windows `asked` (by label)."""

    def __init__(self, spec: ModelSpec, asked: Mapping[str, Window], records: Records, spool: Spool) -> None:
        self._spec, self._asked, self._records, self._spool = spec, asked, records, spool
        self.read = 0
        #: By window and file name what the file is to the window: its `digest`, and whether it came `late`.
        self.delivered: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in asked}

    def sort_in(
        self, files: Sequence[SourceFile], read: Callable[[SourceFile], Iterator[Batch]]
    ) -> Iterator[SourceFile]:
        """The files, each once its rows lie in the spool; threads read and type what comes next meanwhile."""
        for file in files:
            for name, window in self._asked.items():
                if file.window in (None, window):
                    self.delivered[name][file.name] = {"digest": file.digest, "late": False}
        batches = ((file, batch) for file in files for batch in chain(read(file), [None]))
        for file, typed in side_by_side(self._typed, batches):
            if typed is None:
                yield file
            else:
                self._take(file, typed)

    def _typed(self, piece: tuple[SourceFile, Batch | None]) -> tuple[SourceFile, Typed | None]:
        file, batch = piece
        if batch is None:
            return file, None
        whole = with_added(self._spec.columns, batch, self._own(file).start) if self._spec.columns.added else batch
        return file, cast(self._spec.columns, self._spec.source.nulls, whole)

    def _take(self, file: SourceFile, typed: Typed) -> None:
        self.read += typed.rows.height + typed.rejects.height
        start = self._own(file).start
        rows, rejects = typed.rows, typed.rejects.with_columns(pl.col("time").fill_null(start))
        if file.window:
            rows, early = self._not_early(rows, file.window)
            rejects = pl.concat([rejects.with_columns(time=pl.lit(start, TIMESTAMP)), early])
        self._set_aside(file, rows, rejects)

    def _own(self, file: SourceFile) -> Window:
        return file.window or self._asked[min(self._asked)]

    def _set_aside(self, file: SourceFile, rows: pl.DataFrame, rejects: pl.DataFrame) -> None:
        for window, part in self._split(rows, self._spec.columns.time):
            if file.name in self.delivered.get(window, {}) or self._takes_late(window, file):
                self._spool.add(LANDED, window, part)
        for window, part in self._split(rejects, "time"):
            if window in self._asked:
                self._spool.add(QUARANTINE, window, part.drop("time"))

    def _takes_late(self, window: str, file: SourceFile) -> bool:
        """Whether rows are taken that this file delivers to another window than its own or those asked for.

        A window's own file is read with that window alone, so its late rows are taken whenever it is. Other files are
        read by every run: their rows of a window landed before are taken when the file was not there, or another, then.
        """
        record = self._records.read(LANDED, window)
        news = record is not None and record["files"].get(file.name, {}).get("digest") != file.digest
        if file.window or (news and window < max(self._asked)):
            self.delivered.setdefault(window, {})[file.name] = {"digest": file.digest, "late": True}
            return True
        return False

    def _not_early(self, rows: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows before the end of the file's window; those after it as rejects: a window's file cannot know them yet."""
        time = pl.col(self._spec.columns.time)
        after = rows.filter(time >= window.end)
        reason = pl.format("after its file's window: {}", time.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
        whole = pl.struct(pl.exclude("file", "line").cast(pl.String, strict=False)).struct.json_encode()
        rejects = after.select(
            "file", "line", column=pl.lit(self._spec.columns.time), reason=reason, raw=whole,
            time=pl.lit(window.start, TIMESTAMP),
        )  # fmt: skip
        return rows.filter(time < window.end) if after.height else rows, rejects.select(*REJECTS, "time")

    def _split(self, rows: pl.DataFrame, time: str) -> Iterator[tuple[str, pl.DataFrame]]:
        if not rows.height:
            return
        starts = rows[time].dt.truncate(self._spec.window.interval)
        if starts.min() == starts.max():
            yield window_label(starts[0]), rows
            return
        parts = rows.with_columns(starts.alias("_start")).partition_by("_start", as_dict=True, include_key=False)
        for (start,), part in parts.items():
            yield window_label(start), part
