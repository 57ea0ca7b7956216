"""HTTP/1.1 on the event loop's own transports: what httptools parses of a connection goes to the app, one answer a request.

No other thread takes part: handing each body over from one cost more than its scoring.
"""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import httptools

from include.server.answers import Answer, Headers, Refused
from include.server.requests import Application, Head, Heads, Request

#: Connections kept open; idle ones cost memory alone and must not keep others out.
CONNECTIONS = 8192
#: Seconds to send a head, and until a connection on which nothing is asked is closed: longer than gateways keep theirs.
HEAD, IDLE = 10.0, 120.0
#: Bytes of a head; as many as one read brings.
MAX_HEAD = 1 << 18
#: Requests sent ahead of their answers before no more is read.
AHEAD = 16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """`due` is when it must have got on, or it is given up (time.perf_counter)."""

    def __init__(self, server: "Server") -> None:
        self._server, self._app = server, server.app
        self._parser = httptools.HttpRequestParser(self)
        self._whole: deque[Request] = deque()
        self._request: Request | None = None
        self._in_head = self._busy = self._deaf = False
        self._bytes, self.due = 0, time.perf_counter() + IDLE

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.connections.add(self)
        if len(self._server.connections) > CONNECTIONS:
            transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._server.gone(self)
        for _ in (*self._whole, *([self._request] if self._request else ())):
            self._app.leave()
        self._whole.clear()
        self._request = None

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        reading = self._in_head or self._request is not None
        if reading or not self._again(data):
            self._parse(data, reading)
        self._answer()
        if len(self._whole) > AHEAD:
            self._transport.pause_reading()

    def _again(self, data: bytes) -> bool:
        """Whether it is a request with a head that is known: parsing heads took a sixth of the server's time."""
        found = self._server.heads.find(data)
        if found is None:
            return False
        head, body = found
        request = Request(head, False, self._say)
        request.body = body
        self._app.begin(request)
        self._close(request)
        return True

    def _parse(self, data: bytes, reading: bool) -> None:
        waiting = len(self._whole)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # it is answered as what it is; what follows would be another protocol
            self._deaf = True
        except httptools.HttpParserError as fault:
            self._refuse(Refused(400, f"not HTTP/1.1: {fault}"))
        if reading:
            self._bytes += len(data)
            if self._in_head and self._bytes > MAX_HEAD:
                self._refuse(Refused(431, f"the head has more than {MAX_HEAD} bytes"))
            elif self._request is not None and self._bytes > MAX_HEAD + 2 * self._server.most:
                self._too_long()
        elif len(self._whole) == waiting + 1 and not (self._in_head or self._request):
            self._server.heads.keep(data, self._whole[-1])

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        self._target, self._headers, self._body = b"", cast(dict[bytes, bytes], {}), bytearray()
        self._in_head, self._bytes, self.due = True, 0, time.perf_counter() + HEAD

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._open(self._parser.get_method().decode())
        if int(self._headers.get(b"content-length", 0)) > self._server.most:
            self._too_long()
        elif self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(CONTINUE)

    def on_body(self, part: bytes) -> None:
        if self._request is not None:
            self._body += part
            if len(self._body) > self._server.most:
                self._too_long()

    def on_message_complete(self) -> None:
        if self._request is not None:
            self._request.body = bytes(self._body)
            self._close(self._request)

    def get_on(self) -> None:
        """What was due did not come."""
        if self._request is not None:
            self._refuse(Refused(408, f"the body was not sent within {self._server.seconds:g} s"))
            self._answer()
        elif self._deaf:
            self._transport.abort()
        else:
            self._transport.close()

    def end(self) -> None:
        """Close it once nothing is under way."""
        if self._idle:
            self._transport.close()

    @property
    def _idle(self) -> bool:
        return not (self._in_head or self._request or self._whole or self._busy)

    def _open(self, method: str) -> None:
        """The head is there."""
        path = self._target.partition(b"?")[0].decode("latin-1")
        last = self._parser.should_upgrade() or not self._parser.should_keep_alive()
        self._in_head, self._request = False, Request(Head(method, path, self._headers), last, self._say)
        self.due = self._request.begun + self._server.seconds
        self._app.begin(self._request)

    def _close(self, request: Request) -> None:
        """The body is there, or will not be heard."""
        self._request, self.due = None, math.inf
        self._whole.append(request)

    def _too_long(self) -> None:
        self._refuse(Refused(413, f"the body has more than the {self._server.most} bytes that are taken"))

    def _refuse(self, refused: Refused) -> None:
        """Answer so, and hear nothing more."""
        if self._deaf:
            return
        self._deaf = True
        if self._request is None:
            self._target, self._headers = b"", {}
            self._open("")
        request = cast(Request, self._request)
        request.refused, request.last = refused, True
        self._close(request)

    def _answer(self) -> None:
        """The next request, unless one is being answered."""
        if self._whole and not self._busy:
            self._busy = True
            self._app.answer(self._whole.popleft())

    def _say(self, request: Request, answer: Answer) -> None:
        self._busy = False
        transport, last = self._transport, request.last or (self._server.ending and self._idle)
        if transport.is_closing():
            return
        body = b"" if request.head.method == "HEAD" else answer.body
        transport.write(_head(answer.status, answer.headers, last, len(answer.body), self._server.date) + body)
        if self._deaf and not self._whole:  # it may be sending still: closed at once, it would not read the answer
            transport.write_eof()
            self.due = time.perf_counter() + self._server.seconds
        elif last:
            transport.close()
        elif self._whole:
            self._server.loop.call_soon(self._answer)
            if len(self._whole) == AHEAD:
                transport.resume_reading()
        elif self._idle:
            self.due = time.perf_counter() + IDLE


@lru_cache(256)
def _head(status: int, headers: Headers, last: bool, length: int, date: str) -> bytes:
    more = (*headers, ("content-length", str(length)), ("date", date), *([("connection", "close")] if last else ()))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in more)]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class Server:
    """Listens until it is stopped. A body has at most `most` bytes and comes within so many `seconds`."""

    def __init__(self, app: Application, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds
        self.connections: set[Connection] = set()
        self.heads = Heads()
        self.ending, self.date = False, formatdate(usegmt=True)
        self._empty = asyncio.Event()

    async def serve(self, host: str, port: int, socket: Path | None = None) -> None:
        """Runs until it is cancelled, and then until what is under way is answered. Raises OSError for an address in use."""
        self.loop = asyncio.get_running_loop()
        listeners = [await self.loop.create_server(lambda: Connection(self), host, port, backlog=1024)]
        try:
            if socket:
                listeners.append(await self.loop.create_unix_server(lambda: Connection(self), socket, backlog=1024))
            await self._look_after()
        finally:
            for listener in listeners:
                listener.close()
            await self._end()

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def _look_after(self) -> None:
        """One look at all, because a timer a request would cost more than its scoring."""
        while True:
            await asyncio.sleep(min(1.0, self.seconds / 10))
            self.date, now = formatdate(usegmt=True), time.perf_counter()
            for connection in [c for c in self.connections if c.due < now]:
                connection.get_on()

    async def _end(self) -> None:
        self.ending = True
        self._empty.clear()
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            looking = asyncio.create_task(self._look_after())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), 2 * self.seconds + 1)
            looking.cancel()
