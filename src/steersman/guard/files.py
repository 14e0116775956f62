"""Files that only their owner may read, written whole.

Theory of operation. A reader sees the old bytes or the new ones, never half: new bytes go to a temporary
file in the same folder, are synced, and take the name by a rename that is synced too. A name that must be
made only once (a key, a token) is made by a hard link, which fails when the name exists: of two processes
that begin at the same moment one wins and both then read the same bytes.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from steersman.model.errors import AccessError, HomeError

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's bytes at once and durably. Raises HomeError."""
    with _refused(path), _temporary(path, data) as temporary:
        temporary.rename(path)
        _sync_folder(path.parent)


def create_once(path: Path, data: bytes) -> bool:
    """Make a file that does not exist, whole and durable; False when it was there. Raises HomeError."""
    with _refused(path), _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
        return True


def read_private(path: Path, bytes_max: int) -> bytes | None:
    """The bytes of a file that only its owner may read; None when there is none.

    Raises AccessError when others could read or have written it, HomeError when it cannot be read.
    """
    with _refused(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            _require_private(path, os.fstat(descriptor))
            data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise AccessError(f"{path} is larger than the {bytes_max} bytes it may have")
    return data


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AccessError(f"{path} is not a file", hint="remove it")
    if status.st_uid != os.geteuid():
        raise AccessError(f"{path} belongs to another user", hint="use a home of your own")
    if status.st_mode & 0o077:
        raise AccessError(
            f"{path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 600 {path}, and replace what it holds if others may have read it",
        )


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A synced file beside `path` with these bytes; gone afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(
            f"cannot use {path}: {error.strerror or error}",
            hint="check the disk, and who owns the home folder and its mode",
        ) from error
