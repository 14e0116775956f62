"""Frames in, frames out, for a model that runs in this thread: one loop around one epoll.

Each turn of the loop reads what has come, then serves every link that holds a whole frame, one batch each, so
that no gateway waits for another's second batch. A link is read only while it has no whole frame and its last
answer is written: a gateway that does not read stops being served, and is dropped after STALL_SECONDS. So
nothing queues here; what waits, waits in the sockets, whose senders hold credits.

The end: SIGTERM comes through the wake-up descriptor. The name of the socket goes, every gateway is told
DRAIN, and service goes on. A link's frames are in order, so when DRAINED is read everything before it has
been answered; the link closes when that is written, and with the last link the loop ends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from steersman.dataplane.replica import watchdog
from steersman.dataplane.replica.door import Door
from steersman.dataplane.replica.ending import Ending
from steersman.dataplane.replica.errors import BAD_FRAME, BatchError
from steersman.dataplane.replica.frames import FrameReader
from steersman.dataplane.replica.model import LINKS_MAX, STALL_SECONDS, Costs, Model, Pieces
from steersman.dataplane.replica.tls import Gate, TlsSocket
from steersman.ports import replica_wire as wire

GATHER_MAX = 64
"""Pieces of one gathering write; the kernel takes 1,024."""


class Link:
    """One gateway's connection."""

    __slots__ = ("drained", "out", "reader", "socket", "written_at")

    def __init__(self, connection: socket.socket | TlsSocket) -> None:
        self.socket = connection
        self.reader = FrameReader()
        self.out: deque[memoryview] = deque()
        self.drained = False
        self.written_at = 0.0

    def fill(self) -> bool:
        """Read once, unless a whole frame waits; False at the end of all. Raises OSError, ValueError."""
        if self.reader.whole():
            return True
        try:
            count = self.socket.recv_into(self.reader.room())
        except BlockingIOError:
            return True
        self.reader.advance(count)
        return count > 0

    def more(self) -> bool:
        """Whether it can go on without anything new from the poll."""
        return self.reader.whole() or (isinstance(self.socket, TlsSocket) and self.socket.pending())

    def send(self, pieces: Pieces) -> None:
        """Write what the socket takes, keep the rest. Raises OSError."""
        if self.out:
            self.out.extend(map(memoryview, pieces))
            return
        try:
            sent = self.socket.sendmsg(pieces[:GATHER_MAX])
        except BlockingIOError:
            sent = 0
        if sent < sum(map(len, pieces)):
            self.written_at = time.monotonic()
            self.out.extend(map(memoryview, pieces))
            self._written(sent)

    def flush(self) -> None:
        """Write more of what is kept. Raises OSError."""
        with contextlib.suppress(BlockingIOError):
            while self.out:
                count = min(len(self.out), GATHER_MAX)
                self._written(self.socket.sendmsg([self.out[place] for place in range(count)]))
                self.written_at = time.monotonic()

    def _written(self, count: int) -> None:
        while self.out and count >= len(self.out[0]):
            count -= len(self.out.popleft())
        if count:
            self.out[0] = self.out[0][count:]


class Limits(NamedTuple):
    """What one batch may be and take, and who may connect (None: whoever reaches the socket)."""

    rows_max: int
    seconds_max: float
    gate: Gate | None = None


