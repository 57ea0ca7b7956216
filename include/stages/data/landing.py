"""Landing: the source's rows of some windows, typed, into the table `landed`; what cannot be read, into `quarantine`.

A window holds what every file delivered for it: reading a file again replaces that file's rows and no other's. So a late
row, which comes with a later window's file, goes to its own window and stays there however often either is landed again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import polars as pl

from include.domain.errors import UserMistake
from include.domain.windows import Window, window_of
from include.ports.sources import Source
from include.ports.tables import Records, Tables
from include.spec.model_spec import ModelSpec
from include.stages.data.parsing import REJECTS, schema
from include.stages.data.partitioning import LANDED, QUARANTINE, Sorter
from include.stages.data.spill_buffer import Spool
from include.stages.data.window_writer import LandedWindow, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
#: What a run landed, by its id: its windows, late ones among them.
LANDINGS = "landings"
#: What the data stages hold in memory at once, and write in one commit.
ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class LandingReport:
    windows: tuple[LandedWindow, ...]
    read: int  #: records of the files, those of windows not asked for among them

    @property
    def landed(self) -> int:
        return sum(w.landed for w in self.windows)

    @property
    def quarantined(self) -> int:
        return sum(w.quarantined for w in self.windows)

    @property
    def duplicates(self) -> int:
        return sum(w.duplicates for w in self.windows)


def land(
    spec: ModelSpec, windows: Sequence[Window], source: Source, tables: Tables, records: Records, run: str
) -> LandingReport:
    """Land these windows, and the late rows of others that came with them.

    Raises UserMistake when more rows than the spec allows cannot be read, naming the three commonest reasons, and what
    the source raises; nothing is written then. Raises Conflict when another run wrote one of the windows meanwhile.
    """
    asked = {w.label: w for w in windows}
    with Spool() as spool:
        sorter = Sorter(spec, asked, records, spool)
        files, numbers = source.files(windows), [n for n, kind in schema(spec.columns).items() if kind == pl.Float64]
        for done, _ in enumerate(sorter.sort_in(files, partial(source.read, numbers=numbers)), 1):
            log.info("%s: read %d of %d files, %d rows", spec.name, done, len(files), sorter.read)
        _refuse_too_many(spec, spool, sorter.read)
        read = {file.name for file in files}
        writer = Writer(spec, spool, tables, records, run, delivered=sorter.delivered, read=read, asked=asked.keys())
        names = sorted({*asked, *spool.windows(LANDED)})
        landed: tuple[LandedWindow, ...] = ()
        for piece in pieces(names, lambda name: spool.height(LANDED, name)):
            landed += tuple(writer.write(piece))
            rows = sum(window.landed for window in landed)
            log.info("%s: landed %d of %d windows, %d rows", spec.name, len(landed), len(names), rows)
    report = LandingReport(landed, sorter.read)
    records.write(LANDINGS, run, {"windows": [asdict(w) for w in report.windows], "read": report.read})
    return report


def touched(spec: ModelSpec, windows: Sequence[Window], records: Records, run: str) -> list[Window]:
    """These windows and those to which the run landed late rows, oldest first."""
    record = records.read(LANDINGS, run) or {"windows": []}
    return sorted({window_of(landed["window"], spec.window) for landed in record["windows"]} | set(windows))


def pieces(items: Sequence[T], height: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, as many together as hold at most `ROWS_AT_ONCE` rows; always one at least."""
    piece: list[T] = []
    rows = 0
    for item in items:
        more = height(item)
        if piece and rows + more > ROWS_AT_ONCE:
            yield piece
            piece, rows = [], 0
        piece.append(item)
        rows += more
    if piece:
        yield piece


def landed_rows(records: Records) -> Callable[[Window], int]:
    """How many rows a window has landed."""
    return lambda window: int((records.read(LANDED, window.label) or {"landed": 0})["landed"])


def _refuse_too_many(spec: ModelSpec, spool: Spool, read: int) -> None:
    bad = sum(spool.height(QUARANTINE, name) for name in spool.windows(QUARANTINE))
    if bad <= spec.validation.max_quarantined * read:
        return
    rejects = pl.concat(spool.frame(QUARANTINE, name, REJECTS) for name in spool.windows(QUARANTINE))
    kinds = rejects.with_columns(kind=pl.col("reason").str.split(": ").list.first()).group_by("column", "kind").agg(
        pl.len(), pl.first("file", "line", "reason")).sort("len", "column", "kind", descending=[True, False, False])  # fmt: skip
    worst = [f"  {r['len']} × {r['column'] or 'record'}: {r['reason']} ({r['file']} line {r['line']})"
             for r in kinds.head(3).iter_rows(named=True)]  # fmt: skip
    share = f"{bad} of {read} rows ({bad / read:.1%}) cannot be read, more than {spec.validation.max_quarantined:.1%}"
    raise UserMistake("\n".join([f"{spec.name}: {share}; nothing was landed. Commonest:", *worst]))
