"""``server.json``: where a home's control plane listens, and whether it is still that process.

Theory of operation. The file names a process by pid, start time and boot, so that a file left behind by a
dead server never leads a client, and its token, to whatever took the port since: a process that lives still
holds its port. The file decides nothing; the journal's lock does.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from steersman.app.machine import boot_id, process_start
from steersman.guard.files import read_private, write_whole

FILE_BYTES_MAX = 4_096


class ServerFile(msgspec.Struct, frozen=True, kw_only=True):
    """A control plane that took a home. `pid_start` is in clock ticks since boot."""

    pid: int
    pid_start: int
    boot_id: str
    port: int
    epoch: int


def describe_server(port: int, epoch: int) -> ServerFile:
    """This process as a server."""
    pid = os.getpid()
    return ServerFile(pid=pid, pid_start=process_start(pid) or 0, boot_id=boot_id(), port=port, epoch=epoch)


def write_server(path: Path, server: ServerFile) -> None:
    """Say where the server listens. Raises HomeError."""
    write_whole(path, msgspec.json.encode(server))


def running_server(path: Path) -> ServerFile | None:
    """The server that the file names, if that very process still lives. Raises AccessError, HomeError."""
    data = read_private(path, FILE_BYTES_MAX)
    if data is None:
        return None
    try:
        server = msgspec.json.decode(data, type=ServerFile)
    except msgspec.DecodeError:
        return None
    alive = server.boot_id == boot_id() and process_start(server.pid) == server.pid_start
    return server if alive else None


def remove_server(path: Path, server: ServerFile) -> None:
    """Take the file away if it is still this server's."""
    if running_server(path) == server:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
