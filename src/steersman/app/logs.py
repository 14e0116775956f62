"""Reading a rank's output in pieces, across rotation.

Theory of operation. The shim appends to ``out.log`` and renames it to ``out.log.1`` … when it is full. A
place in the output is therefore a file and a byte in it, and a file keeps its inode when it is renamed. So a
place is written ``<inode>:<byte>``: the reader finds the file wherever it has moved, and goes on into the
newer ones. When the file is gone its bytes were rotated away: reading goes on with the oldest there is, and
says so. A piece ends before a character that is not whole yet.
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from steersman.app.wire import LOG_CHUNK_BYTES
from steersman.model.errors import ConflictError
from steersman.ports import run_dir

ROTATED_MAX = 16
"""The most rotated files that are looked for."""
UTF8_BYTES_MAX = 4
TAIL_BYTES = 8 * 1024
"""How much of a log's end is looked at for its last line."""
LINE_CHARS_MAX = 500

_PLACE = re.compile(r"([0-9]{1,20}):([0-9]{1,18})")


class Piece(NamedTuple):
    """Some output, the place after it, whether output was lost before it, whether that is all there is."""

    text: str
    next_place: str
    lost: bool
    end: bool


class _Log(NamedTuple):
    inode: int
    size: int
    file: BinaryIO


def read_log(rank_folder: Path, place: str, bytes_max: int = LOG_CHUNK_BYTES) -> Piece:
    """A piece of output from a place on; an empty place is the beginning of what is kept.

    Raises ConflictError for a text that is no place.
    """
    wanted = _parse_place(place)
    with contextlib.ExitStack() as stack:
        logs = _open_logs(rank_folder / run_dir.LOGS, stack)
        if not logs:
            return Piece("", place, lost=False, end=True)
        return _read(logs, wanted, bytes_max)


def last_line(rank_folder: Path) -> str:
    """The last line of a rank's output that is not blank, cut to LINE_CHARS_MAX; empty when there is none."""
    with contextlib.ExitStack() as stack:
        for log in reversed(_open_logs(rank_folder / run_dir.LOGS, stack)):
            log.file.seek(max(log.size - TAIL_BYTES, 0))
            text = log.file.read(TAIL_BYTES).decode("utf-8", "replace")
            last = next((line for line in map(str.strip, reversed(text.splitlines())) if line), "")
            if last:
                return last if len(last) <= LINE_CHARS_MAX else last[: LINE_CHARS_MAX - 1] + "…"
    return ""


def runs_of(home: Path, name: str) -> list[str]:
    """The runs of a workload that have a folder, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in (home / run_dir.RUNS).iterdir():
            workload, _, position = folder.name.rpartition(".")
            if workload == name and position.isdecimal():
                found.append((int(position), folder.name))
    return [run for _, run in sorted(found)]


def runs_of_replicas(home: Path, service: str) -> list[str]:
    """The runs of a service's replicas that have a folder: oldest replica first, and of each oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in (home / run_dir.RUNS).iterdir():
            replica, _, position = folder.name.rpartition(".")
            owner, _, number = replica.rpartition(".")
            if owner == service and number.isdecimal() and position.isdecimal():
                found.append((int(number), int(position), folder.name))
    return [run for _, _, run in sorted(found)]


def _parse_place(place: str) -> tuple[int, int] | None:
    if place in {"", "0"}:
        return None
    match = _PLACE.fullmatch(place)
    if match is None:
        raise ConflictError(
            f"{place[:40]!r} is not a place in a log",
            hint="use the `next_offset` of an answer, or leave it out",
            code="bad-offset",
        )
    return int(match.group(1)), int(match.group(2))


def _open_logs(folder: Path, stack: contextlib.ExitStack) -> list[_Log]:
    """All files, oldest first. Opened newest first, so that a rotation meanwhile shows one twice at most."""
    logs: dict[int, _Log] = {}
    names = [run_dir.LOG_FILE, *(f"{run_dir.LOG_FILE}.{number}" for number in range(1, ROTATED_MAX + 1))]
    for name in names:
        try:
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            if name == run_dir.LOG_FILE:
                continue  # between a rotation and the next line there is no newest file
            break
        file = stack.enter_context(os.fdopen(descriptor, "rb"))
        status = os.fstat(descriptor)
        logs.setdefault(status.st_ino, _Log(status.st_ino, status.st_size, file))
    return list(reversed(logs.values()))


def _read(logs: Sequence[_Log], wanted: tuple[int, int] | None, bytes_max: int) -> Piece:
    at, offset, lost = 0, 0, False
    if wanted is not None:
        found = [index for index, log in enumerate(logs) if log.inode == wanted[0]]
        if found and wanted[1] <= logs[found[0]].size:
            at, offset = found[0], wanted[1]
        else:
            lost = True
    while offset >= logs[at].size and at + 1 < len(logs):
        at, offset = at + 1, 0
    log = logs[at]
    log.file.seek(offset)
    data = log.file.read(bytes_max)
    newest = at + 1 == len(logs)
    reached = offset + len(data) >= log.size
    if not (reached and not newest):
        data = _whole(data)
    place = f"{log.inode}:{offset + len(data)}"
    return Piece(data.decode("utf-8", "replace"), place, lost, end=newest and reached)


def _whole(data: bytes) -> bytes:
    """The data without a character at its end whose rest is still to come."""
    for back in range(1, min(UTF8_BYTES_MAX, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return data[:-back] if length > back else data
    return data
