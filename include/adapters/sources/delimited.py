"""Records of delimited text, in blocks: memory is bounded, and every unreadable record is named by its place."""

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
#: Bytes that are parsed at once: as much as a core's cache holds, twice as fast as a whole block.
STEP = 1 << 18
#: A record longer than this is not read.
MAX_RECORD = 1 << 24
#: Characters of an unreadable record that are reported.
RAW_LENGTH = 200


def read_text(name: str, stream: BinaryIO, source: SourceSpec, numbers: Collection[str] = ()) -> Iterator[Batch]:
    """Yield the stream's records as text, but the columns `numbers` as numbers in blocks where they hold nothing else.

    Raises UserMistake for what spoils a whole file: no header, truncated gzip.
    """
    reader = _TextReader(name, source, numbers)
    try:
        yield from reader.batches(stream)
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        if s3.is_server_error(error):
            raise
        raise UserMistake(f"{name}: cannot be read after record {reader.records}: {error}; deliver it again") from None


class _TextReader:
    """Parses one file; `records` counts those read so far, a header included."""

    def __init__(self, name: str, source: SourceSpec, numbers: Collection[str]) -> None:
        self.name, self.records = name, 0
        self.quoted = source.format == "csv"
        self.delimiter = source.delimiter or ("\t" if source.format == "tsv" else ",")
        self.columns, self.nulls = list(source.names), list(source.nulls)
        #: Columns that have held nothing but numbers so far.
        self.numbers = set(numbers)

    def batches(self, stream: BinaryIO) -> Iterator[Batch]:
        for block, error in _blocks(stream, quoted=self.quoted):
            if error:
                yield self._unreadable_record(block, error)
                continue
            content = block if self.columns else self._without_header(block)
            yield self._batch(content)
        if not self.columns:
            raise UserMistake(f"{self.name}: the file is empty, not even a header")

    def _without_header(self, block: bytes) -> bytes:
        line, _, rest = block.removeprefix(codecs.BOM_UTF8).partition(b"\n")
        try:
            header = line.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise UserMistake(f"{self.name}: the header is not UTF-8; convert the file to UTF-8") from None
        self.columns = next(csv.reader([header], delimiter=self.delimiter), [])
        self.records = 1
        if repeated := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise UserMistake(f"{self.name}: the header names {', '.join(repeated)} more than once")
        return rest

    def _batch(self, block: bytes) -> Batch:
        content, undecodable = _split_off_undecodable(block)
        rows, misfits = self._parse(content)
        count = rows.num_rows + len(misfits)
        lines = np.arange(self.records + 1, self.records + 1 + count + len(undecodable))
        rejects = [Reject(self.name, int(lines[at]), "", "not UTF-8", text) for at, text in undecodable.items()]
        lines = _without(lines, list(undecodable))
        for row in misfits:
            reason = f"{row.actual_columns} fields, not {row.expected_columns}"
            rejects.append(Reject(self.name, int(lines[row.number - 1]), "", reason, row.text[:RAW_LENGTH]))
        self.records += count + len(undecodable)
        parsed = _without(np.arange(count), [row.number - 1 for row in misfits])
        not_blank = _not_blank(rows, partial(self._as_text, content, parsed))
        if not not_blank.all():
            rows, parsed = rows.filter(pa.array(not_blank)), parsed[not_blank]
        has_numbers = set(rows.schema.types) != {pa.string()}
        as_text = partial(self._as_text, content, parsed) if has_numbers else None
        return Batch(self.name, lines[parsed], rows, rejects, as_text)

    def _parse(self, content: bytes) -> tuple[pa.Table, list[pacsv.InvalidRow]]:
        """Return the rows, and those with too few or too many fields.

        Numbers are parsed as such in a block without quotes: there a record is a line, and can be looked up again.
        """
        if self.numbers and not (self.quoted and b'"' in content):
            with suppress(pa.ArrowInvalid):
                return self._parse_in_steps(content, STEP, self.numbers)
        try:
            rows, misfits = self._parse_in_steps(content, STEP)
        except pa.ArrowInvalid:  # a record longer than a step
            rows, misfits = self._parse_in_steps(content, len(content) + 1)
        self.numbers = {name for name in self.numbers if name in self.columns and self._is_numeric(rows[name])}
        return rows, misfits

    def _parse_in_steps(
        self, content: bytes, step: int, numbers: Collection[str] = ()
    ) -> tuple[pa.Table, list[pacsv.InvalidRow]]:
        misfits: list[pacsv.InvalidRow] = []

        def skip(row: pacsv.InvalidRow) -> str:
            misfits.append(row)
            return "skip"

        if not content:
            return pa.table({name: pa.array([], pa.string()) for name in self.columns}), []
        types = dict.fromkeys(self.columns, pa.string()) | dict.fromkeys(numbers, pa.float64())
        parse_options = pacsv.ParseOptions(
            delimiter=self.delimiter,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        )
        convert_options = pacsv.ConvertOptions(
            column_types=types, check_utf8=False, null_values=self.nulls, strings_can_be_null=False
        )
        rows = pacsv.read_csv(
            pa.py_buffer(content),
            read_options=pacsv.ReadOptions(use_threads=False, column_names=self.columns, block_size=step),
            parse_options=parse_options,
            convert_options=convert_options,
        )
        return rows, misfits

    def _as_text(self, content: bytes, lines: NDArray[np.int64], mask: NDArray[np.bool_]) -> pa.Table:
        """Return as text those of the lines, by their number in the block, that the mask marks."""
        characters = np.frombuffer(content, dtype=np.uint8)
        breaks = characters == ord("\n")
        if b"\r" in content:
            breaks[:-1] |= (characters[:-1] == ord("\r")) & (characters[1:] != ord("\n"))
        ends = np.flatnonzero(breaks) + 1
        starts = np.concatenate([[0], ends])
        text = b"".join(content[starts[n] : ends[n]] for n in lines[mask])
        return self._parse_in_steps(text, len(text) + 1)[0]

    def _is_numeric(self, column: pa.ChunkedArray) -> bool:
        try:
            column.filter(pc.invert(pc.is_in(column, pa.array(self.nulls, pa.string())))).cast(pa.float64())
        except pa.ArrowInvalid:
            return False
        return True

    def _unreadable_record(self, start: bytes, reason: str) -> Batch:
        self.records += 1
        reject = Reject(self.name, self.records, "", reason, start[:RAW_LENGTH].decode("utf-8", "replace"))
        return Batch(self.name, np.empty(0, dtype=np.int64), self._parse(b"")[0], [reject])


