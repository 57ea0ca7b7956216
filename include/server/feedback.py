"""Labels that callers send back: lines in segments of `<log>/<model>/feedback/`, joined with predictions later."""

import asyncio
import re
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from include.server.responses import DECODE_ERRORS, RequestError, decode_error
from include.server.segment_writer import SegmentWriter

MAX_LABELS = 1024
RowName = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]

_ENVELOPE = re.compile(rb'\s*\{\s*"labels"')


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """The outcome of one predicted row, named by the `id` of its log line or by its key columns joined by `|`."""

    label: Literal[0, 1]
    request_id: RowName | None = None
    key: RowName | None = None


class Labels(msgspec.Struct, forbid_unknown_fields=True):
    """Several labels in one request."""

    labels: Annotated[list[Label], msgspec.Meta(min_length=1, max_length=MAX_LABELS)]


class FeedbackLine(msgspec.Struct):
    """A label as a line of the feedback log; `at` is when it came, in epoch seconds."""

    at: float
    id: str | None
    key: str | None
    label: int


_decode_label, _decode_labels = msgspec.json.Decoder(Label).decode, msgspec.json.Decoder(Labels).decode


class FeedbackLog:
    """Writes labels to segments of `folder`, one request after the other."""

    def __init__(self, folder: Path) -> None:
        self._segments, self._lock = SegmentWriter(folder), asyncio.Lock()

    async def append(self, body: bytes) -> int:
        """Write the body's labels and return how many they are; once it has returned, the death of the process loses none.

        Raises RequestError: 400 that names the field, 503 if they cannot be written.
        """
        now = time.time()
        lines = [FeedbackLine(now, x.request_id, x.key, x.label) for x in read_labels(body)]
        try:
            async with self._lock:
                await asyncio.to_thread(self._segments.append, msgspec.json.Encoder().encode_lines(lines))
        except OSError as error:
            raise RequestError(503, f"the labels cannot be written: {error.strerror}") from None
        return len(lines)


def read_labels(body: bytes) -> list[Label]:
    """Return the labels of `{"labels": [...]}` or of one bare object. Raises RequestError (400) that names the field."""
    try:
        labels = _decode_labels(body).labels if _ENVELOPE.match(body) else [_decode_label(body)]
    except DECODE_ERRORS as error:
        raise decode_error(error) from None
    for label in labels:
        if (label.request_id is None) == (label.key is None):
            raise RequestError(400, "request_id: give either request_id or key", "request_id")
    return labels
