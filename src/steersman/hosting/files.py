"""Files of a rank's folder, written and locked; the standard library alone, for it is shipped elsewhere.

A JSON file is written whole (temporary name, fsync, rename, fsync of the folder) and read within a limit.
The flock rules: the `fence` of a rank is held while an epoch is checked and acted on; the `lock` belongs to
the shim, and a probe of it lets go at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steersman.model.errors import DriverError
from steersman.ports import run_dir

JSON_BYTES_MAX = 16 * 1024 * 1024
DIR_MODE = 0o700


def write_json(path: Path, value: Any) -> None:
    """Write a file of plain values durably and whole. Raises OSError; the old file is then still there."""
    write_bytes(path, json.dumps(value, separators=(",", ":")).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file durably and whole. Raises OSError; the old file is then still there."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes | None:
    """A small file whole, or None when it is not there. Raises DriverError when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DriverError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > JSON_BYTES_MAX:
        raise DriverError(f"{path} is larger than {JSON_BYTES_MAX} bytes")
    return data


def recorded_epoch(folder: Path) -> int:
    """The highest epoch a rank has accepted; 0 when it has seen none. Raises DriverError when damaged."""
    data = read_bytes(folder / run_dir.EPOCH)
    if data is None:
        return 0
    try:
        return int(json.loads(data)["epoch"])
    except (ValueError, TypeError, KeyError) as error:
        raise DriverError(f"{folder / run_dir.EPOCH} is damaged: {error}") from error


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for another holder, who holds it for one order at most."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def shim_lives(folder: Path) -> bool:
    """Whether a shim holds the rank's lock. Raises OSError other than "not there"."""
    try:
        descriptor = os.open(folder / run_dir.LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
