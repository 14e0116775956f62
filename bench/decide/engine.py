"""The whole openb list of pods through the live engine: what a decision costs with everything around it.

Every pod of the list is declared to the real engine (its loop, its journal in memory, validation, intent,
actor, sensor), over a driver without processes in virtual time, in the order of the file, `BATCH` at a time,
as a client would that submits a file of many. None leaves. CPU time is that of the process, the reading of
the trace left out; the allocation is told beside it, for a fast engine that places badly would be no gain.

    python -m bench.decide.engine [--json]
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.journal.memory import MemoryJournal
from steersman.model.events import FleetDeclared, WorkloadDeclared
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, WorkloadName
from steersman.model.packing import Ask
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI, Device, Resources
from steersman.model.workload import Job, Workload
from steersman.ports.driver import StartOrder
from steersman.sensors.runs import RunSensor
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways
from steersman.sim.replay.packing import Cluster, read_nodes, read_pods

BATCH = 256
"""Pods that are declared together."""


def fleet_of(cluster: Cluster) -> Fleet:
    """The nodes of the trace as a declared fleet."""
    nodes = []
    for node in cluster.nodes:
        devices = tuple(
            Device(id=DeviceId(f"{node.node}/{node.model}-{index:02d}"), kind=node.model)
            for index in range(len(node.devices))
        )
        nodes.append(
            Node(
                id=NodeId(node.node),
                driver="sim",
                cpu_milli=node.cpu_milli,
                memory_bytes=node.memory_bytes,
                devices=devices,
            )
        )
    return Fleet(name="openb", nodes=tuple(sorted(nodes, key=lambda node: node.id)))


def workload_of(index: int, pod: Ask) -> Workload:
    """A pod as a declared job of one rank."""
    kind = ALTERNATIVES.join(pod.models) or ANY_KIND
    resources = Resources(
        cpu_milli=pod.cpu_milli,
        memory_bytes=pod.memory_bytes,
        accelerators=((kind, pod.gpus),) if pod.gpus else (),
        device_milli=pod.gpu_milli or WHOLE_MILLI,
    )
    return Workload(name=WorkloadName(f"pod-{index:05d}"), body=Job(run="sleep"), resources=resources)


def _forever(_: StartOrder) -> Behaviour:
    return Behaviour(run_ms=None)


class Figures:
    """What came of it."""

    def __init__(self, pods: int, cpu_s: float, placed: int, alloc_pct: float) -> None:
        self.pods, self.cpu_s, self.placed, self.alloc_pct = pods, cpu_s, placed, alloc_pct


async def _run(cluster: Cluster, pods: list[Ask]) -> Figures:
    clock = VirtualClock(1_700_000_000_000)
    driver = SimDriver(clock, _forever)
    engine = Engine(
        Parts(
            journal=MemoryJournal(),
            drivers={driver.name: driver},
            sensors=[RunSensor(driver)],
            clock=clock,
            build="bench",
            boot_id="bench",
            open_secret=lambda name: name,
            artifact_path=Path,
            new_home_id=lambda: "bench",
            gateways=SimGateways(),
        )
    )
    declared = [WorkloadDeclared(workload=workload_of(i, pod), digest="d") for i, pod in enumerate(pods)]
    began = time.process_time()
    await engine.start()
    loop = asyncio.create_task(engine.run())
    await engine.submit([FleetDeclared(fleet=fleet_of(cluster))])
    for at in range(0, len(declared), BATCH):
        await engine.submit(declared[at : at + BATCH])
        await engine.changed(60_000)
    while engine.snapshot.indexes.attention:
        await engine.changed(60_000)
    cpu_s = time.process_time() - began
    snapshot = engine.snapshot
    await engine.close()
    await loop
    held = placed = 0
    for (run,) in snapshot.indexes.live:
        placed += 1
        leases = [rank.placement for rank in snapshot.runs[run].ranks]
        held += sum(len(lease.devices) * lease.device_milli for lease in leases)
    return Figures(len(pods), cpu_s, placed, 100 * held / cluster.capacity)


def measure(traces: Path) -> Figures:
    """Run it on the default list."""
    folder = traces / "p1_packing"
    cluster = read_nodes(folder / "openb_nodes.csv.gz")
    pods, _ = read_pods(folder / "openb_pods_default.csv.gz", {node.model for node in cluster.nodes})
    return asyncio.run(_run(cluster, pods))


if __name__ == "__main__":
    found = measure(Path(sys.argv[1]))
    print(json.dumps(found.__dict__))
