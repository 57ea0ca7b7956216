"""Records of delimited text, in blocks: bounded memory, every unreadable record told by its place."""

import codecs
import csv
import io
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from include.adapters import s3
from include.domain.errors import UserMistake
from include.ports.sources import Batch, Reject
from include.spec.data import SourceSpec

BLOCK = 1 << 23
#: What is parsed at once: as much as a core's cache holds, twice as fast as a whole block.
STEP = 1 << 18
#: A record longer than this is not read.
LONGEST = 1 << 24
SHOWN = 200


def read_text(name: str, stream: BinaryIO, source: SourceSpec, numbers: Collection[str] = ()) -> Iterator[Batch]:
    """The stream's records as text, and the columns `numbers` as such in blocks that hold nothing else there.

    Raises UserMistake for what spoils a whole file: no header, cut-off gzip.
    """
    text = _Text(name, source, numbers)
    try:
        yield from text.batches(stream)
    except (OSError, EOFError, pa.ArrowInvalid) as fault:
        if s3.is_server_error(fault):
            raise
        raise UserMistake(f"{name}: cannot be read after record {text.done}: {fault}; deliver it again") from None


class _Text:
    def __init__(self, name: str, source: SourceSpec, numbers: Collection[str]) -> None:
        self.name, self.done = name, 0
        self.quoted = source.format == "csv"
        self.delimiter = source.delimiter or ("\t" if source.format == "tsv" else ",")
        self.names, self.nulls = list(source.names), list(source.nulls)
        #: Columns that have held nothing else so far.
        self.numbers = set(numbers)

    def batches(self, stream: BinaryIO) -> Iterator[Batch]:
        for block, fault in _blocks(stream, quoted=self.quoted):
            if fault:
                yield self._unreadable(block, fault)
                continue
            content = block if self.names else self._without_header(block)
            yield self._batch(content)
        if not self.names:
            raise UserMistake(f"{self.name}: the file is empty, not even a header")

    def _without_header(self, block: bytes) -> bytes:
        line, _, rest = block.removeprefix(codecs.BOM_UTF8).partition(b"\n")
        try:
            header = line.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise UserMistake(f"{self.name}: the header is not UTF-8; convert the file to UTF-8") from None
        self.names = next(csv.reader([header], delimiter=self.delimiter), [])
        self.done = 1
        if twice := sorted({n for n in self.names if self.names.count(n) > 1}):
            raise UserMistake(f"{self.name}: the header names {', '.join(twice)} more than once")
        return rest

    def _batch(self, block: bytes) -> Batch:
        content, undecodable = _decodable(block)
        rows, misfits = self._parsed(content)
        records = rows.num_rows + len(misfits)
        places = _without(np.arange(self.done + 1, self.done + 1 + records + len(undecodable)), list(undecodable))
        rejects = [Reject(self.name, self.done + 1 + at, "", "not UTF-8", line) for at, line in undecodable.items()]
        for row in misfits:
            reason = f"{row.actual_columns} fields, not {row.expected_columns}"
            rejects.append(Reject(self.name, int(places[row.number - 1]), "", reason, row.text[:SHOWN]))
        self.done += records + len(undecodable)
        good = _without(np.arange(records), [row.number - 1 for row in misfits])
        filled = _filled(rows, partial(self._as_text, content, good))
        if not filled.all():
            rows, good = rows.filter(pa.array(filled)), good[filled]
        as_text = partial(self._as_text, content, good) if set(rows.schema.types) != {pa.string()} else None
        return Batch(self.name, places[good], rows, rejects, as_text)

    def _parsed(self, content: bytes) -> tuple[pa.Table, list[pacsv.InvalidRow]]:
        """Where the block has no quotes the numbers as numbers: a record is a line then, and can be looked up again."""
        if self.numbers and not (self.quoted and b'"' in content):
            with suppress(pa.ArrowInvalid):
                return self._parsed_in_steps(content, STEP, self.numbers)
        try:
            rows, misfits = self._parsed_in_steps(content, STEP)
        except pa.ArrowInvalid:  # a record longer than a step
            rows, misfits = self._parsed_in_steps(content, len(content) + 1)
        self.numbers = {name for name in self.numbers if name in self.names and self._numeric(rows[name])}
        return rows, misfits

    def _parsed_in_steps(
        self, content: bytes, step: int, numbers: Collection[str] = ()
    ) -> tuple[pa.Table, list[pacsv.InvalidRow]]:
        misfits: list[pacsv.InvalidRow] = []

        def skip(row: pacsv.InvalidRow) -> str:
            misfits.append(row)
            return "skip"

        if not content:
            return pa.table({name: pa.array([], pa.string()) for name in self.names}), []
        types = dict.fromkeys(self.names, pa.string()) | dict.fromkeys(numbers, pa.float64())
        rows = pacsv.read_csv(
            pa.py_buffer(content),
            read_options=pacsv.ReadOptions(use_threads=False, column_names=self.names, block_size=step),
            parse_options=pacsv.ParseOptions(
                delimiter=self.delimiter, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted,
                ignore_empty_lines=False, invalid_row_handler=skip),
            convert_options=pacsv.ConvertOptions(
                column_types=types, check_utf8=False, null_values=self.nulls, strings_can_be_null=False),
        )  # fmt: skip
        return rows, misfits

    def _as_text(self, content: bytes, good: NDArray[np.int64], marked: NDArray[np.bool_]) -> pa.Table:
        """The lines that are marked of those that are `good`, whatever is in them."""
        signs = np.frombuffer(content, dtype=np.uint8)
        breaks = signs == ord("\n")
        if b"\r" in content:
            breaks[:-1] |= (signs[:-1] == ord("\r")) & (signs[1:] != ord("\n"))
        ends = np.flatnonzero(breaks) + 1
        starts = np.concatenate([[0], ends])
        some = b"".join(content[starts[n] : ends[n]] for n in good[marked])
        return self._parsed_in_steps(some, len(some) + 1)[0]

    def _numeric(self, column: pa.ChunkedArray) -> bool:
        try:
            column.filter(pc.invert(pc.is_in(column, pa.array(self.nulls, pa.string())))).cast(pa.float64())
        except pa.ArrowInvalid:
            return False
        return True

    def _unreadable(self, start: bytes, fault: str) -> Batch:
        self.done += 1
        reject = Reject(self.name, self.done, "", fault, start[:SHOWN].decode("utf-8", "replace"))
        return Batch(self.name, np.empty(0, dtype=np.int64), self._parsed(b"")[0], [reject])


