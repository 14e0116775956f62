"""Frames in, frames out, for coroutines and streams: many batches under way in one event loop.

Each INFER is a task. It has the batch's time limit, a stream has it anew for each piece; waiting for a
gateway that reads slowly does not count, but such a gateway is dropped after STALL_SECONDS. When time is up,
or on CANCEL, the gateway is answered at once and the task is cancelled. A task that will not end within
another limit, like one that blocks the loop (see `watchdog.Heartbeat`), ends the process: nothing else could
stop it.

The end is that of `server`: the name of the socket goes, DRAIN is said, service goes on until each gateway
has said DRAINED and has its answers.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from steersman.dataplane.replica import watchdog
from steersman.dataplane.replica.ending import Ending
from steersman.dataplane.replica.errors import BAD_FRAME, MODEL_ERROR, BatchError
from steersman.dataplane.replica.frames import FrameReader
from steersman.dataplane.replica.model import (
    BATCHES_MAX_ASYNC,
    LINKS_MAX,
    OUT_BYTES_MAX,
    STALL_SECONDS,
    AsyncModel,
    Costs,
    Pieces,
)
from steersman.dataplane.replica.tls import HANDSHAKE_SECONDS, SHAKING_MAX, Gate, prepare
from steersman.ports import replica_wire as wire

ACCEPT_PAUSE_SECONDS = 0.1


class Under:
    """A batch under way. Once `answered`, what its task still gives is dropped."""

    __slots__ = ("answered", "batch", "begun_ns", "rows", "task", "timer")

    def __init__(self, batch: int, rows: int) -> None:
        self.batch = batch
        self.rows = rows
        self.answered = False
        self.begun_ns = time.perf_counter_ns()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Setting(NamedTuple):
    """What every link serves, within which limits, and to whom (None: to whoever reaches the socket)."""

    model: AsyncModel
    greeting: Pieces
    rows_max: int
    seconds_max: float
    gate: Gate | None = None


class AsyncServer:
    """Serves until it is told to end and every gateway has agreed."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.links: set[AsyncLink] = set()
        self.heartbeat = watchdog.Heartbeat(setting.seconds_max)
        self.costs = Costs()
        self.draining = False
        self.under_way = 0
        self.batches = 0

    async def serve(self, listener: socket.socket, ending: Ending, on_drain: Callable[[], None]) -> None:
        """Until the end. `on_drain` is called once that is asked for."""
        loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        welcome = loop.create_task(self._welcome(listener))

        def drain() -> None:
            if not ending.asked():
                return
            loop.remove_reader(ending)
            self.draining = True
            welcome.cancel()
            loop.remove_reader(listener)
            on_drain()
            for link in list(self.links):
                link.say_drain()
            self.check_done()

        loop.add_reader(ending, drain)
        await self._done

    async def _welcome(self, listener: socket.socket) -> None:
        """Connect those who come. Handshakes go on beside one another, the oldest of too many ends."""
        loop, shaking = asyncio.get_running_loop(), deque[asyncio.Task[None]]()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:  # it is gone already, or there are no descriptors
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                shaking = deque(task for task in shaking if not task.done())
                if len(shaking) >= SHAKING_MAX:
                    shaking.popleft().cancel()
                shaking.append(loop.create_task(self._connect(connection)))
        finally:
            for task in shaking:
                task.cancel()

    async def _connect(self, connection: socket.socket) -> None:
        gate, loop = self.setting.gate, asyncio.get_running_loop()
        try:
            if gate is None:
                await loop.connect_accepted_socket(lambda: AsyncLink(self), connection)
                return
            prepare(connection)
            await loop.connect_accepted_socket(
                lambda: AsyncLink(self),
                connection,
                ssl=gate.context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except (OSError, ValueError):  # no gateway
            connection.close()

    def check_done(self) -> None:
        """End when nobody is left to serve."""
        if self.draining and not self.links and not self._done.done():
            self._done.set_result(None)

    def count(self, change: int) -> None:
        """So many batches more, or fewer, are under way."""
        self.under_way += change
        if self.under_way:
            self.heartbeat.start()
        else:
            self.heartbeat.stop()


class AsyncLink(asyncio.BufferedProtocol):
    """One gateway's connection."""

    def __init__(self, server: AsyncServer) -> None:
        self._server = server
        self._model = server.setting.model
        self._reader = FrameReader()
        self._under: dict[int, Under] = {}
        self._drained = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._stall: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport
        gate = self._server.setting.gate
        refused = gate is not None and gate.refuses(transport.get_extra_info("peercert"))
        if refused or len(self._server.links) >= LINKS_MAX:
            self._transport.abort()
            return
        self._server.links.add(self)
        self._transport.writelines(self._server.setting.greeting)
        if self._server.draining:
            self.say_drain()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a loss is a loss
        """Nobody waits for anything any more."""
        self._server.links.discard(self)
        self._writable.set()
        if self._stall is not None:
            self._stall.cancel()
        for under in list(self._under.values()):
            self._give_up(under, "the gateway is gone")
        self._server.check_done()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the frame says how much room it needs
        """Room for what comes."""
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Something came."""
        self._reader.advance(nbytes)
        try:
            while not self._transport.is_closing():
                frame = self._reader.next()
                if frame is None:
                    return
                self._take(frame)
        except ValueError as error:
            self._send(wire.pack(wire.ERROR, 0, 0, {"error": str(error), "code": BAD_FRAME}))
            self._transport.close()

    def pause_writing(self) -> None:
        """The gateway reads too slowly."""
        self._writable.clear()
        self._stall = asyncio.get_running_loop().call_later(STALL_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()
        if self._stall is not None:
            self._stall.cancel()

    def say_drain(self) -> None:
        """Ask for no new batch."""
        self._send(wire.pack(wire.DRAIN, 0, 0, {}))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._server.draining and self._drained and not self._under:
            self._transport.close()

    def _send(self, pieces: Pieces) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > OUT_BYTES_MAX:
            self._transport.abort()
            return
        self._transport.write(b"".join(pieces))

    def _take(self, frame: wire.Frame) -> None:
        if frame.kind == wire.INFER:
            self._infer(frame)
        elif frame.kind == wire.CANCEL:
            if frame.batch in self._under:
                self._give_up(self._under[frame.batch], "cancelled")
        elif frame.kind == wire.DRAINED:
            self._drained = True
            self._close_if_done()
        else:
            raise ValueError(f"a frame of kind {frame.kind} is none that a gateway sends")

    def _infer(self, frame: wire.Frame) -> None:
        waiting = sum(not under.answered for under in self._under.values())
        if frame.batch in self._under or waiting >= BATCHES_MAX_ASYNC:
            raise ValueError("a batch beyond the credits, or of a number that is in use")
        rows_max = self._server.setting.rows_max
        under = Under(frame.batch, frame.rows)
        try:
            if not 0 < frame.rows <= rows_max:
                raise BatchError(BAD_FRAME, f"a batch of {frame.rows} rows, of at most {rows_max}")
            rows = self._model.read(frame)
        except BatchError as error:
            self._fail(under, error)
            return
        self._server.batches += 1
        self._server.count(1)
        self._under[under.batch] = under
        self._limit(under)
        work = self._stream(under, rows[0]) if self._model.signature.stream else self._answer(under, rows)
        under.task = asyncio.get_running_loop().create_task(work)
        under.task.add_done_callback(lambda _: self._ended(under))

    def _ended(self, under: Under) -> None:
        self._unlimit(under)
        self._fail(under, BatchError(MODEL_ERROR, "the model raised CancelledError"))  # unless it is answered
        self._under.pop(under.batch, None)
        self._server.count(-1)
        self._close_if_done()

    def _limit(self, under: Under) -> None:
        """The time begins anew."""
        self._unlimit(under)
        seconds = self._server.setting.seconds_max
        text = f"it took longer than {round(seconds * 1000)} ms"
        under.timer = asyncio.get_running_loop().call_later(seconds, self._give_up, under, text)

    def _unlimit(self, under: Under) -> None:
        if under.timer is not None:
            under.timer.cancel()
            under.timer = None

    def _give_up(self, under: Under, text: str) -> None:
        """Answer now, and end the task."""
        if under.task is None or under.answered:
            return
        self._unlimit(under)
        self._fail(under, BatchError(MODEL_ERROR, text))
        under.task.cancel()
        under.timer = asyncio.get_running_loop().call_later(self._server.setting.seconds_max, _stubborn)

    def _fail(self, under: Under, error: BatchError) -> None:
        if under.answered:
            return
        under.answered = True
        if self._model.signature.stream and error.code != BAD_FRAME:
            meta = {"row": 0, "last": True, "error": error.text, **self._figures(under)}
            self._send(wire.pack(wire.PART, under.batch, 1, meta))
        else:
            self._send(
                wire.pack(wire.ERROR, under.batch, under.rows, {"error": error.text, "code": error.code})
            )

    def _figures(self, under: Under) -> dict[str, int]:
        run_us = (time.perf_counter_ns() - under.begun_ns) // 1000
        return {"run_us": run_us, "cpu_us": self._server.costs.take_us()}

    async def _answer(self, under: Under, rows: list[Any]) -> None:
        try:
            meta, payload = await self._model.run(rows)
        except BatchError as error:
            self._fail(under, error)
            return
        if not under.answered:
            under.answered = True
            meta.update(self._figures(under))
            self._send(wire.pack(wire.RESULT, under.batch, under.rows, meta, *payload))

    async def _stream(self, under: Under, row: Any) -> None:
        parts = self._model.parts(row)
        try:
            async for text in parts:
                if under.answered:
                    return
                self._send(wire.pack(wire.PART, under.batch, 1, {"row": 0, "last": False}, text))
                if not self._writable.is_set():
                    self._unlimit(under)
                    await self._writable.wait()
                self._limit(under)
                await asyncio.sleep(0)  # other streams' turn
        except BatchError as error:
            self._fail(under, error)
            return
        finally:
            await parts.aclose()
        if not under.answered:
            under.answered = True
            meta = {"row": 0, "last": True, **self._figures(under)}
            self._send(wire.pack(wire.PART, under.batch, 1, meta))


def _stubborn() -> None:
    sys.stderr.write("a cancelled batch did not end: this process does, with signal 14 (SIGALRM)\n")
    sys.stderr.flush()
    watchdog.expire()
