"""The front of one gateway process: what all its connections share.

Theory of operation. The front holds the configuration in the forms that a request needs (routes, keys,
hosts), the connections, and one timer: a sweep every `Limits.sweep_s` that compares deadlines and refreshes
the coarse clocks. A new configuration replaces the forms and touches no connection.

A connection is counted from the moment it is accepted, before TLS. Over a cap, the connection that has been
idle for longest makes room (then one that has not finished a head); if none is idle, the newcomer is
closed. Caps are of the whole gateway: each process enforces its share, rounded up.
"""

import asyncio
import heapq
import time
from collections.abc import Mapping

from steersman.dataplane.gateway.contract import Parts
from steersman.dataplane.gateway.http.connection import Connection
from steersman.dataplane.gateway.http.gcra import Strikes
from steersman.dataplane.gateway.http.hosts import Hosts
from steersman.dataplane.gateway.http.keys import Key, KeyRing
from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.http.memo import Memo
from steersman.dataplane.gateway.http.replies import UNAUTHORIZED, Refusal, refusal_of
from steersman.dataplane.gateway.http.request import Head
from steersman.dataplane.gateway.http.routes import build
from steersman.dataplane.gateway.http.wire import Phase, Wire
from steersman.ports.gateway import GatewayConfig

VICTIMS = 256
"""Idle connections picked at one look. When there were fewer, the next look is a sweep later."""


class Front:
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, parts: Parts, limits: Limits) -> None:
        self.loop = loop
        self.parts = parts
        self.limits = limits
        self.config: GatewayConfig | None = None
        self.now = loop.time()
        self.wall_ms = time.time_ns() // 1_000_000
        self.draining = False
        self.refused_connections = 0
        self.keys = KeyRing()
        self.routes = build(None, parts.exchange)
        self._strikes = Strikes(limits.failed_keys_per_minute)
        self._locals: dict[str, tuple[Hosts, Memo]] = {}
        self._connections: set[Wire] = set()
        self._per_address: dict[str, int] = {}
        self._victims: dict[str, list[Wire]] = {}
        self._many: dict[str, bool] = {}  # whether there were more than were picked
        self._timer = loop.call_later(limits.sweep_s, self._sweep)

    @property
    def connections(self) -> int:
        """How many there are, those in a TLS handshake included."""
        return len(self._connections)

    def ready(self) -> bool:
        return self.config is not None and not self.draining

    def configure(self, config: GatewayConfig) -> None:
        """Serve by this configuration from now on."""
        self.parts.exchange.configure(config)
        self.config = config
        self.keys.configure(config.keys, config.gateway.workers)
        self.routes = build(config, self.parts.exchange)
        self._locals.clear()

    def local(self, address: str) -> tuple[Hosts, Memo]:
        """The names of one of our addresses, and the heads known there."""
        found = self._locals.get(address)
        if found is None:
            names = self.config.gateway.hosts if self.config is not None else ()
            found = self._locals[address] = Hosts(address, names), Memo(self.limits.memo_heads_max)
        return found

    # --- who asks ---

    def authenticate(self, fields: Mapping[str, bytes], address: str) -> Key | Refusal | None:
        """The key of a request, None for a caller that needs none, or why not. Spends from the rate."""
        authorization, api_key = fields.get("authorization"), fields.get("api_key")
        raw = authorization if api_key is None else api_key
        if raw is None:
            anonymous = self.config is not None and self.config.gateway.keys == "optional"
            return None if anonymous else UNAUTHORIZED
        key = self.keys.find(raw, self.wall_ms, bearer=api_key is None)
        if key is None or (authorization is not None and api_key is not None):
            wait_s = self._strikes.take(address, self.loop.time())
            return refusal_of("rate-limited", wait_s) if wait_s else UNAUTHORIZED
        return self.spend(key) or key

    def spend(self, key: Key) -> Refusal | None:
        """One request of this key: refused when it has expired or is over its rate."""
        if not key.valid(self.wall_ms):
            return UNAUTHORIZED
        if key.gcra is not None:
            wait_s = key.gcra.take(self.loop.time())
            if wait_s:
                return refusal_of("rate-limited", wait_s)
        return None

    def refused(self, head: Head, refusal: Refusal) -> None:
        """Count a refusal that the exchange does not know of, by service if there is one."""
        if head.route is not None and head.route.service:
            self.parts.exchange.count(head.route.service, refusal.outcome)

    # --- connections ---

    def join(self, address: str, local: str) -> Connection | None:
        """A new connection from an address to one of ours; None when there is no room."""
        most = self.limits_per_process()
        if self._per_address.get(address, 0) >= most[1] and not self._evict(address):
            self.refused_connections += 1
            return None
        if len(self._connections) >= most[0] and not self._evict(""):
            self.refused_connections += 1
            return None
        connection = Connection(self, address, local)
        self._connections.add(connection)
        self._per_address[address] = self._per_address.get(address, 0) + 1
        return connection

    def left(self, wire: Wire) -> None:
        """A connection ended, or never came to be."""
        if wire not in self._connections:
            return
        self._connections.discard(wire)
        count = self._per_address[wire.address] - 1
        if count:
            self._per_address[wire.address] = count
        else:
            del self._per_address[wire.address]

    def limits_per_process(self) -> tuple[int, int]:
        """This process's share of the connection caps: all, and of one address."""
        if self.config is None:
            return 1_024, 256
        gateway = self.config.gateway
        workers = max(gateway.workers, 1)
        return -(-gateway.connections_max // workers), -(-gateway.connections_per_address_max // workers)

    def make_room(self) -> bool:
        """Close the connection that has been idle for longest, when descriptors run out."""
        return self._evict("")

    def _evict(self, address: str) -> bool:
        victims = self._victims.get(address)
        if victims is None:
            victims = self._victims[address] = self._idle(address)
        while victims:
            wire = victims.pop()
            if not victims and self._many[address]:
                del self._victims[address]  # there are more: look again when one is needed
            if wire in self._connections and _idle(wire):
                wire.abort()
                self.left(wire)
                return True
        return False

    def _idle(self, address: str) -> list[Wire]:
        """Who may be closed, the first to go last: those who have been silent for longest.

        Whether they have ever asked does not count: else many who never do would outlast one who does.
        """
        idle = (one for one in self._connections if _idle(one) and address in {"", one.address})
        found = heapq.nsmallest(VICTIMS, idle, key=self._silent_since)
        self._many[address] = len(found) == VICTIMS
        found.reverse()
        return found

    def _silent_since(self, wire: Wire) -> float:
        allowed_s = self.limits.idle_s if wire.phase is Phase.IDLE else self.limits.headers_s
        return wire.deadline - allowed_s

    # --- time ---

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(self.limits.sweep_s, self._sweep)
        self.now = now = self.loop.time()
        self.wall_ms = time.time_ns() // 1_000_000
        self._victims.clear()
        self._many.clear()
        for wire in tuple(self._connections):
            wire.expire(now)

    # --- the end ---

    def drain(self) -> None:
        """Answer what is under way, then close each connection."""
        self.draining = True
        for wire in tuple(self._connections):
            wire.drain()

    def close(self) -> None:
        """Abort whatever is left."""
        self._timer.cancel()
        for wire in tuple(self._connections):
            wire.abort()


def _idle(wire: Wire) -> bool:
    return wire.phase <= Phase.HEAD and wire.transport is not None
