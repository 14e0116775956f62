"""The bench of the live engine, on a list that can be counted by hand."""

import asyncio

from bench.decide.engine import report, through

from steersman.decide.pack import NodeState
from steersman.model.packing import Ask
from steersman.sim.replay.packing import Cluster

GIB = 1 << 30


def test_every_pod_is_tried_and_what_fits_is_placed() -> None:
    nodes = tuple(NodeState(name, "T4", 8_000, 64 * GIB, (1000, 1000)) for name in ("a", "b"))
    pods = [Ask(1_000, GIB, 1, 500, ("T4",))] * 4 + [
        Ask(1_000, GIB, 2, 1000),
        Ask(1_000, GIB, 1, 1, ("V100",)),
    ]
    pods += [Ask(1_000, GIB, 0, 0)] * 300
    found = asyncio.run(through(Cluster(nodes, 4_000), pods))
    assert (found.pods, found.placed, found.allocated_pct) == (306, 4 + 1 + 11, 100.0)
    assert found.arrived_pct == 100.025
    assert set(report([found]).figures) == {"engine_openb_cpu_s", "engine_openb_allocated_pct"}
