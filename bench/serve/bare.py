"""The reference: one process, one thread, no queue, no batching, no checks, no second anything.

    BENCH_MODEL=… BENCH_PORT=… python -m bench.serve.bare

Theory: what a request costs when nothing is done but reading it, running the model and answering. It is not a
server anybody should use, but the floor beside which every server's own cost can be read. uvloop, httptools
and msgspec, like the gateway.
"""

import asyncio
import os
from typing import cast

import httptools
import msgspec
import numpy as np
import uvloop

from bench.serve.models import session

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
SESSION = session(os.environ["BENCH_MODEL"])
INPUTS = [(each.name, np.int64 if "int64" in each.type else np.float32) for each in SESSION.get_inputs()]
OUTPUTS = [each.name for each in SESSION.get_outputs()]
DECODE, ENCODE = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


class Bare(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is a class of its own
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        row, self._body = DECODE(self._body), b""
        feed = {name: np.array([row[name]], dtype) for name, dtype in INPUTS}
        said = SESSION.run(None, feed)
        answer = ENCODE({name: out[0].tolist() for name, out in zip(OUTPUTS, said, strict=True)})
        self._transport.write(HEAD % (len(answer), answer))


async def main() -> None:
    """Until it is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", int(os.environ["BENCH_PORT"]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
