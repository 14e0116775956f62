"""An event loop whose time jumps: when nothing is left to do now, it is the next instant at once.

Theory of operation. An asyncio loop that has nothing ready asks its selector to wait until its next timer.
Here the selector does not wait but moves the loop's time on. So an instant ends exactly when everything that
can happen in it has happened, however much that is, and idle months cost nothing. Where nothing waits for any
time, nothing can ever happen again: that is an error, not a rest.
"""

import asyncio
import selectors

from steersman.model.errors import SteersmanError


class _Jump(selectors.SelectSelector):
    """Waits by moving time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise SteersmanError("the simulated world has come to a stop", hint="report this; it is a bug")
        self.now_s += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` is virtual, in seconds from 0. One thread only: hand it an executor that works inline."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now_s


class LoopClock:
    """Implements `ports.clock.Clock` over the running VirtualLoop, which began at `start_ms`."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._loop = asyncio.get_running_loop()

    def now_ms(self) -> int:
        """Milliseconds since the epoch of this world."""
        return self._start_ms + round(self._loop.time() * 1000)

    async def sleep_ms(self, duration_ms: int) -> None:
        """Return after so long; nothing or less only gives others a turn."""
        await asyncio.sleep(max(duration_ms, 0) / 1000)

    async def until_ms(self, at_ms: int) -> None:
        """Return at that instant, or at once when it is past."""
        await self.sleep_ms(at_ms - self.now_ms())
