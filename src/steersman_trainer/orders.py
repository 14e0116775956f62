"""What the control plane asks of a running rank: to stop, and how often to save.

Both come as files in the run's folder. They are looked at no more than every 200 ms, for a training step may
take microseconds; SIGTERM, which is sent after ``stop.json`` was written, cuts that wait short. The signal's
handler only sets a flag. A ``stop.json`` that cannot be read is still a notice; an ``interval.json`` that
cannot be read changes nothing.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from steersman_trainer import names

POLL_SECONDS = 0.2
ORDER_BYTES_MAX = 64 * 1024
INTERVAL_MS_MAX = 10**12
CAUSE_UNKNOWN = "unknown"


class Orders:
    """The orders found in a run's folder; None: there is no control plane and none will come."""

    def __init__(self, run_dir: Path | None, *, interval_ms: int, monotonic: Callable[[], float]) -> None:
        self.interval_ms = interval_ms
        self._run_dir = run_dir
        self._monotonic = monotonic
        self._cause: str | None = None
        self._signalled = False
        self._restore: Callable[[], object] | None = None
        self._polled_at: float | None = None
        self._interval_stamp: tuple[int, int] | None = None
        self._epoch = -1

    def listen(self) -> None:
        """Take SIGTERM as a notice, where the interpreter allows it: in the main thread."""
        if self._run_dir is None or threading.current_thread() is not threading.main_thread():
            return
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        # None: the handler was not set from Python and cannot be put back.
        self._restore = lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

        # To a forked worker SIGTERM means what it meant before, or a pool that ends its workers with it waits
        # for ever. Not left to the handler: one written in Python does not run while a worker is in C code.
        os.register_at_fork(after_in_child=self.unlisten)

    def unlisten(self) -> None:
        """Give SIGTERM back to whom it belonged before."""
        if self._restore is not None:
            self._restore()
            self._restore = None

    def ignore(self) -> None:
        """From here on SIGTERM does nothing to this process, not even while the interpreter shuts down.

        A handler written in Python would not do: the interpreter puts the default back early in its exit.
        """
        if self._restore is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @property
    def notice(self) -> str | None:
        """Why a stop is asked for, or None."""
        self.look()
        return self._cause

    def look(self) -> None:
        """Read what is new, if it is time to."""
        if self._run_dir is None or self._cause is not None:
            return
        now = self._monotonic()
        if self._polled_at is not None and now - self._polled_at < POLL_SECONDS and not self._signalled:
            return
        self._polled_at = now
        self._look_for_stop(self._run_dir / names.STOP)
        self._look_for_interval(self._run_dir / names.INTERVAL)

    def _on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True

    def _look_for_stop(self, path: Path) -> None:
        if os.path.lexists(path):
            cause = _read_object(path).get("cause")
            self._cause = cause if isinstance(cause, str) and cause else CAUSE_UNKNOWN
        elif self._signalled:
            self._cause = "sigterm"

    def _look_for_interval(self, path: Path) -> None:
        try:
            found = path.stat()
        except OSError:
            return
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._interval_stamp:
            return
        self._interval_stamp = stamp
        order = _read_object(path)
        interval, epoch = order.get("interval_ms"), order.get("epoch")
        if (
            type(interval) is int
            and type(epoch) is int
            and epoch >= self._epoch
            and 0 <= interval <= INTERVAL_MS_MAX
        ):
            self.interval_ms, self._epoch = interval, epoch


def _read_object(path: Path) -> dict[str, Any]:
    """A small JSON object, or an empty one when there is none to be read."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(ORDER_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
