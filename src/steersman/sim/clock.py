"""Time that passes only when it is told to.

Sleepers wake in the order of their deadlines, each at its own instant, and what they do there (sleep again,
for instance) happens before time moves on. So a run of many tasks over hours is one order of events, always.
"""

import asyncio
import heapq

SETTLE_TURNS = 32
"""Turns of the event loop given to what was woken before time moves on."""


class VirtualClock:
    """Implements `ports.clock.Clock`."""

    def __init__(self, start_ms: int = 0) -> None:
        self._now_ms = start_ms
        self._count = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since the epoch of this world."""
        return self._now_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        """Wait until time has been advanced that far; nothing or less only gives others a turn."""
        if duration_ms <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now_ms + duration_ms, self._count, woken))
        await woken

    def next_wake_ms(self) -> int | None:
        """When the next sleeper wakes; None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # cancelled
        return self._sleepers[0][0] if self._sleepers else None

    async def advance(self, duration_ms: int) -> None:
        """Let that much time pass, waking each sleeper at its instant."""
        end_ms = self._now_ms + duration_ms
        await _settle()
        while (wake_ms := self.next_wake_ms()) is not None and wake_ms <= end_ms:
            self._now_ms = wake_ms
            while self.next_wake_ms() == wake_ms:
                heapq.heappop(self._sleepers)[2].set_result(None)
            await _settle()
        self._now_ms = end_ms
        await _settle()


async def _settle() -> None:
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
