"""The contract of `ports.driver.Driver`, held to by real Ray as by processes and by the simulated fleet."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.contract.test_driver import CONTRACT, World
from tests.ray.cluster import RayCluster
from tests.ray.worlds import RayWorld


@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__.removeprefix("test_"))
def test_contract(test: Callable[[World], Awaitable[None]], cluster: RayCluster, tmp_path: Path) -> None:
    async def whole() -> None:
        world = RayWorld(cluster, tmp_path / "home")
        await world.join()
        try:
            await test(world)
        finally:
            await world.close()

    asyncio.run(whole())
