"""The Ray driver on a real cluster, as tests drive it."""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from tests.ray.cluster import RayCluster

from steersman.dataplane.cluster import bridge_argv
from steersman.drivers.ray import RayDriver, RaySettings
from steersman.model.fleet import Cluster, Node
from steersman.model.ids import NodeId
from steersman.ports.driver import RankKey, RankReport, StartOrder, StopOrder

JOIN_SECONDS_MAX = 60.0
WAITS_MAX = 600
NAME = "gpu"


def settings(
    cluster: RayCluster, home: Path, home_id: str, *, token: str | None = None, by_client: bool = False
) -> RaySettings:
    """`by_client`: the bridge is on a machine that is not of the cluster."""
    where = () if by_client else cluster.run_in_head
    return RaySettings(
        home=home,
        home_id=home_id,
        python=str(cluster.ray / "python"),
        bridge_argv=lambda python: (*where, *bridge_argv(home, python)),
        environ=os.environ,
        certify=lambda _run: (),
        open_secret=lambda _name: cluster.token if token is None else token,
    )


def declared(cluster: RayCluster, **changes: object) -> Cluster:
    fields: dict[str, object] = {"name": NAME, "address": cluster.address, "token": "ray-token", **changes}
    return Cluster(**fields)  # type: ignore[arg-type]  # fields by name


class RayWorld:
    """A driver of its own home on the cluster. Orders that name no cluster go to its first node with CPUs."""

    def __init__(self, cluster: RayCluster, home: Path, home_id: str = "", **changes: object) -> None:
        self.cluster, self.home = cluster, home
        self.home_id = home_id or secrets.token_hex(6)
        self.declared = declared(cluster, **changes)
        self.by_client = self.declared.address == cluster.client_address
        self.inner = RayDriver(settings(cluster, home, self.home_id, by_client=self.by_client))
        self.driver = OnCluster(self)
        self.nodes: dict[NodeId, Node] = {}

    async def join(self) -> None:
        async with asyncio.timeout(JOIN_SECONDS_MAX):
            while True:
                for report in await self.inner.observe_clusters([self.declared], 1):
                    if self.by_client and "client server failed" in report.problem:
                        break  # Ray's own server of a client does not always come up: the bridge tries again
                    assert not report.problem, report.problem
                    self.nodes = {node.id: node for node in report.nodes}
                    return
                await self.inner.wait_clusters_changed(1_000)

    async def pass_some_time(self) -> None:
        await self.inner.wait_changed(100)

    async def reports(self) -> Sequence[RankReport]:
        return await self.inner.observe()

    async def until(self, holds: Callable[[Sequence[RankReport]], bool]) -> Sequence[RankReport]:
        for _ in range(WAITS_MAX):
            found = await self.reports()
            if holds(found):
                return found
            await self.pass_some_time()
        raise AssertionError(f"it never came: {found}")

    async def close(self) -> None:
        for report in await self.reports():
            await self.inner.stop(StopOrder(key=report.key, epoch=1_000, grace_ms=0, cause="removed"))
        await self.until(lambda reports: all(report.state == "exited" for report in reports))
        await self._until_nothing_is_left()
        await self.inner.close()

    async def _until_nothing_is_left(self) -> None:
        """Their hosts are ended by then, and their room is free for the next test."""
        for _ in range(WAITS_MAX):
            found = await self.inner._joined[NAME].bridge.ask("look")
            if not found["ranks"]:
                return
            await self.pass_some_time()
        raise AssertionError(f"hosts were left: {found['ranks']}")


class OnCluster:
    """The driver, with orders put on the cluster."""

    def __init__(self, world: RayWorld) -> None:
        self._world = world

    @property
    def name(self) -> str:
        return self._world.inner.name

    async def start(self, order: StartOrder) -> None:
        if not order.cluster:
            node = self._world.nodes[sorted(self._world.nodes)[-1]]
            placement = msgspec.structs.replace(order.placement, node=node.id)
            order = msgspec.structs.replace(
                order,
                cluster=NAME,
                placement=placement,
                gang=(placement,) * order.num_ranks,
                node_devices=node.devices,
            )
        await self._world.inner.start(order)

    async def stop(self, order: StopOrder) -> None:
        await self._world.inner.stop(order)

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        await self._world.inner.set_checkpoint_interval(key, epoch, interval_ms)

    async def observe(self) -> Sequence[RankReport]:
        return await self._world.inner.observe()

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._world.inner.wait_changed(timeout_ms)

    async def discard(self, key: RankKey) -> None:
        await self._world.inner.discard(key)


def run(world: RayWorld, test: Callable[[RayWorld], Awaitable[None]]) -> None:
    """A test on it, which leaves nothing."""

    async def whole() -> None:
        await world.join()
        try:
            await test(world)
        finally:
            await world.close()

    asyncio.run(whole())
