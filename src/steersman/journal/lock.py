"""One control plane per home: an flock held for the life of the process.

The lock is on a file of its own, for SQLite's locks are POSIX locks, which a process loses by closing any
descriptor of the file. The file holds the owner's pid for the message to whoever comes second; the pid
decides nothing, so a file left by a dead process never blocks. The kernel drops the lock with the process,
and the descriptor is closed on exec, so no child keeps it.
"""

import fcntl
import os
import time
from pathlib import Path

from steersman.model.errors import HomeError, JournalLocked

LOCK_NAME = "journal.lock"
LOCK_TRIES = 20
LOCK_RETRY_SECONDS = 0.02
"""Together 0.4 s: for a predecessor that is just ending, and for an owner that has not written its pid."""


class HomeLock:
    """The right to write to a home."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> "HomeLock":
        """Take the lock, or raise JournalLocked with the owner's pid, or HomeError."""
        path = folder / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(
                f"cannot write to the home {folder}: {error.strerror}",
                hint="check who owns it and its mode, or choose another with --home",
            ) from error
        if not _try_lock(descriptor):
            owner = _read_pid(descriptor)
            os.close(descriptor)
            raise JournalLocked(
                f"another control plane ({owner}) owns the home {folder}",
                hint="use the one that runs, end that process, or choose another home with --home",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock up. The file stays: removing it would let two owners lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            return True
    return False


def _read_pid(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return f"pid {text}" if text else "pid unknown"
