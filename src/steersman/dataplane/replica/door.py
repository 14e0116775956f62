"""Handshakes under way in the loop of `server`, none of which may hold up the others.

A connection waits here until its handshake is done and its certificate is the gateway's, HANDSHAKE_SECONDS at
most; of more than SHAKING_MAX the oldest goes. So those who connect and do not speak cost little and keep
nobody out.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from typing import NamedTuple

from steersman.dataplane.replica.tls import HANDSHAKE_SECONDS, SHAKING_MAX, Gate, TlsSocket, prepare


class Shaking(NamedTuple):
    """One handshake."""

    connection: ssl.SSLSocket
    until: float


class Door:
    """See the module."""

    def __init__(self, gate: Gate, poll: select.epoll) -> None:
        self._gate = gate
        self._poll = poll
        self._shaking: dict[int, Shaking] = {}  # oldest first

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._shaking

    def __len__(self) -> int:
        return len(self._shaking)

    def enter(self, connection: socket.socket) -> None:
        """Begin a handshake."""
        try:
            prepare(connection)
            shaken = self._gate.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        except (OSError, ValueError):  # it is gone already
            connection.close()
            return
        if len(self._shaking) >= SHAKING_MAX:
            self._drop(next(iter(self._shaking)))
        self._shaking[shaken.fileno()] = Shaking(shaken, time.monotonic() + HANDSHAKE_SECONDS)
        self._poll.register(shaken, select.EPOLLIN)

    def step(self, descriptor: int) -> TlsSocket | None:
        """Something moves: go on with a handshake. The socket once it is done and the gateway's."""
        connection = self._shaking[descriptor].connection
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._poll.modify(connection, select.EPOLLIN)
            return None
        except ssl.SSLWantWriteError:
            self._poll.modify(connection, select.EPOLLOUT)
            return None
        except (OSError, ValueError):
            self._drop(descriptor)
            return None
        if self._gate.refuses(connection.getpeercert()):
            self._drop(descriptor)
            return None
        del self._shaking[descriptor]
        self._poll.unregister(descriptor)
        return TlsSocket(connection)

    def drop_late(self) -> None:
        """Hang up on those whose time is over."""
        now = time.monotonic()
        for descriptor in [each for each, shaking in self._shaking.items() if shaking.until < now]:
            self._drop(descriptor)

    def close(self) -> None:
        """Hang up on all."""
        for descriptor in list(self._shaking):
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        connection = self._shaking.pop(descriptor).connection
        with contextlib.suppress(OSError):
            self._poll.unregister(descriptor)
        connection.close()
