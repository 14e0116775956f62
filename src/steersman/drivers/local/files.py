"""Files in a home as the driver reads and writes them.

A JSON file is written whole (temporary name, fsync, rename, fsync of the folder) and read within a limit.
Unknown fields are tolerated: shims of an older or newer version write some of these. The flock rules: the
`fence` of a rank is held while an epoch is checked and acted on; the `lock` belongs to the shim, and a probe
of it lets go at once.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from steersman.model.errors import DriverError
from steersman.ports import run_dir
from steersman.ports.driver import ArtifactReport

JSON_BYTES_MAX = 16 * 1024 * 1024
DIR_MODE = 0o700


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    epoch: int


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """``started.json`` as the driver needs it."""

    pid: int
    at_ms: int
    limits: str
    phase: str


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """``exit.json``. `cause` is checked against the report's own list when it is copied there."""

    exit_code: int | None
    signal: int | None
    cause: str
    detail: str
    at_ms: int
    stop_delivered: bool
    artifacts: tuple[ArtifactReport, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """``progress.json``."""

    step: int = 0
    metrics: dict[str, float] = {}
    completed: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """``ready.json`` of a replica."""

    at_ms: int
    load_ms: int = 0
    address: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json`` of a checkpoint."""

    step: int
    at_ms: int
    save_ms: int
    run: str


T = TypeVar("T")


def write_json(path: Path, value: Any) -> None:
    """Write a file durably and whole. Raises OSError; the old file is then still there."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(value))
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


def read(path: Path, kind: type[T]) -> T | None:
    """The file's content, or None when it is not there. Raises DriverError when it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DriverError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > JSON_BYTES_MAX:
        raise DriverError(f"{path} is larger than {JSON_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DriverError(f"{path} is damaged: {error}") from error


def recorded_epoch(folder: Path) -> int:
    """The highest epoch a rank has accepted; 0 when it has seen none."""
    seen = read(folder / run_dir.EPOCH, Epoch)
    return 0 if seen is None else seen.epoch


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
