"""Deadlines of all live calls under one coarse timer.

Theory: a hashed timing wheel (Varghese, Lauck, SOSP 1987). A call lies in the slot of its deadline, one dict
update to put it there and one to take it away; the timer looks at slots whose time has wholly passed. A call
is found at most SLOT_S and one tick after its deadline, never before it.
"""

from steersman.dataplane.gateway.call import Call

SLOT_S = 0.02
SLOTS_A_TICK_MAX = 1_000
"""After a longer stall of the loop the slots are found among those that are there."""


class Wheel:
    """Calls by deadline."""

    __slots__ = ("_next", "_slots", "live")

    def __init__(self, now: float) -> None:
        self._slots: dict[int, dict[Call, None]] = {}
        self._next = int(now / SLOT_S)
        self.live = 0

    def add(self, call: Call) -> None:
        """Watch a call."""
        slot = self._slot(call)
        calls = self._slots.get(slot)
        if calls is None:
            calls = self._slots[slot] = {}
        calls[call] = None
        self.live += 1

    def remove(self, call: Call) -> None:
        """Watch it no longer. Raises KeyError when it is not watched: then a call was ended twice."""
        slot = self._slot(call)
        calls = self._slots[slot]
        del calls[call]
        self.live -= 1
        if not calls:
            del self._slots[slot]

    def passed(self, now: float) -> list[Call]:
        """Calls whose deadline has passed, by deadline; they stay watched until removed."""
        until = int(now / SLOT_S)
        if until - self._next > SLOTS_A_TICK_MAX:
            slots = sorted(slot for slot in self._slots if slot < until)
        else:
            slots = [slot for slot in range(self._next, until) if slot in self._slots]
        self._next = max(until, self._next)
        found = [call for slot in slots for call in self._slots[slot]]
        return sorted(found, key=_deadline)

    def all(self) -> list[Call]:
        """Every watched call, by deadline."""
        return sorted((call for calls in self._slots.values() for call in calls), key=_deadline)

    def _slot(self, call: Call) -> int:
        return max(int(call.deadline / SLOT_S), 0)


def _deadline(call: Call) -> float:
    return call.deadline
