"""One cluster for all tests, for it takes a while to come up."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray.cluster import QUICK, RayCluster, Shape

RAY = Path(os.environ.get("STEERSMAN_TEST_RAY", Path(__file__).parents[2] / ".venvs" / "ray" / "bin"))
"""The programs of an environment that has Ray: `make test-ray` makes it."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A head, a node with two made-up T4s, and two without; whoever takes one away brings it back."""
    made = RayCluster(RAY)
    gpus = Shape(4, 2, {"accelerator_type:T4": 1}, {"zone": "z2"})
    made.start(Shape(1), gpus, Shape(4, labels={"zone": "z3"}), Shape(4), environ=QUICK)
    try:
        yield made
    finally:
        made.close()
