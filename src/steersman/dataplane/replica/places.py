"""The replica's places: the socket it listens on, ``ready.json``, and the doorbell.

Sockets are bound and reached through their folder's descriptor, for a socket's path may hold 108 bytes only.
`listen` gives a socket that nobody but the owner may connect to and that exists from when it can be served.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steersman.ports import peers, run_dir

BACKLOG = 64
"""Gateways that may wait to be greeted."""


def listen(folder: Path) -> socket.socket:
    """A listening socket at the replica's place. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _opened(folder) as handle:
            unlisten(folder)  # one left by nobody that lives: a rank has one start
            listener.bind(f"/proc/self/fd/{handle}/{run_dir.REPLICA_SOCKET}")
            os.chmod(run_dir.REPLICA_SOCKET, 0o600, dir_fd=handle)
        listener.setblocking(False)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen_on(address: str) -> tuple[socket.socket, str]:
    """A socket that listens on an IP address, on a free port, and its ``ip:port``. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
        listener.setblocking(False)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    return listener, peers.join_address(address, listener.getsockname()[1])


def unlisten(folder: Path) -> None:
    """Take the socket's name away, so that nobody connects any more."""
    with contextlib.suppress(FileNotFoundError):
        (folder / run_dir.REPLICA_SOCKET).unlink()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object durably and whole. Raises OSError; the old file is then still there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(json.dumps(value, separators=(",", ":")).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    with _opened(path.parent) as handle:
        os.fsync(handle)


def ring(bell_path: str) -> None:
    """Tell the control plane, if one listens, to observe again. Failure is harmless: it also polls."""
    if not bell_path:
        return
    path = Path(bell_path)
    with (
        contextlib.suppress(OSError),
        _opened(path.parent) as handle,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell,
    ):
        bell.setblocking(False)
        bell.sendto(b"\0", f"/proc/self/fd/{handle}/{path.name}")


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)
