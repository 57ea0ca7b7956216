"""What the server says: an answer is a status, headers and bytes; a refusal is an answer with a reason."""

import re
from typing import Any

import msgspec

from include.domain.errors import PerennialError

Headers = tuple[tuple[str, str], ...]

JSON: Headers = (("content-type", "application/json"),)
TEXT: Headers = (("content-type", "text/plain; version=0.0.4; charset=utf-8"),)
#: Seconds after which a client refused for load may come back.
RETRY_AFTER = "1"

_PATH = re.compile(r" - at `(?:key in )?\$?\.?(.*)`$")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$")


class Answer(msgspec.Struct, frozen=True, gc=False):
    status: int
    body: bytes
    headers: Headers


class Refused(PerennialError):
    """The request cannot be served; `field` is the place in the body at fault, e.g. `rows[0].carrier`."""

    def __init__(self, status: int, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.field = status, reason, field

    def answer(self) -> Answer:
        body = {"error": self.reason} if self.field is None else {"error": self.reason, "field": self.field}
        headers = (*JSON, ("retry-after", RETRY_AFTER)) if self.status == 503 else JSON
        return Answer(self.status, msgspec.json.encode(body), headers)


def json_answer(body: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(body), JSON)


def unreadable(fault: msgspec.DecodeError | UnicodeDecodeError | RecursionError, prefix: str = "") -> Refused:
    """The refusal of a body that msgspec cannot read, naming the field where msgspec knows it."""
    if isinstance(fault, UnicodeDecodeError):
        return Refused(400, "the body is not UTF-8")
    if isinstance(fault, RecursionError):
        return Refused(400, "the body is nested too deep")
    message = str(fault)
    place = _PATH.search(message)
    message = _PATH.sub("", message)
    named = _FIELD.match(message)
    parts = [prefix, place[1] if place else "", named[1] if named else ""]
    field = ".".join(p for p in parts if p).replace(".[", "[")
    return Refused(400, f"{field}: {message}" if field else message, field or None)
