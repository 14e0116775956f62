"""One cluster for all tests that do not break it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray.cluster import RayCluster, three_nodes

RAY = Path(os.environ.get("STEERSMAN_TEST_RAY", Path(__file__).parents[2] / ".venvs" / "ray" / "bin"))
"""The programs of an environment that has Ray: `make test-ray` makes it."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    with three_nodes(RAY) as made:
        yield made
