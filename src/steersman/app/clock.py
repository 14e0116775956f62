"""Time for the shell: the system's clock, held monotone within the process."""

import asyncio
import time

_MS = 1_000_000


class SystemClock:
    """Epoch milliseconds that never go back.

    The epoch is read once; from then on time passes with the monotonic clock, and jumps forward when the
    system's clock turns out to be ahead (it was set, or the machine slept). A system clock set back is
    followed by the next process only.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        steady = time.monotonic_ns()
        self._offset_ns = max(self._offset_ns, time.time_ns() - steady)
        return (steady + self._offset_ns) // _MS

    async def sleep_ms(self, duration_ms: int) -> None:
        """Wait at least that long."""
        await asyncio.sleep(duration_ms / 1000)
