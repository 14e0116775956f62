"""Bytes into frames, without copying them: one buffer per link that a whole frame always fits in.

A frame's payload is a view of the buffer. It is good until the reader is asked for room again, so whoever
reads more has either finished with the frame or copied what it needs. A header that announces more than the
wire allows ends the link before anything of that size is made room for.
"""

from __future__ import annotations

from steersman.ports import replica_wire as wire

BUFFER_BYTES = 64 * 1024
"""The buffer of a quiet link; a larger frame gets a buffer of its own for as long as it lasts."""


class FrameReader:
    """Room to read into, and whole frames out of it."""

    def __init__(self) -> None:
        self._use(bytearray(BUFFER_BYTES))
        self._start = 0
        self._end = 0

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)

    def room(self) -> memoryview:
        """Where the next bytes go; never empty unless a whole frame waits. Frames given before are void.

        Raises ValueError for a frame that is too long.
        """
        held = self._end - self._start
        need = max(self._wanted(), BUFFER_BYTES)
        if len(self._buffer) != need and held <= need:
            fresh = bytearray(need)
            fresh[:held] = self._view[self._start : self._end]
            self._use(fresh)
        elif self._start:
            self._buffer[:held] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, held
        return self._view[held:]

    def advance(self, count: int) -> None:
        """So many bytes were put into the room."""
        self._end += count

    def whole(self) -> bool:
        """Whether a frame can be taken. Raises ValueError for one that is too long."""
        return self._end - self._start >= self._wanted()

    def _wanted(self) -> int:
        """Bytes of the frame that begins the buffer, or of its header while that is not there."""
        if self._end - self._start < wire.HEADER_BYTES:
            return wire.HEADER_BYTES
        length = int(wire.HEADER.unpack_from(self._buffer, self._start)[0])
        if length > wire.BODY_BYTES_MAX:
            raise ValueError("a frame is longer than the wire allows")
        return wire.HEADER_BYTES + length

    def next(self) -> wire.Frame | None:
        """The next frame, or None until more bytes came. Raises ValueError for bytes that are none."""
        wanted = self._wanted()
        if self._end - self._start < wanted:
            return None
        body = self._start + wire.HEADER_BYTES
        end = self._start + wanted
        try:
            frame = wire.unpack(self._view[self._start : body], self._view[body:end])
        except RecursionError:
            raise ValueError("the meta of a frame is nested too deep") from None
        self._start = end
        if end == self._end:
            self._start = self._end = 0
        return frame
