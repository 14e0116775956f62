"""The listening sockets of a gateway: one for each process, all on one port that nobody else has.

Theory of operation. The first socket binds and listens plainly, which the kernel grants to one socket only;
so two homes can never share a port by chance. Only then is SO_REUSEPORT set on it, and the others join it;
the kernel lets only processes of the same user do that. A taken port is replaced by a free one.
"""

import errno
import socket
from typing import Final

BACKLOG: Final = 1_024
"""Connections that may wait for a process to accept them."""


def listen(address: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one port. Raises OSError when the address is not ours."""
    try:
        first = _first(address, port)
    except OSError as error:
        if port == 0 or error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        first = _first(address, 0)
    sockets = [first]
    try:
        more(sockets, count)
    except OSError:
        close(sockets)
        raise
    return sockets


def more(sockets: list[socket.socket], count: int) -> None:
    """Add sockets on the port of the first until there are so many."""
    address, port = sockets[0].getsockname()[:2]
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    while len(sockets) < count:
        other = _socket(address)
        try:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind((address, port))
            other.listen(BACKLOG)
        except OSError:
            other.close()
            raise
        sockets.append(other)


def close(sockets: list[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()


def _first(address: str, port: int) -> socket.socket:
    first = _socket(address)
    try:
        first.bind((address, port))
        first.listen(BACKLOG)
    except OSError:
        first.close()
        raise
    return first


def _socket(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
