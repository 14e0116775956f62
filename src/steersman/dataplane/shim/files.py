"""Files as the shim reads and writes them: whole, durable, and tolerant of what is not there.

The driver has its own writer with the same rule (temporary name, fsync, rename, fsync of the folder): the
shim must run from the standard library alone, in a fresh interpreter, with little memory.
"""

# ruff: noqa: PTH104, PTH108, PTH120, PTH123 - pathlib costs every shim 3 ms and 0.5 MB

import _socket  # `socket` itself would load selectors and enums into every shim (0.4 MB each)
import contextlib
import fcntl
import json
import os
import time
from typing import Any

from steersman.ports import run_dir

JSON_BYTES_MAX = 16 * 1024 * 1024
LOCK_TRIES_MAX = 40
LOCK_RETRY_SECONDS = 0.025


def now_ms() -> int:
    """Wall-clock milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a JSON object durably and whole. Raises OSError; the old file is then still there."""
    temporary = f"{path}.{os.getpid()}.tmp"
    data = json.dumps(value, separators=(",", ":")).encode()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str) -> dict[str, Any] | None:
    """A JSON object, or None when it is absent or is no such object."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(JSON_BYTES_MAX))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def take_lock(path: str) -> int | None:
    """The descriptor of the lock, held for as long as it stays open; None when another shim holds it.

    A reader that probes the lock holds it for an instant, so one refusal is not yet proof of a holder.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES_MAX):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            return descriptor
    os.close(descriptor)
    return None


def ring(home: str) -> None:
    """Tell the control plane, if one listens, to observe again. Failure is harmless: it also polls.

    The socket is addressed through its folder's descriptor, for a socket's path may hold 108 bytes only.
    """
    with contextlib.suppress(OSError):
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bell = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
            try:
                bell.sendto(b"!", f"/proc/self/fd/{folder}/{run_dir.DOORBELL}")
            finally:
                bell.close()
        finally:
            os.close(folder)
