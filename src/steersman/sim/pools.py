"""A simulated fleet whose spot pools come and go by a record, with notice or without, at changing prices.

Theory of operation. A record is what a zone's trace is (`replay.spot_zones.Zone`): ticks in which there was
capacity or not. At the end of an up time everything on the pool's nodes is lost, at that instant; `notice_ms`
before it a notice is given, if that is above 0. `SimPools` is both the world, which takes machines away from
the `SimDriver` as time passes (`run`), and a Sensor, which says of each node what the snapshot does not know.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from steersman.model.events import Event, InterruptionNotice, NodeHealth, PriceObserved
from steersman.model.fleet import Node
from steersman.model.snapshot import NodeState, Snapshot
from steersman.ports.clock import Clock
from steersman.ports.sensor import Observation
from steersman.sim.driver import SimDriver


class PoolRecord(NamedTuple):
    """When a pool was there: one byte a tick from `begin_ms` on; after the record it is as in its last tick.

    `prices`: (from when on, micro-USD an hour or None), in order of time.
    """

    begin_ms: int
    tick_ms: int
    up: bytes
    prices: tuple[tuple[int, int | None], ...] = ()

    def is_up(self, at_ms: int) -> bool:
        """Whether capacity is there."""
        tick = (at_ms - self.begin_ms) // self.tick_ms
        return bool(self.up[min(max(tick, 0), len(self.up) - 1)])

    def turns(self) -> Iterator[tuple[int, bool]]:
        """When it comes and goes, in order."""
        for tick in range(1, len(self.up)):
            if self.up[tick] != self.up[tick - 1]:
                yield self.begin_ms + tick * self.tick_ms, bool(self.up[tick])

    def goes_ms(self, at_ms: int) -> int | None:
        """When the present up time ends; None: never, or it is not up."""
        if not self.is_up(at_ms):
            return None
        return next((turn for turn, is_up in self.turns() if turn > at_ms and not is_up), None)


def drawn(seed: str, begin_ms: int, tick_ms: int, mean_ticks: tuple[int, int], ticks: int) -> PoolRecord:
    """A record of up and down times of these mean lengths, geometric, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - a seed, not a secret
    up, state = bytearray(), chance.random() < mean_ticks[0] / sum(mean_ticks)
    for _ in range(ticks):
        up.append(state)
        state ^= chance.random() < 1 / mean_ticks[0 if state else 1]
    return PoolRecord(begin_ms, tick_ms, bytes(up))


class SimPools:
    """The pools of a simulated fleet: world and Sensor. Nodes of a pool without a record are always there."""

    def __init__(
        self, clock: Clock, driver: SimDriver, nodes: Sequence[Node], records: Mapping[str, PoolRecord]
    ) -> None:
        self._clock = clock
        self._driver = driver
        self._nodes = {node.id: node for node in nodes if node.pool in records}
        self._records = dict(records)
        self.notice_ms = 0

    @property
    def name(self) -> str:
        return "pools"

    async def run(self) -> None:
        """Take machines away when their time is over, for ever."""
        while True:
            await self._clock.sleep_ms(self._until_next())
            for node in self._nodes.values():
                if not self._records[node.pool].is_up(self._clock.now_ms()):
                    self._driver.lose_node(node.id)

    async def observe(self, snapshot: Snapshot) -> Observation:
        """Health, notices and prices that the snapshot does not know."""
        now_ms = self._clock.now_ms()
        events: list[Event] = []
        for pool in snapshot.pools:
            record = self._records.get(pool.name)
            known = [price for at_ms, price in record.prices if at_ms <= now_ms] if record else []
            if known and known[-1] != pool.price_usd_micro_per_hour:
                events.append(PriceObserved(pool=pool.name, at_ms=now_ms, price_usd_micro_per_hour=known[-1]))
        for name, node in sorted(self._nodes.items()):
            state = snapshot.nodes.get(name)
            if state is not None:
                events += self._news(state, self._records[node.pool], now_ms)
        return Observation(events=tuple(events))

    def _news(self, state: NodeState, record: PoolRecord, now_ms: int) -> Iterator[Event]:
        name, goes_ms = state.node.id, record.goes_ms(now_ms)
        if not record.is_up(now_ms):
            if state.health != "dead":
                yield NodeHealth(node=name, health="dead")
        elif goes_ms is not None and goes_ms - now_ms <= self.notice_ms:
            if state.goes_ms != goes_ms:
                yield InterruptionNotice(node=name, at_ms=now_ms, ends_ms=goes_ms)
        elif state.health != "alive":
            yield NodeHealth(node=name, health="alive")

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when a pool comes, goes or is about to, or after the timeout."""
        await self._clock.sleep_ms(min(timeout_ms, self._until_next()))
        await asyncio.sleep(0)

    def _until_next(self) -> int:
        now_ms = self._clock.now_ms()
        turns = [
            at_ms
            for record in self._records.values()
            for turn, is_up in record.turns()
            for at_ms in ((turn,) if is_up else (turn, turn - self.notice_ms))
            if at_ms > now_ms
        ]
        return min(turns, default=now_ms + 86_400_000) - now_ms
