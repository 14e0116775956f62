"""The actors: `host.Host` and `fence.Fence` as the engine runs them. Work that blocks goes to threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.dataplane.cluster import api
from steersman.dataplane.cluster.fence import Fence
from steersman.dataplane.cluster.host import Host, Place, node_home
from steersman.dataplane.cluster.words import Answer, answered, fence_name

BEATS_A_LEASE = 6
BEAT_SECONDS_MAX = 2.0
"""An answer of the fence that took longer is not counted: it may be old."""


class HostActor:
    """One rank's process on its node."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = dict(spec)
        self._problem: Answer | None = None
        self._node_id = api.node_id()
        self._host: Host | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()

    def _made(self) -> Host:
        """The host, made at the first call: an actor that fails in its making cannot say why."""
        with self._lock:
            if self._host is None:
                spec = self._spec
                home = node_home(spec["node_dir"], spec["home_id"], self._node_id)
                place = Place(home, self._node_id, os.environ)
                self._host = Host(place, spec["run"], spec["rank"], spec["lease_ms"])
            return self._host

    def _beat(self) -> None:
        """Renew the lease for as long as this process lives."""
        spec, fence = self._spec, None
        while True:
            began = time.monotonic()
            try:
                fence = fence or api.find(fence_name(spec["home_id"]))
                if fence is not None:
                    renewed = fence.renew.remote(spec["run"], spec["rank"])
                    api.wait(renewed, BEAT_SECONDS_MAX)
                    if self._host is not None and time.monotonic() - began <= BEAT_SECONDS_MAX:
                        self._host.beat()
            except api.ERRORS:
                fence = None  # it may have been made anew, under another handle
            time.sleep(max(spec["lease_ms"] / 1000 / BEATS_A_LEASE - (time.monotonic() - began), 0.1))

    async def hello(self) -> Answer:
        """Who and where it is; the proof that its environment was made."""

        async def work() -> dict[str, Any]:
            await asyncio.to_thread(self._made)
            return {"node_id": self._node_id, "ip": api.node_ip()}

        return await answered(work)

    async def do(self, verb: str, arguments: Sequence[Any]) -> Answer:
        """Call a method of the host."""

        async def work() -> Any:
            host = await asyncio.to_thread(self._made)
            return await asyncio.to_thread(getattr(host, verb), *arguments)

        return await answered(work)


class FenceActor:
    """The home's fence, on the head node."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._fence = Fence(spec, HostActor)

    async def renew(self, run: str, rank: int) -> None:
        """A host is there, and reaches the head."""
        self._fence.renew(run, rank)

    async def do(self, verb: str, arguments: Sequence[Any]) -> Answer:
        """Call a method of the fence."""

        async def work() -> Any:
            return await getattr(self._fence, verb)(*arguments)

        return await answered(work)
