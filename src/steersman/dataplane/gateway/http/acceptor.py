"""Accepts connections: room first, then TLS, then the protocol.

Its own accept loop, so that a connection is counted before its handshake, a new TLS context holds for the
very next connection, and not accepting any more is one call.
"""

import asyncio
import errno
import socket
import ssl
from typing import Final

from steersman.dataplane.gateway.http.connection import Connection
from steersman.dataplane.gateway.http.front import Front
from steersman.dataplane.gateway.http.hosts import address_key, unmapped
from steersman.dataplane.gateway.http.tls import Tls

ACCEPTS_AT_ONCE: Final = 64
"""Connections accepted in one turn of the loop."""
PAUSE_S: Final = 0.05
"""How long accepting rests when the process has no descriptor left and nobody idle to close."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """The listening socket of one process."""

    def __init__(self, front: Front, listener: socket.socket, tls: Tls) -> None:
        self._front = front
        self._loop = front.loop
        self._listener = listener
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Take what is in the backlog already, then listen no more."""
        if self._closed:
            return
        self._accept()
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connected, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    return
                if not self._front.make_room():
                    self._loop.remove_reader(self._listener.fileno())
                    self._loop.call_later(PAUSE_S, self._resume)
                return
            self._take(connected, peer[0])

    def _take(self, connected: socket.socket, peer: str) -> None:
        context = self._tls.context
        if context is None and self._tls.wanted:
            connected.close()  # no certificate that can be used: never in the clear instead
            return
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local = unmapped(connected.getsockname()[0])
        except OSError:  # it is gone already
            connected.close()
            return
        connection = self._front.join(address_key(peer), local)
        if connection is None:
            connected.close()
            return
        task = self._loop.create_task(self._connect(connection, connected, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(
        self, connection: Connection, connected: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        timeout_s = None if context is None else self._front.limits.handshake_s
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, connected, ssl=context, ssl_handshake_timeout=timeout_s
            )
        except (OSError, TimeoutError):  # a peer that does not speak TLS, or too slowly, or went
            connected.close()
            self._front.left(connection)
