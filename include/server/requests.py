"""A request as the app gets it, and a cache of parsed heads."""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from include.server.responses import RequestError, Response

#: Heads that the cache holds, and bytes of the longest one that it takes.
MAX_HEADS, MAX_HEAD_BYTES = 1024, 1024
HEAD_END = b"\r\n\r\n"

#: Writes the response to a request.
Respond = Callable[["Request", Response], None]
#: Answers a request at once, or returns None and responds later.
Handler = Callable[["Request"], Response | None]


class RequestHead(NamedTuple):
    """Request line and headers; the header names are in lower case."""

    method: str
    path: str
    headers: dict[bytes, bytes]


class Request:
    """One request. `started_at` is when its head was read (time.perf_counter); `body` is whole once it is handled.

    `close` says that the connection ends after its response, `error` why it is refused. `route` and `handler` are set by the app.
    """

    __slots__ = ("body", "close", "error", "handler", "head", "respond", "route", "started_at")
    handler: Handler

    def __init__(self, head: RequestHead, close: bool, respond: Respond) -> None:
        self.head, self.close, self.respond = head, close, respond
        self.body, self.started_at = b"", time.perf_counter()
        self.error: RequestError | None = None
        self.route = "none"

    def header(self, name: bytes) -> str | None:
        """Return the header of that lower-case name, or None."""
        value = self.head.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Application(Protocol):
    """What a connection hands its requests to: `begin` at each head, then either `handle` or `release`."""

    def begin(self, request: Request) -> None:
        """Take a request whose head was read; an error is kept in it and sent later, by `handle`."""

    def handle(self, request: Request) -> None:
        """Respond to a request whose body is whole by calling its `respond` once, now or later."""

    def release(self, count: int) -> None:
        """Give up that many requests that were begun and whose client has gone before they were handled."""


class HeadCache:
    """Parsed heads by their bytes: clients and gateways send few different ones, each many times."""

    def __init__(self) -> None:
        self._heads: dict[bytes, tuple[RequestHead, int]] = {}  #: each with the length of its body

    def split(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """Return head and body if the data are exactly one request with a head from the cache, otherwise None."""
        body_start = data.find(HEAD_END) + len(HEAD_END)
        cached = self._heads.get(data[:body_start])
        if cached is None or len(data) != body_start + cached[1]:
            return None
        return cached[0], data[body_start:]

    def add(self, data: bytes, request: Request) -> None:
        """Keep the head of a parsed request, if the data are all of the request and the head alone tells where it ends."""
        head, body = data[: data.find(HEAD_END) + len(HEAD_END)], request.body
        if len(head) > MAX_HEAD_BYTES or len(head) + len(body) != len(data):
            return
        if request.close or b"expect" in request.head.headers:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[head] = request.head, len(body)
