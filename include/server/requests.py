"""A request as the app gets it, and heads that are known again."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from include.server.answers import Answer, Refused

#: Heads that are kept, of at most so many bytes.
KEPT, SHORT = 1024, 1024
END = b"\r\n\r\n"

Say = Callable[["Request", Answer], None]


class Head(NamedTuple):
    """The headers by their names in lower case."""

    method: str
    path: str
    headers: dict[bytes, bytes]


class Request:
    """One request; `body` is whole once the app is asked to answer. `refused` says why it will not be served.

    `begun` is when its head was there (time.perf_counter); `last`: nothing is read after it. `say` takes the answer.
    """

    __slots__ = ("begun", "body", "handle", "head", "last", "refused", "route", "say")

    def __init__(self, head: Head, last: bool, say: Say) -> None:
        self.head, self.last, self.say = head, last, say
        self.body, self.begun = b"", time.perf_counter()
        self.refused: Refused | None = None
        self.route, self.handle = "none", cast(Any, None)

    def header(self, name: bytes) -> str | None:
        """By its name in lower case."""
        value = self.head.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Application(Protocol):
    """`begin` when a request's head is there; then `answer` once its body is, or `leave` if its caller has gone. An answer is
    said now or later, once."""

    def begin(self, request: Request) -> None: ...
    def leave(self) -> None: ...
    def answer(self, request: Request) -> None: ...


class Heads:
    """Callers and gateways send few different heads, each many times: one that came before need not be parsed again."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Head, int]] = {}  #: by their bytes, each with the length of its body

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, if the data are one request, whole, with a head that is known."""
        start = data.find(END) + len(END)
        known = self._known.get(data[:start])
        if known is None or len(data) != start + known[1]:
            return None
        return known[0], data[start:]

    def keep(self, data: bytes, request: Request) -> None:
        """The head of a request that was parsed and may come like this again, if the data are all of it and nothing else."""
        head, body = data[: data.find(END) + len(END)], request.body
        if len(head) > SHORT or len(head) + len(body) != len(data) or request.last or b"expect" in request.head.headers:
            return
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[head] = request.head, len(body)
