"""Everything between a request that was read and its answer, for all services of one gateway process.

Theory. One event loop, one coarse timer, no thread, no lock: every state change happens in a callback that
runs to its end. The front asks for an entry, its pool, and admits a call; links bring frames; the timer,
every TICK_S, connects to configured replicas, ends calls whose deadline has passed and cuts off replicas that
hang. The configuration is obeyed by difference, so giving the same one twice changes nothing, and what is
under way on a replica that left it comes to its end.
"""

import asyncio
from pathlib import Path

import msgspec

from steersman.dataplane.gateway.exchange.entry import Entry, Hooks, MakeCodec, Reread
from steersman.dataplane.gateway.exchange.secure import Secure
from steersman.ports.gateway import GatewayConfig, ModelStats, Outcome

TICK_S = 0.02
CLOSING_TURNS_MAX = 100
"""Turns of the event loop that closing waits for its connections."""


class Exchange:
    """See the module. Times are of `loop.time()`. `home` holds the gateway's certificate for
    replicas on other machines; without one there are none."""

    __slots__ = ("_entries", "_hooks", "_leaving", "_loop", "_tick_handle")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make_codec: MakeCodec, home: Path | None = None
    ) -> None:
        self._loop = loop
        self._hooks = Hooks(make_codec, Secure(home))
        self._entries: dict[str, Entry] = {}
        self._leaving: list[Entry] = []
        self._tick_handle: asyncio.TimerHandle | None = None

    @property
    def reread(self) -> Reread | None:
        """Reads a call's body anew with another pool's codec, into the call; an answer when it cannot."""
        return self._hooks.reread

    @reread.setter
    def reread(self, reread: Reread) -> None:
        self._hooks.reread = reread

    def configure(self, config: GatewayConfig) -> None:
        """Obey this configuration. What it no longer has finishes what is under way."""
        keyed = bool(config.keys)
        wanted = {service.name: service for service in config.services}
        for name in [name for name in self._entries if name not in wanted]:
            entry = self._entries.pop(name)
            entry.configure(msgspec.structs.replace(entry.config, revisions=(), hold_ms=0), keyed)
            entry.dismiss()
            self._leaving.append(entry)
        for name, service in wanted.items():
            if name not in self._entries:
                self._entries[name] = Entry(self._loop, service, self._hooks)
            self._entries[name].configure(service, keyed)
        if self._tick_handle is None:
            self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    def entry(self, name: str) -> Entry | None:
        """A configured service."""
        return self._entries.get(name)

    def models(self) -> tuple[ModelStats, ...]:
        """Figures of every revision of every configured service, by name and number."""
        return tuple(stats for name in sorted(self._entries) for stats in self._entries[name].models())

    def count(self, service: str, outcome: Outcome) -> None:
        """The front refused a request itself. Nothing for a name that is not configured, for names are chosen
        by callers."""
        entry = self._entries.get(service)
        if entry is not None:
            entry.waiting.count(outcome)

    async def close(self) -> None:
        """Answer what is live, cut every connection, stop the timer."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        entries = [*self._entries.values(), *self._leaving]
        for entry in entries:
            await entry.close()
        for _ in range(CLOSING_TURNS_MAX):  # an aborted connection is gone an iteration or two later
            if all(entry.quiet() for entry in entries):
                return
            await asyncio.sleep(0)

    def _tick(self) -> None:
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)
        now = self._loop.time()
        for entry in [*self._entries.values(), *self._leaving]:
            entry.tick(now)
        if self._leaving:
            self._leaving = [entry for entry in self._leaving if not entry.quiet()]
