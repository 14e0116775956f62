"""The contract of `ports.driver.Driver`, held to by real Ray as by processes and by the simulated fleet."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.contract.test_driver import CONTRACT, World
from tests.ray.cluster import RayCluster
from tests.ray.worlds import RayWorld, run

GATE = {
    "head": {test.__name__ for test in CONTRACT},
    "elsewhere": {"test_artifacts_are_reported_with_their_digest"},
}
BY_PLACE = [
    pytest.param(
        place,
        test,
        id=f"{place}-{test.__name__.removeprefix('test_')}",
        marks=() if test.__name__ in GATE[place] else pytest.mark.slow,
    )
    for place in GATE
    for test in CONTRACT
]


@pytest.mark.parametrize(("place", "test"), BY_PLACE)
def test_contract(
    place: str, test: Callable[[World], Awaitable[None]], cluster: RayCluster, tmp_path: Path
) -> None:
    """`elsewhere`: the control plane's machine is not of the cluster, and comes by Ray Client."""
    address = {"head": cluster.address, "elsewhere": cluster.client_address}[place]
    run(RayWorld(cluster, tmp_path / "home", address=address), test)
