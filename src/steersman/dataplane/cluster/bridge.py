"""Entry point: ``python bridge.py``, started by the Ray driver, one per cluster; ends with its standard
input.

It reads lines of JSON and answers each with one:

    {"id", "do": "connect" | "look" | "start" | "stop" | "interval" | "finish", …}
    {"id", "value"} or {"id", "refused", "hint", "code"};   {"changed": true} when there is something to look
    at

The token of the cluster is in its environment. What it learns of ranks it writes into the home (`mirror`); so
it may die at any time, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# Run as a file, this is the only way to find the package. First, so that another version of Steersman that
# the interpreter has does not stand in for this one: the folder holds nothing else. And not the folder of
# this file, whose names would stand in for others.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120 - before the package can be found
sys.path[0] = ROOT

from steersman.dataplane.cluster.session import Session  # noqa: E402 - needs the path
from steersman.dataplane.cluster.words import answered, refusal  # noqa: E402 - needs the path
from steersman.model.errors import DriverError  # noqa: E402 - needs the path

LINE_BYTES_MAX = 64 * 1024 * 1024


class Bridge:
    """Lines in, lines out."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self._out = out
        self._session: Session | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, line: Mapping[str, Any]) -> None:
        """One line to the driver."""
        self._out(json.dumps(line).encode() + b"\n")

    def take(self, line: bytes) -> None:
        """Begin what a line asks for."""
        asked = json.loads(line)
        task = asyncio.ensure_future(self._carry_out(asked))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, number=asked["id"]))

    async def _carry_out(self, asked: dict[str, Any]) -> None:
        number, verb, asked = asked["id"], asked["do"], dict(asked)
        del asked["id"], asked["do"]
        self.say({"id": number, **await answered(lambda: self._do(verb, asked))})

    def _ended(self, task: asyncio.Task[None], number: int) -> None:
        """Nobody shall wait for the answer for ever, whatever went wrong."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.say({"id": number, **refusal(DriverError(f"the bridge failed: {error!r}"))})

    def _do(self, verb: str, asked: dict[str, Any]) -> Awaitable[Any]:
        if verb == "connect":
            return self._connect(asked)
        assert self._session is not None, "the driver connects first"
        work: Awaitable[Any] = getattr(self._session, verb)(**asked)
        return work

    async def _connect(self, asked: dict[str, Any]) -> dict[str, Any]:
        session = Session(asked, Path(ROOT), lambda: self.say({"changed": True}))
        found = await session.connect()
        self._session = session
        return found


async def main() -> None:
    """Answer until the driver goes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    out = os.dup(1)
    os.dup2(2, 1)  # whatever the engine prints is no answer

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(out, data) :]

    bridge = Bridge(write)
    while line := await reader.readline():
        bridge.take(line)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # the engine's threads need not agree
