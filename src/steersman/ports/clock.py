"""Time, as the shell sees it. The core never does: its time is `snapshot.now_ms`."""

from typing import Protocol


class Clock(Protocol):
    """A clock and a way to wait on it."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch; never goes back within one process."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Return after at least that long. Cancellable."""
        ...
