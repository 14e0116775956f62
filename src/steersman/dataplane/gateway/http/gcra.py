"""The generic cell rate algorithm: a rate limit that is one number and a little arithmetic.

`tat` is the theoretical arrival time: when the next request would come if all came evenly at the rate. One
that comes earlier than `tat` by more than the tolerance is refused, and told how long to wait; any other
moves `tat` on by one interval. A burst of n needs a tolerance of n − 1 intervals. Times are seconds of a
monotonic clock. A refused request costs nothing, so a caller that waits as told is let in.
"""

from typing import Final

STRIKES_ADDRESSES_MAX: Final = 4_096
"""Addresses whose failed keys are remembered; the one not seen for longest is forgotten first."""


class Gcra:
    """One limit. Changing rate or burst keeps what was already used."""

    __slots__ = ("interval_s", "tat", "tolerance_s")

    def __init__(self, interval_s: float, burst: int) -> None:
        self.tat = 0.0
        self.set(interval_s, burst)

    def set(self, interval_s: float, burst: int) -> None:
        """One request each `interval_s` on average, `burst` of them at once."""
        self.interval_s = interval_s
        self.tolerance_s = interval_s * (max(burst, 1) - 1)

    def take(self, now: float) -> float:
        """0.0 when the request may pass; else the seconds until one may."""
        tat = self.tat if self.tat > now else now
        early = tat - now - self.tolerance_s
        if early > 1e-9:  # rounding must not refuse the last of a burst
            return early
        self.tat = tat + self.interval_s
        return 0.0


class Strikes:
    """Failed keys per address: `per_minute` of them are answered, the next is told to wait.

    It never hinders a right key from the same address, which may be shared.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._addresses: dict[str, Gcra] = {}

    def take(self, address: str, now: float) -> float:
        """0.0 when this failure may be answered as one; else the seconds to wait."""
        bucket = self._addresses.pop(address, None)
        if bucket is None:
            bucket = Gcra(60.0 / self._per_minute, self._per_minute)
            while len(self._addresses) >= STRIKES_ADDRESSES_MAX:
                del self._addresses[next(iter(self._addresses))]
        self._addresses[address] = bucket
        return bucket.take(now)
