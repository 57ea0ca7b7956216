"""A server that gives one answer to whatever it is asked: `python -m benchmarks.serving.constant_server <port> <socket>`."""

import asyncio
import sys
from typing import Any

import uvloop

BODY = b'{"request_id":"0123abcd-4567","model":"flights","version":"0","slot":"stable","scores":[0.123456789]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Hollow(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            mark = self.buffer.lower().find(b"content-length: ", 0, head)
            length = 0 if mark < 0 else int(self.buffer[mark + 16 : self.buffer.find(b"\r", mark)])
            if len(self.buffer) < head + 4 + length:
                return
            self.buffer = self.buffer[head + 4 + length :]
            self.transport.write(ANSWER)


async def serve(port: int, socket: str) -> None:
    loop = asyncio.get_running_loop()
    listeners = [await loop.create_unix_server(Hollow, socket), await loop.create_server(Hollow, "127.0.0.1", port)]
    await listeners[0].serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