class Server:
    """Serves a model until it is told to end and every gateway has agreed."""

    def __init__(self, model: Model, greeting: Pieces, limits: Limits) -> None:
        self._model = model
        self._greeting = greeting
        self._limits = limits
        self._links: dict[int, Link] = {}
        self._turns: dict[int, Link] = {}
        self._poll = select.epoll()
        self._door = None if limits.gate is None else Door(limits.gate, self._poll)
        self._costs = Costs()
        self._draining = False
        self.batches = 0

    def serve(self, listener: socket.socket, ending: Ending, on_drain: Callable[[], None]) -> None:
        """Until the end. `on_drain` is called once that is asked for."""
        self._poll.register(listener, select.EPOLLIN)
        self._poll.register(ending, select.EPOLLIN)
        while not (self._draining and not self._links):
            for descriptor, _ in self._poll.poll(self._timeout()):
                if descriptor in self._links:
                    self._guarded(self._links[descriptor], self._move)
                elif self._door is not None and descriptor in self._door:
                    self._admit(self._door.step(descriptor))
                elif descriptor == ending.fileno():
                    if ending.asked():
                        self._begin_drain(listener, on_drain)
                elif not self._draining:
                    self._accept(listener)
            for link in list(self._turns.values()):
                self._guarded(link, self._turn)
            self._drop_stalled()
        self._poll.close()

    def _timeout(self) -> float | None:
        if self._turns:
            return 0
        return 1.0 if self._door or any(link.out for link in self._links.values()) else None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            if self._door is not None:
                self._door.enter(connection)
                return
            connection.setblocking(False)
            self._admit(connection)

    def _admit(self, connection: socket.socket | TlsSocket | None) -> None:
        """Greet a gateway, if it is one."""
        if connection is None:
            return
        if len(self._links) >= LINKS_MAX:
            connection.close()
            return
        link = Link(connection)
        self._links[connection.fileno()] = link
        self._poll.register(connection, select.EPOLLIN)
        self._guarded(link, lambda link: self._send(link, self._greeting))

    def _begin_drain(self, listener: socket.socket, on_drain: Callable[[], None]) -> None:
        if self._draining:
            return
        self._draining = True
        self._poll.unregister(listener)
        if self._door is not None:
            self._door.close()
        on_drain()
        for link in list(self._links.values()):
            self._guarded(link, self._say_drain)

    def _say_drain(self, link: Link) -> None:
        self._send(link, wire.pack(wire.DRAIN, 0, 0, {}))
        self._close_if_done(link)

    def _guarded(self, link: Link, act: Callable[[Link], None]) -> None:
        """Do something with a link; a link that fails is dropped, and the others go on."""
        try:
            act(link)
        except OSError:
            self._drop(link)
        except ValueError as error:
            self._refuse(link, str(error))

    def _move(self, link: Link) -> None:
        """Its socket can be written (when something waits to be), else read."""
        if not link.out:
            if link.fill():
                self._turns[link.socket.fileno()] = link
            else:
                self._drop(link)
            return
        link.flush()
        if not link.out:
            self._poll.modify(link.socket, select.EPOLLIN)
            self._turns[link.socket.fileno()] = link
            self._close_if_done(link)

    def _turn(self, link: Link) -> None:
        """One batch of one link."""
        frame = None if link.out else link.reader.next()
        if frame is None:
            if link.out or not link.more():
                del self._turns[link.socket.fileno()]
            elif not link.fill():
                self._drop(link)
        elif frame.kind == wire.INFER:
            self._send(link, self._answer(frame))
            if not link.out and not link.more():
                del self._turns[link.socket.fileno()]  # spares the loop a round
        elif frame.kind == wire.DRAINED:
            link.drained = True
            self._close_if_done(link)
        elif frame.kind != wire.CANCEL:  # the batch was run already, or is about to be
            raise ValueError(f"a frame of kind {frame.kind} is none that a gateway sends")

    def _answer(self, frame: wire.Frame) -> Pieces:
        self.batches += 1
        begun_ns = time.perf_counter_ns()
        watchdog.arm(self._limits.seconds_max)
        try:
            if not 0 < frame.rows <= self._limits.rows_max:
                raise BatchError(
                    BAD_FRAME, f"a batch of {frame.rows} rows, of at most {self._limits.rows_max}"
                )
            meta, payload = self._model.run(frame)
        except BatchError as error:
            return wire.pack(wire.ERROR, frame.batch, frame.rows, {"error": error.text, "code": error.code})
        finally:
            watchdog.disarm()
        meta["run_us"] = (time.perf_counter_ns() - begun_ns) // 1000
        meta["cpu_us"] = self._costs.take_us()
        return wire.pack(wire.RESULT, frame.batch, frame.rows, meta, *payload)

    def _send(self, link: Link, pieces: Pieces) -> None:
        link.send(pieces)
        if link.out:
            self._poll.modify(link.socket, select.EPOLLOUT)

    def _refuse(self, link: Link, why: str) -> None:
        """Answer a frame that is none, and close: what follows it cannot be read."""
        with contextlib.suppress(OSError):
            link.send(wire.pack(wire.ERROR, 0, 0, {"error": why, "code": BAD_FRAME}))
        self._drop(link)

    def _close_if_done(self, link: Link) -> None:
        if self._draining and link.drained and not link.out:
            self._drop(link)

    def _drop(self, link: Link) -> None:
        number = link.socket.fileno()
        if number < 0:
            return
        self._links.pop(number, None)
        self._turns.pop(number, None)
        self._poll.unregister(number)
        link.socket.close()

    def _drop_stalled(self) -> None:
        if self._door is not None:
            self._door.drop_late()
        for link in [link for link in self._links.values() if link.out]:
            if time.monotonic() - link.written_at > STALL_SECONDS:
                self._drop(link)
