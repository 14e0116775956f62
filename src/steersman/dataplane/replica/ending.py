"""Being told to end, as a descriptor that becomes readable.

A signal's handler in Python runs between two steps of the interpreter, and one that comes just before a call
that waits would be handled only when the wait is over, which may be never. So the numbers are written from C
as they come (`signal.set_wakeup_fd`). The handlers in Python write them as well, for a model that has set a
descriptor of its own, or taken this one away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Any

NUMBERS = (signal.SIGTERM, signal.SIGINT)
READ_BYTES = 4096


class Ending:
    """SIGTERM and SIGINT from now on, in the main thread."""

    def __init__(self) -> None:
        # Never closed: a signal may come at the very end, and its handler wants a place to write to.
        self._wake, self._asked = (handle.detach() for handle in socket.socketpair())
        for descriptor in (self._wake, self._asked):
            os.set_blocking(descriptor, False)
        for number in NUMBERS:
            signal.signal(number, self._write)
        signal.set_wakeup_fd(self._asked, warn_on_full_buffer=False)

    def _write(self, number: int, _frame: Any) -> None:
        with contextlib.suppress(BlockingIOError):  # thousands are there already
            os.write(self._asked, bytes((number,)))

    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._wake

    def asked(self) -> bool:
        """Whether one that came was to end; the model may handle others."""
        return any(number in NUMBERS for number in os.read(self._wake, READ_BYTES))