def _not_blank(rows: pa.Table, as_text: Callable[[NDArray[np.bool_]], pa.Table]) -> NDArray[np.bool_]:
    """Return a mask of the rows that are not blank lines; those are no records."""
    mask = np.zeros(rows.num_rows, dtype=bool)
    texts = [column for column in rows.columns if column.type == pa.string()]
    for column in texts:
        mask |= pc.not_equal(pc.binary_length(column), 0).to_numpy()
        if mask.all():
            return mask
    if len(texts) < rows.num_columns:  # a number that is missing may be a text that means it
        mask[~mask] = _not_blank(as_text(~mask), as_text)
    return mask


def _without(values: NDArray[np.int64], indices: list[int]) -> NDArray[np.int64]:
    return np.delete(values, np.array(indices, dtype=np.int64))


def _split_off_undecodable(block: bytes) -> tuple[bytes, dict[int, str]]:
    """Return the block without the lines that are not UTF-8, and those by their number from 0."""
    if block.isascii():
        return block, {}
    try:
        codecs.utf_8_decode(block, "strict", True)
    except UnicodeDecodeError:
        lines = io.BytesIO(block).readlines()
    else:
        return block, {}
    texts = {n: line.decode("utf-8", "replace") for n, line in enumerate(lines)}
    undecodable = {n: text[:RAW_LENGTH] for n, text in texts.items() if text.encode() != lines[n]}
    return b"".join(line for n, line in enumerate(lines) if n not in undecodable), undecodable


def _blocks(stream: BinaryIO, *, quoted: bool) -> Iterator[tuple[bytes, str | None]]:
    """Yield pieces of whole records, or one record that cannot be read, with the reason."""
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
        while cut := _end_of_last_record(rest, quoted=quoted):
            yield rest[:cut], None
            rest = rest[cut:]
        while rest and (ended or len(rest) > MAX_RECORD):
            line, newline, after = rest.partition(b"\n")
            if newline and len(line) <= MAX_RECORD:
                yield line, "a quote that is never closed"
            else:
                yield line, f"longer than {MAX_RECORD >> 20} MB"
            rest = after if newline else _skip_line(stream)
            if cut := _end_of_last_record(rest, quoted=quoted):
                yield rest[:cut], None
                rest = rest[cut:]


def _end_of_last_record(block: bytes, *, quoted: bool) -> int:
    """Return where the last whole record ends, 0 where none does; a line feed within quotes ends none."""
    cut = block.rfind(b"\n") + 1
    if not quoted or not cut or block.count(b'"', 0, cut) % 2 == 0:
        return cut
    characters = np.frombuffer(block, dtype=np.uint8)
    within_quotes = np.cumsum(characters == ord('"')) % 2 == 1
    ends = np.flatnonzero((characters == ord("\n")) & ~within_quotes)
    return int(ends[-1]) + 1 if len(ends) else 0


def _skip_line(stream: BinaryIO) -> bytes:
    """Read to the end of the line and return what was read beyond it."""
    while piece := stream.read(BLOCK):
        _, newline, rest = piece.partition(b"\n")
        if newline:
            return rest
    return b""
