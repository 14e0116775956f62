"""Words of tests that steer a home with a cluster through the command line."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.steer_process import steer_json
from tests.ray.cluster import RayCluster

WAIT_SECONDS_MAX = 150


def fleet(cluster: RayCluster, **changes: object) -> str:
    """This machine and the cluster; `changes` are keys of the cluster that differ, None for one left out."""
    fields: dict[str, object] = {
        "name": "gpu",
        "infra": "ray",
        "address": f"'{cluster.address}'",
        "token": "ray-token",
        "lease": "6s",
        "python": cluster.python(),
        **changes,
    }
    inside = ", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None)
    return f"kind: fleet\nnodes: [{{name: here, cpus: 1, memory: 2GB}}]\nclusters: [{{{inside}}}]\n"


def until(home: Path, holds: Callable[[Any], bool]) -> Any:
    """The status once it is so."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        status = steer_json(home, "status")
        if holds(status):
            return status
        time.sleep(0.2)
    raise AssertionError(f"it never came: {json.dumps(status, indent=1)[:4000]}")
