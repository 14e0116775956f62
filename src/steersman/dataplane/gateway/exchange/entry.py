"""One service in this gateway: its configuration, its replicas, its pools, and who waits for the first one.

Theory. Replicas of all revisions whose signatures are equal share one pool. When revisions differ in
signature there are several, and new requests go to them in proportion to their ready replicas (smooth
weighted round robin: no bursts, no chance). A pool whose last replica goes hands its waiting calls to another
one, which reads their bodies anew; with no other they wait up to `hold_ms` for a replica to come, and so do
requests that come while there is none at all. Waiting requests, held ones included, are counted on the meter
of revision 0, and that count is what `queued_max` bounds.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.exchange.dial import Target
from steersman.dataplane.gateway.exchange.link import CREDITS_MAX, Link, read_hello, signature_of
from steersman.dataplane.gateway.exchange.meter import Meter
from steersman.dataplane.gateway.exchange.pool import Pool, give_up
from steersman.dataplane.gateway.exchange.secure import Secure
from steersman.dataplane.gateway.exchange.wheel import Wheel
from steersman.dataplane.gateway.signature import Signature
from steersman.ports.gateway import ModelStats, ReplicaTarget, ServiceConfig
from steersman.ports.replica_wire import Frame

KEPT_S = 10.0
"""So long the figures of a revision that is gone are shown, for the last of them to be read, and what a pool
without replicas has learnt is kept."""
RETRY_S = 1.0
"""What a caller is told to wait before it asks again for a service without a replica."""

MakeCodec = Callable[[Signature, ServiceConfig], Any]
Reread = Callable[[Call, Pool], Answer | None]
Waiter = Callable[[Pool | None], None]


class Held:
    """A request that waits for the first replica."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter) -> None:
        self.waiter: Waiter | None = waiter


class Hooks:
    """What the front gives: how to make a codec, how to read a call's body again, and who this gateway is to
    replicas on other machines."""

    __slots__ = ("make_codec", "reread", "secure")

    def __init__(self, make_codec: MakeCodec, secure: Secure) -> None:
        self.make_codec, self.secure = make_codec, secure
        self.reread: Reread | None = None


