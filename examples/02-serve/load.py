"""An open-loop client: requests leave at a constant rate, whatever the answers do.

A request whose time has come while all connections are busy waits, and its wait counts: latency is measured
from when it should have left. So a stall of the server shows in the percentiles, as it would for users.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

CONNECTIONS = 32
ANSWER_S_MAX = 90


class Reply(NamedTuple):
    """`status` 0: no answer (refused, reset, or nothing in time). `index` is that of the body."""

    index: int
    status: int
    seconds: float
    body: Any


async def fire(port: int, path: str, bodies: Sequence[bytes], rate: float, seconds: float) -> list[Reply]:
    """Send `rate` requests a second for that long, the bodies in turn; every reply, in order of ending."""
    count = int(rate * seconds)
    began = time.perf_counter()
    waiting = iter(range(count))
    replies: list[Reply] = []

    async def connection() -> None:
        streams = None
        for number in waiting:
            due = began + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            index = number % len(bodies)
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", port)
                status, body = await asyncio.wait_for(_ask(streams, path, bodies[index]), ANSWER_S_MAX)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                status, body, streams = 0, None, None
            replies.append(Reply(index, status, time.perf_counter() - due, body))
        if streams is not None:
            streams[1].close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return replies


async def _ask(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes
) -> tuple[int, Any]:
    reader, writer = streams
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in answer[1:] if ": " in line)
    text = await reader.readexactly(int(headers["content-length"]))
    return int(answer[0].split(" ")[1]), json.loads(text)


def summary(replies: Sequence[Reply]) -> dict[str, Any]:
    """Counts and percentiles: `lost` had no answer or a 5xx that says neither "full" nor "not now"."""
    times = sorted(reply.seconds * 1000 for reply in replies if reply.status == 200)

    def percentile(share: float) -> float | None:
        return round(times[min(int(len(times) * share), len(times) - 1)], 2) if times else None

    return {
        "sent": len(replies),
        "answered": len(times),
        "refused": sum(reply.status in (429, 503) for reply in replies),
        "lost": sum(reply.status == 0 or reply.status in (500, 502, 504) for reply in replies),
        "p50_ms": percentile(0.50),
        "p95_ms": percentile(0.95),
        "p99_ms": percentile(0.99),
        "max_ms": round(times[-1], 2) if times else None,
    }
