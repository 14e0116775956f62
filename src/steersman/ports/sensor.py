"""What watches the world and says what the journal does not know yet."""

from typing import Protocol

import msgspec

from steersman.model.events import Event, Signal
from steersman.model.snapshot import Snapshot
from steersman.ports.driver import RankReport


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the world gave.

    `events` are facts the snapshot lacks, in the order in which they happened. `reports` are all outside
    objects of `driver` that were seen, for the sweep; None when the sensor cannot see objects. `signals` are
    those that left their dead band: the next cycle records them with its time.
    """

    events: tuple[Event, ...]
    driver: str = ""
    reports: tuple[RankReport, ...] | None = None
    signals: tuple[Signal, ...] = ()


class Sensor(Protocol):
    """World → events. Level-triggered: what is not in the snapshot is said again until it is.

    Contract: `observe` changes nothing and may be called at any time; a fact that the snapshot already holds
    is not said. It raises DriverError when it cannot see; that means unknown, never gone.
    """

    @property
    def name(self) -> str:
        """What it is called in reports of its failures."""
        ...

    async def observe(self, snapshot: Snapshot) -> Observation: ...

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when there may be something new, or after the timeout."""
        ...
