"""The one place of a cluster through which every effect of a home passes: it knows the highest epoch.

Theory of operation. The engine checks no epoch: whoever holds a handle may make and end actors. So the
control plane makes none itself; it asks the fence of its home, a named actor of which there is at most one,
and that refuses whoever comes with a lower epoch than it has seen. The epoch is kept where the cluster keeps
its own state, so that a fence that was made anew knows it.

It also keeps the leases. A host renews its lease while it reaches the fence, and its shim ends the rank when
it could not for the lease's length. So a rank is dead for certain when the cluster says that its host is gone
*and* the host has not been heard for longer than its lease: only then may it begin elsewhere. A fence that
was made anew counts from its making.

    host gone, node there       conclude: a new host on that node ends what is left, and records the end
    host gone, node gone        ``expired`` after lease and margin; unknown until then
    host there, does not answer unknown
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.dataplane.cluster import api
from steersman.dataplane.cluster.words import (
    NAME,
    fence_name,
    group_name,
    host_name,
    opened,
)
from steersman.hosting.claim import fenced
from steersman.model.errors import DriverError

GRANT_SECONDS_MAX = 10.0
CALL_SECONDS_MAX = 40.0
MAKE_SECONDS_MAX = 300.0
REACH_SECONDS_MAX = 2.0
MARGIN_MS = 5_000
"""What may pass between a renewal here and the beat there, and until a shim has ended all."""


class Fence:
    """`host_actor` is the class of hosts."""

    def __init__(self, spec: Mapping[str, Any], host_actor: type) -> None:
        self._home_id: str = spec["home_id"]
        self._code: str = spec["code"]
        self._host_actor = host_actor
        self._made_at = time.monotonic()
        self._renewed: dict[tuple[str, int], float] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._making: Counter[str] = Counter()
        self._ended: set[str] = set()
        """Names of hosts that this has ended: the cluster may list them for a moment more."""
        self._key = f"{fence_name(self._home_id)}.epoch"
        self._epoch = int(api.remembered(self._key) or 0)

    def renew(self, run: str, rank: int) -> None:
        """A host is there, and reaches this."""
        self._renewed[run, rank] = time.monotonic()

    async def hello(self) -> dict[str, Any]:
        """Which code it runs: one of another is replaced, and hosts that are there are left as they are."""
        return {"code": self._code, "epoch": self._epoch}

    def _accept(self, epoch: int) -> None:
        if epoch < self._epoch:
            raise fenced(f"the cluster's fence of home {self._home_id}", self._epoch, epoch)
        if epoch > self._epoch:
            api.remember(self._key, str(epoch))
            self._epoch = epoch

    async def take(self, epoch: int) -> None:
        """Refuse all lower epochs from now on. Raises DriverError."""
        self._accept(epoch)

    # Effects.

    async def uploaded(self, uri: str) -> bool:
        """Whether hosts can be made with that package."""
        return await asyncio.to_thread(api.uploaded, uri)

    async def upload(self, epoch: int, uri: str, data: bytes) -> None:
        """Take a package. Raises DriverError."""
        self._accept(epoch)
        await asyncio.to_thread(api.upload, uri, data)

    async def make(self, epoch: int, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Reserve room for the gang, make the rank's host, and wait until it answers. Raises DriverError.

        `wish`: run, rank, gang [{node_id, resources}], environment, node_dir, lease_ms. Nothing is left when
        it raises, but for what an earlier call has made.
        """
        self._accept(epoch)
        self._making[wish["run"]] += 1
        try:
            return await self._make(wish)
        finally:
            self._making[wish["run"]] -= 1
            await self._tidy(wish["run"])

    async def _make(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        run, rank = wish["run"], wish["rank"]
        await self._check_nodes([each["node_id"] for each in wish["gang"]])
        async with self._turns.setdefault(run, asyncio.Lock()):
            reservation = await self._reserve(wish)
        mine = wish["gang"][rank]
        placed = {**mine, "group": reservation, "bundle": rank, "environment": wish["environment"]}
        self._renewed[run, rank] = time.monotonic()
        handle = self._host(run, rank, placed, self._spec(wish))
        try:
            said = await api.value(handle.hello.remote(), MAKE_SECONDS_MAX)
        except api.ERRORS as error:
            self._end(handle, run, rank)
            raise api.told(error, f"the host of {run}/{rank} could not be made") from error
        return dict(opened(said))

    def _host(self, run: str, rank: int, where: Mapping[str, Any], spec: Mapping[str, Any]) -> api.Handle:
        name = host_name(self._home_id, run, rank)
        self._ended.discard(name)
        return api.make_host(self._host_actor, name, where, spec)

    def _end(self, handle: api.Handle, run: str, rank: int) -> None:
        api.end(handle)
        self._ended.add(host_name(self._home_id, run, rank))

    def _spec(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: wish[name] for name in ("run", "rank", "node_dir", "lease_ms")}
        return {**kept, "home_id": self._home_id}

    async def _check_nodes(self, wanted: Sequence[str]) -> None:
        """See that they are there, and answer: room asked of a silent one would keep the cluster from giving
        room to anybody, as it gives it to one after another. Raises DriverError."""
        alive = {node["id"]: node for node in await asyncio.to_thread(api.nodes) if node["alive"]}
        for node in sorted(set(wanted)):
            known = alive.get(node)
            if known is None or not await _answers(known["ip"], known["port"]):
                why = "has left the cluster since it was chosen" if known is None else "does not answer"
                raise DriverError(
                    f"the node {node[:12]} {why}", hint="it is placed anew by itself", code="node-gone"
                )

    async def _reserve(self, wish: Mapping[str, Any]) -> Any:
        name, gang = group_name(self._home_id, wish["run"]), wish["gang"]
        reservation = await asyncio.to_thread(api.group, name)
        if reservation is None:
            bundles = [each["resources"] or {"CPU": 0.001} for each in gang]
            nodes = [each["node_id"] for each in gang]
            reservation = await asyncio.to_thread(api.reserve, name, bundles, nodes)
        if not await asyncio.to_thread(api.granted, reservation, GRANT_SECONDS_MAX):
            if not await asyncio.to_thread(self._hosts, wish["run"]):
                await asyncio.to_thread(api.release, reservation)
            asked = ", ".join(f"{key} {amount:g}" for key, amount in gang[wish["rank"]]["resources"].items())
            raise DriverError(
                f"the cluster has not given {asked} within {GRANT_SECONDS_MAX:.0f} s",
                hint="another program on the cluster holds it (see `ray status` there); it is tried again",
                code="cluster-busy",
            )
        return reservation

    async def begin(self, epoch: int, run: str, rank: int, order: Mapping[str, Any], secrets: Any) -> None:
        """Have a host begin its rank. Raises DriverError."""
        self._accept(epoch)
        await self._ask(run, rank, "begin", epoch, order, secrets)

    async def stop(self, epoch: int, run: str, rank: int, notice: Mapping[str, Any]) -> None:
        """Have a rank told to end. Raises DriverError."""
        self._accept(epoch)
        await self._ask(run, rank, "stop", epoch, notice)

    async def set_interval(self, epoch: int, run: str, rank: int, interval_ms: int) -> None:
        """Have a rank told another interval. Raises DriverError."""
        self._accept(epoch)
        await self._ask(run, rank, "set_interval", epoch, interval_ms)

    async def conclude(self, epoch: int, wish: Mapping[str, Any]) -> None:
        """Make a host again on the node of one that is gone, and have it record the end. Raises DriverError.

        `wish` as for `make`, with `node_id`.
        """
        self._accept(epoch)
        run, rank = wish["run"], wish["rank"]
        where = {"node_id": wish["node_id"], "resources": {}, "group": None, "bundle": 0, "environment": {}}
        handle = self._host(run, rank, where, self._spec(wish))
        try:
            opened(await api.value(handle.do.remote("conclude", []), CALL_SECONDS_MAX))
        except api.ERRORS as error:
            raise api.told(error, f"the end of {run}/{rank} could not be recorded on its node") from error

    async def drop(self, epoch: int, run: str, rank: int) -> None:
        """End a rank's host, whose end was told or which never began, and give its room back."""
        self._accept(epoch)
        handle = await asyncio.to_thread(api.find, host_name(self._home_id, run, rank))
        if handle is not None:
            if not self._making[run]:  # else it does not answer yet, and has nothing
                with contextlib.suppress(*api.ERRORS):  # gone: the next host of its node finds what it left
                    await api.value(handle.do.remote("clean", []), CALL_SECONDS_MAX)
            self._end(handle, run, rank)
        self._renewed.pop((run, rank), None)
        await self._tidy(run)

    async def sweep(self, epoch: int, kept: Sequence[str]) -> None:
        """Give back the room of all runs but those that are kept and those that have hosts: it was left when
        hosts went with their node, or when this was made anew in the middle of something."""
        self._accept(epoch)
        prefix = group_name(self._home_id, "")
        names = await asyncio.to_thread(api.groups)
        self._ended &= set(await asyncio.to_thread(api.names))
        for name in sorted(name for name in names if name.startswith(prefix)):
            if name.removeprefix(prefix) not in kept:
                await self._tidy(name.removeprefix(prefix))

    async def _tidy(self, run: str) -> None:
        """Give a run's room back when none of its hosts is left, and none is being made."""
        if self._making[run]:
            return
        del self._making[run]
        async with self._turns.setdefault(run, asyncio.Lock()):
            if not await asyncio.to_thread(self._hosts, run):
                reservation = await asyncio.to_thread(api.group, group_name(self._home_id, run))
                if reservation is not None:
                    await asyncio.to_thread(api.release, reservation)
        self._turns.pop(run, None)

    def _hosts(self, run: str) -> list[str]:
        prefix = f"{group_name(self._home_id, run)}."
        return [name for name in api.names() if name.startswith(prefix) and name not in self._ended]

    async def _ask(self, run: str, rank: int, verb: str, *arguments: Any) -> Any:
        handle = await asyncio.to_thread(api.find, host_name(self._home_id, run, rank))
        if handle is None:
            raise DriverError(f"the cluster has no host of {run}/{rank}", code="no-host")
        try:
            return opened(await api.value(handle.do.remote(verb, list(arguments)), CALL_SECONDS_MAX))
        except api.ERRORS as error:
            raise api.told(error, f"the host of {run}/{rank} does not answer") from error

    # Looking.

    async def look(self, lease_ms: int) -> dict[str, Any]:
        """Everything of this home on the cluster, and the cluster's nodes.

        `hosts`: [run, rank] of all that are there. `expired`: of [run, rank] that were heard once, those that
        were not for lease and margin; whoever was never heard expires from the making of this fence on.
        """
        names, nodes = await asyncio.gather(asyncio.to_thread(api.names), asyncio.to_thread(api.nodes))
        found = [NAME.fullmatch(name) for name in names]
        hosts = [
            [match["run"], int(match["rank"])]
            for match in found
            if match is not None and match["home"] == self._home_id
        ]
        now, limit = time.monotonic(), (lease_ms + MARGIN_MS) / 1000
        heard = {f"{run}/{rank}": now - at <= limit for (run, rank), at in self._renewed.items()}
        return {
            "hosts": hosts,
            "heard": heard,
            "young": now - self._made_at <= limit,
            "nodes": nodes,
        }


async def _answers(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        async with asyncio.timeout(REACH_SECONDS_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # late ones are among them
        return False
    writer.close()
    return True
