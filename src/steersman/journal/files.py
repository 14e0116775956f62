"""The few file operations that durability rests on, behind a port, so that a power cut can be simulated.

What the head anchor and the state images promise depends on the order of writes, syncs and renames. Going
through this port puts them under the same simulated disk as SQLite's own files. The database itself is
never opened through it: closing any descriptor of a file drops the POSIX locks that SQLite holds on it.

A rename is durable only after the folder was synced; `write_whole` is the one place that knows.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

FILE_MODE = 0o600


class OpenFile(Protocol):
    """A file being written. Every method raises OSError."""

    def write_at(self, data: bytes, offset: int) -> None: ...

    def sync(self) -> None:
        """Return when the data written so far would survive a power cut."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """File operations. Every method raises OSError."""

    def size(self, path: Path) -> int | None:
        """Bytes in a file, or None when there is no such file."""
        ...

    def read(self, path: Path) -> bytes | None:
        """A whole file, or None when there is no such file."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Sorted names in a folder; empty when there is no such folder."""
        ...

    def open(self, path: Path, *, create: bool) -> OpenFile:
        """Open for writing. `create`: begin empty, whatever was there."""
        ...

    def rename(self, old: Path, new: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def make_folder(self, folder: Path) -> None:
        """Make a folder that only its owner may enter, unless it is there."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder would survive a power cut."""
        ...


class OsFile:
    """An open file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_at(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        # The size of the anchor never changes, and of a new file fdatasync writes the size too.
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class OsFiles:
    """The operating system's files."""

    def size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return []

    def open(self, path: Path, *, create: bool) -> OsFile:
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return OsFile(os.open(path, flags, FILE_MODE))

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(files: Files, path: Path, parts: Sequence[bytes]) -> None:
    """Replace a file by the parts, atomically and durably. On OSError the old file stands."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        file = files.open(temporary, create=True)
        try:
            offset = 0
            for part in parts:
                file.write_at(part, offset)
                offset += len(part)
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # the error that matters is the first
            files.remove(temporary)
        raise
    files.sync_folder(path.parent)
