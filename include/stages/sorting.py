"""Which window each row of a source file belongs to, and whether it is taken there."""

from collections.abc import Iterator, Mapping

import polars as pl

from include.domain.windows import Window, label
from include.ports import Batch, Records, SourceFile
from include.spec import ModelSpec
from include.stages.casting import REJECTS, cast
from include.stages.spool import Spool
from include.stages.times import TIMESTAMP

LANDED, QUARANTINE = "landed", "quarantine"


class Sorter:
    """Sorts rows into the spool for a run that lands the windows `asked` (by label)."""

    def __init__(self, spec: ModelSpec, asked: Mapping[str, Window], records: Records, spool: Spool) -> None:
        self._spec, self._asked, self._records, self._spool = spec, asked, records, spool
        self.read = 0

    def sort_in(self, file: SourceFile, batches: Iterator[Batch]) -> None:
        taken: dict[str, bool] = {}
        own = file.window or self._asked[min(self._asked)]
        for batch in batches:
            typed = cast(self._spec.columns, self._spec.source.nulls, batch)
            self.read += typed.rows.height + typed.rejects.height
            rows, rejects = typed.rows, typed.rejects.with_columns(pl.col("time").fill_null(own.start))
            if file.window:
                rows, early = self._not_early(rows, file.window)
                rejects = pl.concat([rejects.with_columns(time=pl.lit(own.start, TIMESTAMP)), early])
            for window, part in self._split(rows, self._spec.columns.time):
                if taken.setdefault(window, self._takes(window, file)):
                    self._spool.add(LANDED, window, part)
            for window, part in self._split(rejects, "time"):
                if window in self._asked:
                    self._spool.add(QUARANTINE, window, part.drop("time"))

    def _takes(self, window: str, file: SourceFile) -> bool:
        """Whether the file's rows of this window are taken: those asked for, and late ones.

        A window's own file is read with that window alone, so its late rows are taken whenever it is. Other files are
        read by every run: their rows of a window landed before are taken when the file was not there, or another, then.
        """
        if window in self._asked or file.window:
            return True
        record = self._records.read(LANDED, window)
        return record is not None and window < max(self._asked) and record["files"].get(file.name) != file.digest

    def _not_early(self, rows: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows before the end of the file's window; those after it as rejects: a window's file cannot know them yet."""
        time = pl.col(self._spec.columns.time)
        after = rows.filter(time >= window.end)
        whole = pl.struct(pl.exclude("file", "line").cast(pl.String, strict=False)).struct.json_encode()
        rejects = after.select(
            "file", "line", column=pl.lit(self._spec.columns.time), reason=pl.format(
                "after its file's window: {}", time.dt.to_string("%Y-%m-%dT%H:%M:%SZ")),
            raw=whole, time=pl.lit(window.start, TIMESTAMP),
        )  # fmt: skip
        return rows.filter(time < window.end) if after.height else rows, rejects.select(*REJECTS, "time")

    def _split(self, rows: pl.DataFrame, time: str) -> Iterator[tuple[str, pl.DataFrame]]:
        starts = rows[time].dt.truncate("1h" if self._spec.window == "hour" else "1d")
        if not rows.height:
            return
        if starts.min() == starts.max():
            yield label(starts[0]), rows
            return
        parts = rows.with_columns(starts.alias("_start")).partition_by("_start", as_dict=True, include_key=False)
        for (start,), part in parts.items():
            yield label(start), part
