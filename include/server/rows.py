"""Raw rows as callers send them: JSON objects by column name, read into one type made for the model's columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.domain.categories import as_text
from include.domain.features.aggregates import Aggregates
from include.domain.features.encoding import REMEMBERED, Encoding, RowEncoder, as_time
from include.online_store.store import OnlineStore
from include.server.answers import Refused, unreadable
from include.server.lookups import Found, Lookups

#: Characters of one text value; a category longer than this is a mistake, and every value is logged.
MAX_TEXT = 1024

Value = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | float | bool | None
Time = Annotated[str, msgspec.Meta(max_length=64)] | int | float | None

#: A model may use no aggregate of the past.
NONE = Aggregates()

_ENVELOPE = re.compile(rb'\s*\{\s*"rows"')

#: What msgspec raises for what it cannot read.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Encoded(msgspec.Struct, gc=False):
    """A row as the model takes it: `ids` int64 and `numbers` float32. For the log its `values` in the order of the type's
    fields, and as JSON `said`; one that came as tensors has none."""

    ids: bytes
    numbers: bytes
    values: tuple[Any, ...] = ()
    said: bytes = b""
    found: Sequence[Found] = ()


def tensors(rows: Sequence[Encoded]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Their ids `[n, categorical]` and numbers `[n, numeric]`."""
    ids = np.frombuffer(b"".join([row.ids for row in rows]), np.int64)
    numbers = np.frombuffer(b"".join([row.numbers for row in rows]), np.float32)
    return ids.reshape(len(rows), -1), numbers.reshape(len(rows), -1)


class Rows:
    """Reads and encodes the rows of one model.

    Every feature must be there, null where its value is not known; so must the time where the model uses its parts. The
    keys may be there. Anything else is refused, unless `lenient`, which drops it: that is for adding a feature, which
    callers must send before the model that knows it takes over. Aggregates of the past are looked up, never sent.
    """

    def __init__(
        self, encoding: Encoding, keys: Sequence[str], max_rows: int, lenient: bool = False, *,
        aggregates: Aggregates = NONE, store: OnlineStore | None = None,
    ) -> None:  # fmt: skip
        self._encode, self._lenient = RowEncoder(encoding, aggregates.features), lenient
        self.lookups = Lookups(store, aggregates, self._encode.fields) if aggregates.groups else None
        self._hour = _Hours(aggregates, encoding.time)
        columns = list(dict.fromkeys((*self._encode.fields, *keys)))
        needed = set(self._encode.fields) - (set() if encoding.time_parts or aggregates.groups else {encoding.time})
        self._keys = [columns.index(k) for k in keys]
        fields = [
            (f"c{i}", Time if c == encoding.time else Value, _named(c, c in needed)) for i, c in enumerate(columns)
        ]
        self.type: type[msgspec.Struct] = msgspec.defstruct(
            "Row", fields, kw_only=True, forbid_unknown_fields=not lenient, gc=False
        )
        many = Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=max_rows)]
        envelope = msgspec.defstruct("Envelope", [("rows", many)], forbid_unknown_fields=True)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.type)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope)

    def read(self, body: bytes) -> list[Encoded]:
        """The rows of `{"rows": [...]}` or of one bare row. Raises Refused (400) naming the field."""
        if not _ENVELOPE.match(body):
            return [self._read(body)]
        try:
            rows: list[msgspec.Raw] = self._many.decode(body).rows
        except UNREADABLE as fault:
            raise unreadable(fault) from None
        return [self._read(bytes(row), f"rows[{n}]") for n, row in enumerate(rows)]

    def example(self, row: Mapping[str, Any]) -> Encoded:
        """A stored example. Raises msgspec.ValidationError or Refused."""
        known = msgspec.convert(row, self.type)
        return self._encoded(known, msgspec.json.encode(known))

    def _read(self, said: bytes, place: str = "") -> Encoded:
        try:
            row = self._one.decode(said)
        except UNREADABLE as fault:
            raise unreadable(fault, place) from None
        return self._encoded(row, msgspec.json.encode(row) if self._lenient else said, place)

    def _encoded(self, row: Any, said: bytes, place: str = "") -> Encoded:
        """A number or a time may still be none."""
        values = msgspec.structs.astuple(row)
        try:
            ids, numbers = self._encode(values)
            if self.lookups is None:
                return Encoded(ids, numbers, values, said)
            found = self.lookups.find(values, self._hour(values[0]))
            return Encoded(ids, b"".join([numbers, *[f.packed for f in found]]), values, said, found)
        except ValueError as fault:
            field, _, reason = str(fault).partition(":")
            field = f"{place}.{field}" if place else field
            raise Refused(400, f"{field}:{reason}", field) from None

    def logged(self, row: Encoded) -> msgspec.Raw:
        """What the log keeps of a row, as JSON of one line: all that was sent, and the aggregates that were found."""
        said = row.said.strip()
        if b"\n" in said or b"\r" in said:  # which stand between values alone
            said = said.translate(None, b"\r\n")
        return msgspec.Raw(b",".join([said[:-1], *[f.text for f in row.found]]) + b"}")

    def key(self, row: Encoded) -> str | None:
        """The key columns joined by `|`, or None when none was sent."""
        texts = [as_text(row.values[place]) for place in self._keys]
        return "|".join([text or "" for text in texts]) if any(texts) else None

    def time(self, row: Encoded) -> str | None:
        """The row's time as sent, epoch seconds as ISO; None where there is none."""
        at = row.values[0]
        if at is None or isinstance(at, str):
            return at
        try:
            return as_time(at).isoformat()
        except ValueError:
            return None


class _Hours:
    """The hour before which a row's past is seen; of a row without a time nothing is. Live rows share their times."""

    def __init__(self, aggregates: Aggregates, time: str) -> None:
        self._aggregates, self._time = aggregates, time
        self._remembered: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        """Raises ValueError naming the column."""
        known = self._remembered.get(value)
        if known is None:
            try:
                known = -1 if value is None else self._aggregates.hour(as_time(value).timestamp())
            except (ValueError, OverflowError) as fault:
                raise ValueError(f"{self._time}: {fault}") from None
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[value] = known
        return known


def _named(column: str, needed: bool) -> Any:
    return msgspec.field(name=column) if needed else msgspec.field(name=column, default=None)