class Entry:
    """See the module."""

    __slots__ = (
        "_gone",
        "_held",
        "_held_until",
        "_hooks",
        "_leaving",
        "_meters",
        "_number",
        "_pools",
        "_ready",
        "_shares",
        "_targets",
        "config",
        "keyed",
        "loop",
        "waiting",
        "wheel",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, config: ServiceConfig, hooks: Hooks) -> None:
        self.loop, self.config, self._hooks = loop, config, hooks
        now = loop.time()
        self.wheel = Wheel(now)
        self.keyed = False
        self._number = 0
        self._held: deque[Held] = deque()
        self._held_until: list[tuple[float, int, Held]] = []
        self._targets: dict[tuple[int, ReplicaTarget], Target] = {}
        self._leaving: list[Target] = []  # out of the configuration, still connected
        self._pools: dict[Signature, Pool] = {}
        self._ready: list[Pool] = []
        self._shares: dict[Pool, int] = {}
        self.waiting = Meter(config.name, 0, now)
        self._meters: dict[int, Meter] = {0: self.waiting}
        self._gone: dict[int, float] = {}

    # for the front

    def pool(self) -> Pool | None:
        """The pool for a new request; None while no replica is ready."""
        ready = self._ready
        if len(ready) == 1:
            return ready[0]
        return self._turn() if ready else None

    def ready(self) -> bool:
        """Whether any replica takes batches now."""
        return bool(self._ready)

    def hold(self, waiter: Waiter, deadline: float) -> Answer | None:
        """Have a request wait for the first replica: `waiter` is called exactly once, later, with its pool or
        with None when none came within `hold_ms` or by the deadline (counted as ``no-replica``). An answer
        refuses it at once, and `waiter` is not called. Held requests are let go in the order they came."""
        now = self.loop.time()
        hold_s = self.config.hold_ms / 1000
        if hold_s <= 0 and not self._ready:
            self.waiting.count("no-replica")
            return Answer("no-replica", error="no replica is ready", retry_after_s=RETRY_S)
        if self.waiting.queued >= self.config.limits.queued_max:
            self.waiting.count("queue-full")
            error = f"{self.waiting.queued} requests wait already"
            return Answer("queue-full", error=error, retry_after_s=RETRY_S)
        self._number += 1
        held = Held(waiter)
        self._held.append(held)
        heappush(self._held_until, (min(deadline, now + hold_s), self._number, held))
        self.waiting.change(1, 1, now)
        if self._ready:
            self.loop.call_soon(self._release)
        return None

    def problems(self) -> tuple[str, ...]:
        """Why configured replicas are not connected, where this side knows: it closed the connection."""
        return tuple(target.problem for target in self._targets.values() if target.problem)

    # for the exchange

    def configure(self, config: ServiceConfig, keyed: bool) -> None:
        """Obey this configuration. Replicas that left it finish what is under way and are closed."""
        changed = (config.limits, config.inputs) != (self.config.limits, self.config.inputs)
        slower = config.slo_latency_ms != self.config.slo_latency_ms
        self.config, self.keyed = config, keyed
        wanted = {(each.revision, replica) for each in config.revisions for replica in each.replicas}
        for key in [key for key in self._targets if key not in wanted]:
            self._retire(self._targets.pop(key))
        now = self.loop.time()
        for revision, replica in sorted(wanted - self._targets.keys(), key=_order):
            target = self._targets[revision, replica] = Target(self, revision, replica, self._hooks.secure)
            target.tick(self.loop, now)
        for pool in self._pools.values():
            if changed:
                pool.codec = self._hooks.make_codec(pool.signature, config)
            if changed or slower:
                pool.configure()
        for each in config.revisions:
            self._meter(each.revision)
        self._settle()

    def tick(self, now: float) -> None:
        """Everything that time does: connect, give up waiting, time out, cut off what hangs."""
        for target in self._all_targets():
            target.tick(self.loop, now)
        for call in self.wheel.passed(now):  # give_up does nothing for one that another's end has ended
            give_up(self, call, Answer("timeout", error="no answer came in time"))
        while self._held_until and self._held_until[0][0] <= now:
            self._dismiss(heappop(self._held_until)[2])
        self._settle()
        self._forget_meters(now)

    def models(self) -> list[ModelStats]:
        """The figures of every revision, by number."""
        now = self.loop.time()
        ready: dict[int, int] = {}
        for pool in self._ready:
            for link in pool.credits.links:
                ready[link.revision] = ready.get(link.revision, 0) + 1
        return [self._meters[each].read(now, ready.get(each, 0)) for each in sorted(self._meters)]

    def dismiss(self) -> None:
        """Let everyone go who is held."""
        for held in list(self._held):
            self._dismiss(held)

    async def close(self) -> None:
        """End it: whatever is live is answered, every connection is cut."""
        self.dismiss()
        for pool in list(self._pools.values()):
            pool.refuse_all(pool.take_all())
            pool.close()
        for call in self.wheel.all():
            give_up(self, call, Answer("replica-lost", error="the gateway ends", retry_after_s=RETRY_S))
        for target in self._all_targets():
            target.retire()
            if target.link is not None:
                target.link.close()
        for target in self._all_targets():
            await target.closed()

    def quiet(self) -> bool:
        """Whether nothing is connected, waits or is under way."""
        linked = any(target.link is not None for target in self._all_targets())
        return not linked and not self.wheel.live and not self._held

    # for its links

    def hello(self, link: Link, frame: Frame) -> str:
        """See `link.Owner`."""
        try:
            hello = read_hello(frame)
        except ValueError as error:
            return str(error)
        if (hello.service, hello.revision) != (self.config.name, link.revision):
            found = f"{hello.service!r} revision {hello.revision}"
            return f"HELLO: it is {found}, not {self.config.name!r} revision {link.revision}"
        link.batches_max = min(hello.batches_max, CREDITS_MAX)
        link.meter = self._meter(link.revision)
        signature = signature_of(hello)
        pool = self._pools.get(signature)
        if pool is None:
            pool = self._pools[signature] = Pool(
                self, signature, self._hooks.make_codec(signature, self.config)
            )
        pool.join(link)
        self._settle()
        return ""

    def drain(self, link: Link) -> None:
        """See `link.Owner`."""
        if link.pool is not None:
            link.pool.leave(link)
        self._settle()

    def lost(self, link: Link) -> None:
        """See `link.Owner`."""
        self._leaving = [target for target in self._leaving if target.link is not None]
        if link.pool is not None:
            link.pool.lose(link)
        self._settle()

    # for its pools

    def successor(self, pool: Pool) -> Pool | None:
        """See `pool.Service`."""
        other = self.pool()
        if other is None:  # it may have been forgotten, and is wanted again
            other = self._pools.setdefault(pool.signature, pool)
        return None if other is pool else other

    def reread(self, call: Call, pool: Pool) -> Answer | None:
        """See `pool.Service`."""
        if self._hooks.reread is None:
            return Answer("no-replica", error="the service changed its signature", retry_after_s=RETRY_S)
        return self._hooks.reread(call, pool)

    # within

    def _turn(self) -> Pool:
        """Smooth weighted round robin over the pools, by ready replicas."""
        total = 0
        for pool in self._ready:
            weight = len(pool.credits.links)
            total += weight
            self._shares[pool] = self._shares.get(pool, 0) + weight
        chosen = max(self._ready, key=self._shares.__getitem__)
        self._shares[chosen] -= total
        return chosen

    def _all_targets(self) -> list[Target]:
        return [*self._targets.values(), *self._leaving]

    def _retire(self, target: Target) -> None:
        target.retire()
        if target.link is not None:
            self._leaving.append(target)

    def _settle(self) -> None:
        """Bring in line what depends on which pools have replicas: who is ready, and who must not wait on."""
        self._ready = [pool for pool in self._pools.values() if pool.credits.links]
        now = self.loop.time()
        for pool in list(self._pools.values()):
            if pool.bare_since is None:
                continue
            idle_s = now - pool.bare_since
            if pool.waiting:
                self._move(pool, idle_s >= self.config.hold_ms / 1000)
            elif not pool.attached and idle_s >= KEPT_S:
                pool.close()
                del self._pools[pool.signature]
                self._shares.pop(pool, None)
        if self._held and self._ready:
            self._release()

    def _move(self, pool: Pool, overdue: bool) -> None:
        """Calls wait in a pool without replicas: elsewhere with them, or nowhere."""
        if self._ready:
            group = pool.take_all()
            for call in group.calls:
                other = self.pool()
                if call.state is group and other is not None:
                    other.adopt(call)
        elif overdue:
            pool.refuse_all(pool.take_all())

    def _release(self) -> None:
        """Let go of those who are held, in order, while there is a pool for them."""
        while self._held:
            pool = self.pool()
            if pool is None:
                return
            held = self._held.popleft()
            waiter, held.waiter = held.waiter, None
            if waiter is not None:
                self.waiting.change(-1, -1, self.loop.time())
                waiter(pool)
        self._held_until.clear()

    def _dismiss(self, held: Held) -> None:
        waiter, held.waiter = held.waiter, None
        if waiter is None:
            return
        self.waiting.change(-1, -1, self.loop.time())
        self.waiting.count("no-replica")
        while self._held and self._held[0].waiter is None:
            self._held.popleft()
        waiter(None)

    def _meter(self, revision: int) -> Meter:
        meter = self._meters.get(revision)
        if meter is None:
            meter = self._meters[revision] = Meter(self.config.name, revision, self.loop.time())
        return meter

    def _forget_meters(self, now: float) -> None:
        kept = {0} | {each.revision for each in self.config.revisions}
        kept.update(target.revision for target in self._leaving)
        for revision in self._meters.keys() - kept:
            if now - self._gone.setdefault(revision, now) >= KEPT_S:
                del self._meters[revision], self._gone[revision]
        for revision in kept & self._gone.keys():
            del self._gone[revision]


def _order(key: tuple[int, ReplicaTarget]) -> tuple[int, str, str, str]:
    revision, replica = key
    return revision, replica.run, replica.socket, replica.address
