"""What the server sends back: a response, or an error that says why a request cannot be served and becomes a response."""

import re
from functools import lru_cache
from http import HTTPStatus

import msgspec

from include.domain.errors import PerennialError

Headers = tuple[tuple[str, str], ...]

JSON: Headers = (("content-type", "application/json"),)
PROMETHEUS_TEXT: Headers = (("content-type", "text/plain; version=0.0.4; charset=utf-8"),)
#: Seconds after which a client may come back that was refused for load.
RETRY_AFTER = "1"
#: What msgspec raises for bytes that it cannot decode.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_PATH = re.compile(r" - at `(?:key in )?\$?\.?(.*)`$")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$")


class Response(msgspec.Struct, frozen=True, gc=False):
    """An HTTP response; the head gets its content-length and date when it is sent."""

    status: int
    body: bytes
    headers: Headers


class RequestError(PerennialError):
    """A request that cannot be served: the HTTP status, the reason, and the wrong place in the body, e.g. `rows[0].carrier`."""

    def __init__(self, status: int, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.field = status, reason, field

    def response(self) -> Response:
        """Return the JSON response that tells the client, with Retry-After if the status is 503."""
        body = {"error": self.reason} if self.field is None else {"error": self.reason, "field": self.field}
        headers = (*JSON, ("retry-after", RETRY_AFTER)) if self.status == 503 else JSON
        return Response(self.status, msgspec.json.encode(body), headers)


def json_response(body: object, status: int = 200) -> Response:
    """Return the body, which msgspec can encode, as a JSON response."""
    return Response(status, msgspec.json.encode(body), JSON)


def decode_error(error: Exception, prefix: str = "") -> RequestError:
    """Return one of DECODE_ERRORS as error 400; it names the field below `prefix` if msgspec names one."""
    if isinstance(error, UnicodeDecodeError):
        return RequestError(400, "the body is not UTF-8")
    if isinstance(error, RecursionError):
        return RequestError(400, "the body is nested too deep")
    message = str(error)
    path = _PATH.search(message)
    message = _PATH.sub("", message)
    field_name = _FIELD.match(message)
    parts = [prefix, path[1] if path else "", field_name[1] if field_name else ""]
    field = ".".join(p for p in parts if p).replace(".[", "[")
    return RequestError(400, f"{field}: {message}" if field else message, field or None)


@lru_cache(256)
def encode_head(status: int, headers: Headers, close: bool, content_length: int, date: str) -> bytes:
    """Return status line and headers as they are sent; responses of one second share them."""
    fields = [*headers, ("content-length", str(content_length)), ("date", date)]
    if close:
        fields.append(("connection", "close"))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join((*lines, "", "")).encode("latin-1")
