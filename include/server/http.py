"""HTTP/1.1 on the event loop's own transports: httptools parses, and the app gives one response to each request.

No other thread takes part: handing each body over from one cost more than its scoring.
"""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import cast

import httptools

from include.server.requests import Application, HeadCache, Request, RequestHead
from include.server.responses import RequestError, Response, encode_head

#: Open connections; idle ones cost memory alone and must not keep others out.
MAX_CONNECTIONS = 8192
#: Seconds to send a head, and until an idle connection is closed: longer than gateways keep theirs.
HEAD_TIMEOUT, IDLE_TIMEOUT = 10.0, 120.0
#: Bytes of a head; as many as one read brings.
MAX_HEAD_BYTES = 1 << 18
#: Requests of one connection that wait for their responses; with more, no more is read.
MAX_PIPELINED = 16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(asyncio.Protocol):
    """One connection: reads requests, hands them to the app one after the other, and writes the responses in their order.

    httptools calls the methods from `on_message_begin` to `on_message_complete`; the server calls `on_timeout` once `deadline`
    (time.perf_counter) has passed.
    """

    def __init__(self, server: "HttpServer") -> None:
        self._server, self._app = server, server.app
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()  #: whole requests that are not handled yet
        self._incoming: Request | None = None  #: the request whose body is being read
        self._reading_head = self._handling = self._closing = False
        self._target, self._body = b"", bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._bytes_read, self.deadline = 0, time.perf_counter() + IDLE_TIMEOUT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        if len(self._server.connections) > MAX_CONNECTIONS:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._server.remove(self)
        unhandled = len(self._queue) + (self._incoming is not None)
        self._app.release(unhandled)
        self._queue.clear()
        self._incoming = None

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        in_request = self._reading_head or self._incoming is not None
        if in_request or not self._receive_with_cached_head(data):
            self._parse(data, in_request)
        self._handle_next()
        if len(self._queue) > MAX_PIPELINED:
            self._transport.pause_reading()

    def _receive_with_cached_head(self, data: bytes) -> bool:
        """Take one whole request whose head is in the cache: parsing heads took a sixth of the server's time."""
        parts = self._server.head_cache.split(data)
        if parts is None:
            return False
        head, body = parts
        request = Request(head, False, self._write_response)
        request.body = body
        self._app.begin(request)
        self._complete_request(request)
        return True

    def _parse(self, data: bytes, in_request: bool) -> None:
        queued_before = len(self._queue)
        try:
            self._parser.feed_data(data)
        except (
            httptools.HttpParserUpgrade
        ):  # the request is answered in HTTP/1.1; what follows would be another protocol
            self._closing = True
        except httptools.HttpParserError as error:
            self._reject(RequestError(400, f"not HTTP/1.1: {error}"))
        if in_request:
            self._bytes_read += len(data)
            if self._reading_head and self._bytes_read > MAX_HEAD_BYTES:
                self._reject(RequestError(431, f"the head has more than {MAX_HEAD_BYTES} bytes"))
            elif self._incoming is not None and self._bytes_read > MAX_HEAD_BYTES + 2 * self._server.max_body_bytes:
                self._reject_body()
        elif len(self._queue) == queued_before + 1 and not (self._reading_head or self._incoming):
            self._server.head_cache.add(data, self._queue[-1])

    def on_message_begin(self) -> None:
        if self._closing:
            return
        self._target, self._headers, self._body = b"", {}, bytearray()
        self._reading_head, self._bytes_read, self.deadline = True, 0, time.perf_counter() + HEAD_TIMEOUT

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._closing:
            return
        self._begin_request(self._parser.get_method().decode())
        if int(self._headers.get(b"content-length", 0)) > self._server.max_body_bytes:
            self._reject_body()
        elif self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(CONTINUE)

    def on_body(self, part: bytes) -> None:
        if self._incoming is not None:
            self._body += part
            if len(self._body) > self._server.max_body_bytes:
                self._reject_body()

    def on_message_complete(self) -> None:
        if self._incoming is not None:
            self._incoming.body = bytes(self._body)
            self._complete_request(self._incoming)

    def on_timeout(self) -> None:
        """Answer 408 if a body is missing; otherwise close the connection."""
        if self._incoming is not None:
            self._reject(RequestError(408, f"the body was not sent within {self._server.body_timeout:g} s"))
            self._handle_next()
        elif self._closing:
            self._transport.abort()
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is in flight; the last response closes it then."""
        if self._idle:
            self._transport.close()

    @property
    def _idle(self) -> bool:
        return not (self._reading_head or self._incoming or self._queue or self._handling)

    def _begin_request(self, method: str) -> None:
        path = self._target.partition(b"?")[0].decode("latin-1")
        close = self._parser.should_upgrade() or not self._parser.should_keep_alive()
        self._reading_head = False
        self._incoming = Request(RequestHead(method, path, self._headers), close, self._write_response)
        self.deadline = self._incoming.started_at + self._server.body_timeout
        self._app.begin(self._incoming)

    def _complete_request(self, request: Request) -> None:
        """Queue a request for handling: its body is whole, or will not be read."""
        self._incoming, self.deadline = None, math.inf
        self._queue.append(request)

    def _reject_body(self) -> None:
        limit = self._server.max_body_bytes
        self._reject(RequestError(413, f"the body has more than the {limit} bytes that are taken"))

    def _reject(self, error: RequestError) -> None:
        """Queue this error as the last response, and read nothing more."""
        if self._closing:
            return
        self._closing = True
        if self._incoming is None:
            self._target, self._headers = b"", {}
            self._begin_request("")
        request = cast(Request, self._incoming)
        request.error, request.close = error, True
        self._complete_request(request)

    def _handle_next(self) -> None:
        """Hand the next whole request to the app, unless the one before has no response yet."""
        if self._queue and not self._handling:
            self._handling = True
            self._app.handle(self._queue.popleft())

    def _write_response(self, request: Request, response: Response) -> None:
        self._handling = False
        transport, close = self._transport, request.close or (self._server.stopping and self._idle)
        if transport.is_closing():
            return
        body = b"" if request.head.method == "HEAD" else response.body
        head = encode_head(response.status, response.headers, close, len(response.body), self._server.date)
        transport.write(head + body)
        if self._closing and not self._queue:  # the client may still be sending: closed at once, it would not read this
            transport.write_eof()
            self.deadline = time.perf_counter() + self._server.body_timeout
        elif close:
            transport.close()
        elif self._queue:
            self._server.loop.call_soon(self._handle_next)
            if len(self._queue) == MAX_PIPELINED:
                transport.resume_reading()
        elif self._idle:
            self.deadline = time.perf_counter() + IDLE_TIMEOUT


class HttpServer:
    """Listens on a port and a Unix socket. A body has at most `max_body_bytes` and comes within `body_timeout` seconds."""

    def __init__(self, app: Application, max_body_bytes: int, body_timeout: float) -> None:
        self.app, self.max_body_bytes, self.body_timeout = app, max_body_bytes, body_timeout
        self.connections: set[HttpConnection] = set()
        self.head_cache = HeadCache()
        self.stopping, self.date = False, formatdate(usegmt=True)
        self._all_closed = asyncio.Event()

    async def serve(self, host: str, port: int, socket: Path | None = None) -> None:
        """Serve until cancelled, and then until what is in flight has its response. Raises OSError for an address in use."""
        self.loop = asyncio.get_running_loop()
        listeners = [await self.loop.create_server(lambda: HttpConnection(self), host, port, backlog=1024)]
        try:
            if socket:
                unix = await self.loop.create_unix_server(lambda: HttpConnection(self), socket, backlog=1024)
                listeners.append(unix)
            await self._watch_deadlines()
        finally:
            for listener in listeners:
                listener.close()
            await self._drain()

    def remove(self, connection: HttpConnection) -> None:
        """Forget a closed connection."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_closed.set()

    async def _watch_deadlines(self) -> None:
        """Look at all connections in turns, because a timer for each request would cost more than its scoring."""
        while True:
            await asyncio.sleep(min(1.0, self.body_timeout / 10))
            self.date, now = formatdate(usegmt=True), time.perf_counter()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.on_timeout()

    async def _drain(self) -> None:
        self.stopping = True
        self._all_closed.clear()
        for connection in list(self.connections):
            connection.close_if_idle()
        if self.connections:
            watching = asyncio.create_task(self._watch_deadlines())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), 2 * self.body_timeout + 1)
            watching.cancel()
