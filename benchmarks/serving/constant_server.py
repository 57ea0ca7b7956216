"""A server that gives one answer to every request: `python -m benchmarks.serving.constant_server <port> <socket>`."""

import asyncio
import sys
from typing import cast

import uvloop

BODY = b'{"request_id":"0123abcd-4567","model":"flights","version":"0","slot":"stable","scores":[0.123456789]}'
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class ConstantConnection(asyncio.Protocol):
    """Finds the end of each request and writes the response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            header = self.buffer.lower().find(b"content-length: ", 0, head)
            length = 0 if header < 0 else int(self.buffer[header + 16 : self.buffer.find(b"\r", header)])
            if len(self.buffer) < head + 4 + length:
                return
            self.buffer = self.buffer[head + 4 + length :]
            self.transport.write(RESPONSE)


async def serve(port: int, socket: str) -> None:
    """Listen at the port and at the Unix socket until killed."""
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(ConstantConnection, socket)
    tcp = await loop.create_server(ConstantConnection, "127.0.0.1", port)
    await asyncio.gather(unix.serve_forever(), tcp.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
