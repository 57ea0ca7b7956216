"""Labels that callers send back: lines in segments of `<log>/<model>/feedback/`, joined with predictions later."""

import asyncio
import re
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from include.server.answers import Refused, unreadable
from include.server.segments import Segments

MOST = 1024
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]

_ENVELOPE = re.compile(rb'\s*\{\s*"labels"')


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """The outcome of one predicted row, named by the `id` of its log line or by its key columns joined by `|`."""

    label: Literal[0, 1]
    request_id: Name | None = None
    key: Name | None = None


class Labels(msgspec.Struct, forbid_unknown_fields=True):
    labels: Annotated[list[Label], msgspec.Meta(min_length=1, max_length=MOST)]


class Line(msgspec.Struct):
    at: float
    id: str | None
    key: str | None
    label: int


_one, _many = msgspec.json.Decoder(Label), msgspec.json.Decoder(Labels)


class Feedback:
    def __init__(self, folder: Path) -> None:
        self._segments, self._turn = Segments(folder), asyncio.Lock()

    async def take(self, body: bytes) -> int:
        """Write the body's labels and return how many; what returned is not lost when the process dies.

        Raises Refused: 400 naming the field, 503 when the disk takes nothing.
        """
        now = time.time()
        lines = [Line(now, x.request_id, x.key, x.label) for x in read(body)]
        try:
            async with self._turn:
                await asyncio.to_thread(self._segments.append, msgspec.json.Encoder().encode_lines(lines))
        except OSError as fault:
            raise Refused(503, f"the labels cannot be written: {fault.strerror}") from None
        return len(lines)


def read(body: bytes) -> list[Label]:
    """The labels of `{"labels": [...]}` or of one bare object. Raises Refused (400) naming the field."""
    try:
        labels = _many.decode(body).labels if _ENVELOPE.match(body) else [_one.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise unreadable(fault) from None
    for label in labels:
        if (label.request_id is None) == (label.key is None):
            raise Refused(400, "request_id: give either request_id or key", "request_id")
    return labels
