"""The home's doorbell: a Unix datagram socket on which shims and trainers say "observe again".

Any number of rings between two looks are one. The socket is bound through its folder's descriptor, for a
socket's path may hold 108 bytes only.
"""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from steersman.ports import run_dir

RING_BYTES_MAX = 16


class Doorbell:
    """Bound at the first wait; one event loop."""

    def __init__(self, home: Path) -> None:
        self._path = home / run_dir.DOORBELL
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter from within this process and loop."""
        self._rung.set()

    async def wait(self, timeout_ms: int) -> None:
        """Return at a ring, one from before this call included, or after the timeout."""
        if self._socket is None:
            self._bind()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._rung.wait()
        self._rung.clear()

    def _bind(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)  # left by an earlier control plane; the home has one owner
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bell.bind(f"/proc/self/fd/{folder}/{self._path.name}")
            self._path.chmod(0o600)
        except OSError:
            bell.close()
            raise
        finally:
            os.close(folder)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(bell, self._drain, bell)
        self._socket = bell

    def _drain(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                bell.recv(RING_BYTES_MAX)
                self._rung.set()

    def close(self) -> None:
        """Take the socket away, if it was bound; also after its loop has ended."""
        if self._socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)
