"""The program's output on disk, bounded.

Everything is kept in the order it came. A file ends at the first line end past its limit and is rotated
(``out.log`` → ``out.log.1`` → …); the oldest is dropped. A line without an end is broken at its limit,
so that no reader needs more memory than that. When the disk refuses, output is dropped and counted, the
pipe is still drained, and the count is written once there is room: a full disk must never block a job.
"""

# ruff: noqa: PTH105 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import os

LOG_FILE_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_MAX = 4
LOG_LINE_BYTES_MAX = 64 * 1024


class LogWriter:
    """Appends to `path`; limits in bytes and files may be given for tests."""

    def __init__(
        self, path: str, *, file_bytes_max: int = LOG_FILE_BYTES_MAX, line_bytes_max: int = LOG_LINE_BYTES_MAX
    ) -> None:
        self._path = path
        self._file_bytes_max = file_bytes_max
        self._line_bytes_max = line_bytes_max
        self._column = 0
        self._lost_bytes = 0
        self._descriptor = -1
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Store output as it comes."""
        while data:
            end = len(data)
            if self._size >= self._file_bytes_max or self._column + end > self._line_bytes_max:
                end = self._line_end(data)
            piece, data = data[:end], data[end:]
            newline = piece.rfind(b"\n")
            self._column = self._column + end if newline < 0 else end - newline - 1
            if self._column >= self._line_bytes_max:
                piece, self._column = piece + b"\n", 0
            self._write(piece)
            if self._column == 0 and self._size >= self._file_bytes_max:
                self._rotate()

    def _line_end(self, data: bytes) -> int:
        """How much of the data belongs to the line that is open."""
        room = self._line_bytes_max - self._column
        newline = data.find(b"\n", 0, room)
        return newline + 1 if newline >= 0 else min(room, len(data))

    def _write(self, piece: bytes) -> None:
        try:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._descriptor).st_size
            if self._lost_bytes:
                self._put(f"\n[steersman: {self._lost_bytes} bytes of output lost, no room]\n".encode())
                self._lost_bytes = 0
            self._put(piece)
        except OSError:
            self._lost_bytes += len(piece)

    def _put(self, data: bytes) -> None:
        while data:
            written = os.write(self._descriptor, data)
            self._size += written
            data = data[written:]

    def _rotate(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            for number in range(LOG_FILES_MAX - 1, 0, -1):
                older = f"{self._path}.{number}"
                newer = f"{self._path}.{number - 1}" if number > 1 else self._path
                if os.path.lexists(newer):
                    os.replace(newer, older)

    def close(self) -> None:
        """Close the file; a later `feed` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._size = 0
