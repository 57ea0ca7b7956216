"""Raw rows as callers send them: JSON objects by column name, decoded into one type made for the model's columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.domain.categories import as_text
from include.domain.features.aggregates import Aggregates
from include.domain.features.encoding import Encoding
from include.domain.features.row_encoding import TIME_CACHE_SIZE, RowEncoder
from include.domain.features.times import as_time
from include.online_store.protocol import OnlineStore
from include.server.lookups import AggregateValues, Lookups
from include.server.responses import DECODE_ERRORS, RequestError, decode_error

#: Characters of one text value; a longer category is a mistake, and every value is logged.
MAX_TEXT = 1024

JsonValue = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | float | bool | None
JsonTime = Annotated[str, msgspec.Meta(max_length=64)] | int | float | None

NO_AGGREGATES = Aggregates()

_ENVELOPE = re.compile(rb'\s*\{\s*"rows"')


class EncodedRow(msgspec.Struct, gc=False):
    """A row as the model takes it: `ids` as packed int64 and `numbers` as packed float32.

    For the log it also holds its raw `values` in the order of the row type's fields, the `json` that was sent, and the
    aggregates that were looked up; a row that came as tensors has none of these.
    """

    ids: bytes
    numbers: bytes
    values: tuple[object, ...] = ()
    json: bytes = b""
    aggregates: Sequence[AggregateValues] = ()


def stack_rows(rows: Sequence[EncodedRow]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows' ids `[n, categorical]` and numbers `[n, numeric]`."""
    ids = np.frombuffer(b"".join([row.ids for row in rows]), np.int64)
    numbers = np.frombuffer(b"".join([row.numbers for row in rows]), np.float32)
    return ids.reshape(len(rows), -1), numbers.reshape(len(rows), -1)


class RowReader:
    """Decodes and encodes the rows of one model.

    Every feature must be sent, null where its value is missing; so must the time if the model uses its parts. The keys may be
    sent. Anything else is refused, unless `lenient`, which drops it: that is for adding a feature, which callers must send
    before the model that uses it takes over. Aggregates of the past are looked up, never sent.
    """

    def __init__(
        self,
        encoding: Encoding,
        keys: Sequence[str],
        max_rows: int,
        lenient: bool = False,
        *,
        aggregates: Aggregates = NO_AGGREGATES,
        store: OnlineStore | None = None,
    ) -> None:
        self._encode, self._lenient = RowEncoder(encoding, aggregates.features), lenient
        self.lookups = Lookups(store, aggregates, self._encode.fields) if aggregates.groups else None
        self._cutoff_hour = _CutoffHours(aggregates, encoding.time)
        columns = list(dict.fromkeys((*self._encode.fields, *keys)))
        required = set(self._encode.fields) - (set() if encoding.time_parts or aggregates.groups else {encoding.time})
        self._key_indices = [columns.index(k) for k in keys]
        fields = [
            (f"c{i}", JsonTime if column == encoding.time else JsonValue, _field(column, column in required))
            for i, column in enumerate(columns)
        ]
        self.row_type: type[msgspec.Struct] = msgspec.defstruct(
            "Row", fields, kw_only=True, forbid_unknown_fields=not lenient, gc=False
        )
        raw_rows = Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=max_rows)]
        envelope = msgspec.defstruct("Envelope", [("rows", raw_rows)], forbid_unknown_fields=True)
        self._row_decoder = msgspec.json.Decoder(self.row_type)
        self._envelope_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope)

    def read(self, body: bytes) -> list[EncodedRow]:
        """Return the rows of `{"rows": [...]}` or of one bare row. Raises RequestError (400) that names the field."""
        if not _ENVELOPE.match(body):
            return [self._read_row(body)]
        try:
            rows: list[msgspec.Raw] = self._envelope_decoder.decode(body).rows
        except DECODE_ERRORS as error:
            raise decode_error(error) from None
        return [self._read_row(bytes(row), f"rows[{n}]") for n, row in enumerate(rows)]

    def encode_example(self, row: Mapping[str, object]) -> EncodedRow:
        """Return one of the model's stored examples, encoded. Raises msgspec.ValidationError or RequestError."""
        converted = msgspec.convert(row, self.row_type)
        return self._encode_row(converted, msgspec.json.encode(converted))

    def _read_row(self, data: bytes, path: str = "") -> EncodedRow:
        try:
            row = self._row_decoder.decode(data)
        except DECODE_ERRORS as error:
            raise decode_error(error, path) from None
        return self._encode_row(row, msgspec.json.encode(row) if self._lenient else data, path)

    def _encode_row(self, row: msgspec.Struct, data: bytes, path: str = "") -> EncodedRow:
        """Encode a decoded row. Raises RequestError (400) for a text that is no number or no time, which its type lets pass."""
        values = msgspec.structs.astuple(row)
        try:
            ids, numbers = self._encode(values)
            if self.lookups is None:
                return EncodedRow(ids, numbers, values, data)
            aggregates = self.lookups.find(values, self._cutoff_hour(values[0]))
            return EncodedRow(ids, b"".join([numbers, *[a.packed for a in aggregates]]), values, data, aggregates)
        except ValueError as error:
            field, _, reason = str(error).partition(":")
            field = f"{path}.{field}" if path else field
            raise RequestError(400, f"{field}:{reason}", field) from None

    def log_json(self, row: EncodedRow) -> msgspec.Raw:
        """Return a row for the log, as JSON on one line: all that was sent, and the aggregates that were looked up."""
        data = row.json.strip()
        if b"\n" in data or b"\r" in data:  # valid JSON has them between values only
            data = data.translate(None, b"\r\n")
        return msgspec.Raw(b",".join([data[:-1], *[a.json_fields for a in row.aggregates]]) + b"}")

    def key(self, row: EncodedRow) -> str | None:
        """Return the key columns joined by `|`, or None if none was sent."""
        texts = [as_text(row.values[index]) for index in self._key_indices]
        return "|".join([text or "" for text in texts]) if any(texts) else None

    def time(self, row: EncodedRow) -> str | None:
        """Return the row's time as it was sent, epoch seconds as ISO text; None if there is none."""
        value = row.values[0]
        if value is None or isinstance(value, str):
            return value
        try:
            return as_time(value).isoformat()
        except ValueError:
            return None


class _CutoffHours:
    """The hour before which a row sees the past, by its time; live rows share their times, so the last ones are remembered."""

    def __init__(self, aggregates: Aggregates, time: str) -> None:
        self._aggregates, self._time = aggregates, time
        self._hours: dict[object, int] = {}

    def __call__(self, value: object) -> int:
        """Return the hour since 1970; -1, before which there is no past, for None. Raises ValueError that names the column."""
        hour = self._hours.get(value)
        if hour is None:
            try:
                hour = -1 if value is None else self._aggregates.cutoff_hour(as_time(value).timestamp())
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{self._time}: {error}") from None
            if len(self._hours) >= TIME_CACHE_SIZE:
                self._hours.clear()
            self._hours[value] = hour
        return hour


def _field(column: str, required: bool) -> Any:
    return msgspec.field(name=column) if required else msgspec.field(name=column, default=None)
