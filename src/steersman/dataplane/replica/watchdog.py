"""The end of a model that hangs: SIGALRM at its default disposition.

A stuck native call may hold the interpreter's lock for ever, so nothing written in Python could end it. The
kernel's timer can: `arm` before, `disarm` after. `faulthandler` stands in front of the default action and
writes, from its handler in C, where in the user's code the process was stuck. A model may set a handler of
its own while it loads, so `prepare` is called again after that.

In an event loop many batches are under way, so there the alarm guards the loop itself: a heartbeat puts it
off, and a callable that blocks the loop stops the heart.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal

BEATS = 4
"""Heartbeats per time limit; a loop that is blocked is ended between 1 and 1 + 1/BEATS limits."""


def prepare() -> None:
    """Make SIGALRM end the process, with a trace on stderr first."""
    faulthandler.unregister(signal.SIGALRM)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


def arm(seconds: float) -> None:
    """End the process unless `disarm` or `arm` is called in time."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def disarm() -> None:
    """Nothing is under way."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def expire() -> None:
    """End the process now, in the same way."""
    signal.raise_signal(signal.SIGALRM)


class Heartbeat:
    """The alarm of an event loop. It beats only while something is under way."""

    def __init__(self, limit_seconds: float) -> None:
        self._beat_seconds = limit_seconds / BEATS
        self._alarm_seconds = limit_seconds + self._beat_seconds
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on, if it does not yet."""
        if self._next is None:
            self._beat()

    def _beat(self) -> None:
        arm(self._alarm_seconds)
        self._next = asyncio.get_running_loop().call_later(self._beat_seconds, self._beat)

    def stop(self) -> None:
        """Rest."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
            disarm()
