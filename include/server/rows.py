"""Raw rows as callers send them: JSON objects by column name, read into one type made for the model's columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from include.domain.aggregates import Aggregates
from include.domain.encoding import REMEMBERED, Encoding, RowEncoder, as_time
from include.domain.texts import as_text
from include.online.store import OnlineStore
from include.server.answers import Refused, unreadable
from include.server.lookups import Lookups

#: Characters of one text value; a category longer than this is a mistake, and every value is logged.
MAX_TEXT = 1024

Value = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | float | bool | None
Time = Annotated[str, msgspec.Meta(max_length=64)] | int | float | None

#: A model may use no aggregate of the past.
NONE = Aggregates()

_ENVELOPE = re.compile(rb'\s*\{\s*"rows"')


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
        self._encode = RowEncoder(encoding, aggregates.features)
        self._width = len(self._encode.fields)
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
        kept = [(f"c{i}", Any, msgspec.field(name=c)) for i, c in enumerate([*columns, *aggregates.features])]
        self._logged = msgspec.defstruct("Logged", kept, gc=False) if aggregates.features else None
        many = Annotated[list[self.type], msgspec.Meta(min_length=1, max_length=max_rows)]  # type: ignore[name-defined]
        envelope = msgspec.defstruct("Envelope", [("rows", many)], forbid_unknown_fields=True)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.type)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope)

    def read(self, body: bytes) -> list[Any]:
        """The rows of `{"rows": [...]}` or of one bare row. Raises Refused (400) naming the field."""
        try:
            if not _ENVELOPE.match(body):
                return [self._one.decode(body)]
            rows: list[Any] = self._many.decode(body).rows
            return rows
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise unreadable(fault) from None

    def example(self, row: Mapping[str, Any]) -> Any:
        """A stored example as a row. Raises msgspec.ValidationError."""
        return msgspec.convert(row, self.type)

    def encode(self, row: Any) -> tuple[list[int], list[float]]:
        """Raises Refused (400), naming the field, for a number or a time that cannot be read."""
        values = msgspec.structs.astuple(row)[: self._width]
        try:
            ids, numbers = self._encode(values)
            if self.lookups is not None:
                numbers += self.lookups.find(values, self._hour(values[0]))
            return ids, numbers
        except ValueError as fault:
            field = str(fault).partition(":")[0]
            raise Refused(400, str(fault), field) from None

    def logged(self, row: Any, numbers: Sequence[float]) -> Any:
        """What the log keeps of a row: all that was sent, and the aggregates that were found, the last of its numbers."""
        if self._logged is None:
            return row
        sent = msgspec.structs.astuple(row)
        return self._logged(*sent, *numbers[len(sent) - len(self._logged.__struct_fields__) :])

    def key(self, row: Any) -> str | None:
        """The key columns joined by `|`, or None when none was sent."""
        values = msgspec.structs.astuple(row)
        texts = [as_text(values[i]) for i in self._keys]
        return "|".join(t or "" for t in texts) if any(t is not None for t in texts) else None

    def time(self, row: Any) -> str | None:
        """The row's time as sent, epoch seconds as ISO; None where there is none."""
        at = row.c0
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