def _filled(rows: pa.Table, as_text: Callable[[NDArray[np.bool_]], pa.Table]) -> NDArray[np.bool_]:
    """Which rows are no blank lines; those are not records."""
    filled = np.zeros(rows.num_rows, dtype=bool)
    texts = [column for column in rows.columns if column.type == pa.string()]
    for column in texts:
        filled |= pc.not_equal(pc.binary_length(column), 0).to_numpy()
        if filled.all():
            return filled
    if len(texts) < rows.num_columns:  # a number that is missing may be a text that means it
        filled[~filled] = _filled(as_text(~filled), as_text)
    return filled


def _without(places: NDArray[np.int64], dropped: list[int]) -> NDArray[np.int64]:
    return np.delete(places, np.array(dropped, dtype=np.int64))


def _decodable(block: bytes) -> tuple[bytes, dict[int, str]]:
    """The block without the lines that are not UTF-8, and those by their number from 0."""
    if block.isascii():
        return block, {}
    try:
        codecs.utf_8_decode(block, "strict", True)
    except UnicodeDecodeError:
        lines = io.BytesIO(block).readlines()
    else:
        return block, {}
    shown = {n: line.decode("utf-8", "replace") for n, line in enumerate(lines)}
    undecodable = {n: text[:SHOWN] for n, text in shown.items() if text.encode() != lines[n]}
    return b"".join(line for n, line in enumerate(lines) if n not in undecodable), undecodable


def _blocks(stream: BinaryIO, *, quoted: bool) -> Iterator[tuple[bytes, str | None]]:
    """Pieces of whole records; or one record that cannot be read, with the reason."""
    rest, ended = b"", False
    while not ended:
        piece = stream.read(BLOCK)
        ended = not piece
        cut = piece.rfind(b"\n") + 1
        if cut and not (quoted and (b'"' in rest or b'"' in piece)):
            yield b"".join((rest, memoryview(piece)[:cut])), None
            rest = piece[cut:]
            continue
        rest += piece or (b"" if rest.endswith(b"\n") or not rest else b"\n")
        while cut := _cut(rest, quoted=quoted):
            yield rest[:cut], None
            rest = rest[cut:]
        while rest and (ended or len(rest) > LONGEST):
            line, found, after = rest.partition(b"\n")
            if found and len(line) <= LONGEST:
                yield line, "a quote that is never closed"
            else:
                yield line, f"longer than {LONGEST >> 20} MB"
            rest = after if found else _after_newline(stream)
            if cut := _cut(rest, quoted=quoted):
                yield rest[:cut], None
                rest = rest[cut:]


def _cut(block: bytes, *, quoted: bool) -> int:
    """Where the last whole record ends, 0 where none does; a line feed within quotes ends none."""
    cut = block.rfind(b"\n") + 1
    if not quoted or not cut or block.count(b'"', 0, cut) % 2 == 0:
        return cut
    signs = np.frombuffer(block, dtype=np.uint8)
    within = np.cumsum(signs == ord('"')) % 2 == 1
    ends = np.flatnonzero((signs == ord("\n")) & ~within)
    return int(ends[-1]) + 1 if len(ends) else 0


def _after_newline(stream: BinaryIO) -> bytes:
    while piece := stream.read(BLOCK):
        _, found, rest = piece.partition(b"\n")
        if found:
            return rest
    return b""
