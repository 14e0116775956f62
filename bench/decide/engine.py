"""The whole openb list of pods through the live engine: what a decision costs with everything around it.

Every pod of the list is declared to the real engine (its loop, its journal in memory, validation, intent,
actor, sensor), over a driver without processes in virtual time, in the order of the file, `BATCH` at a time,
as a client would that submits a file of many. None leaves. CPU time is that of the process, the reading of
the trace left out; what was allocated is told beside it, for a fast engine that places badly is no gain.

    python -m bench.decide.run --only engine
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from bench.decide.problem import Cases, Problem, Report, there
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

NODES, PODS = "openb_nodes.csv.gz", "openb_pods_default.csv.gz"
BATCH = 256
"""Pods that are declared together."""
EPOCH_MS = 1_700_000_000_000
CHANGE_MS_MAX = 60_000
"""How long to wait for a cycle, in virtual time."""


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


class Figures(NamedTuple):
    """What came of it. `allocated_pct` is of all GPUs, `arrived_pct` what the list asks for."""

    pods: int
    placed: int
    cpu_s: float
    allocated_pct: float
    arrived_pct: float


def cases(folder: Path, _: bool) -> Cases[Path]:
    """One: the default list. It is short enough for a short run."""
    found, missing = there([folder / NODES, folder / PODS])
    return Cases([folder] if len(found) == 2 else [], missing)


def run(folder: Path) -> Figures:
    """The list, one engine."""
    cluster = read_nodes(folder / NODES)
    pods, _ = read_pods(folder / PODS, {node.model for node in cluster.nodes})
    return asyncio.run(through(cluster, pods))


async def through(cluster: Cluster, pods: Sequence[Ask]) -> Figures:
    """Every pod declared to a new engine, in this order."""
    clock = VirtualClock(EPOCH_MS)
    driver = SimDriver(clock, _forever)
    engine = Engine(_parts(driver, clock))
    declared = [WorkloadDeclared(workload=workload_of(i, pod), digest="d") for i, pod in enumerate(pods)]
    began = time.process_time()
    await engine.start()
    loop = asyncio.create_task(engine.run())
    await engine.submit([FleetDeclared(fleet=fleet_of(cluster))])
    for at in range(0, len(declared), BATCH):
        await engine.submit(declared[at : at + BATCH])
        await engine.changed(CHANGE_MS_MAX)
    while engine.snapshot.indexes.attention:
        await engine.changed(CHANGE_MS_MAX)
    cpu_s = time.process_time() - began
    snapshot = engine.snapshot
    await engine.close()
    await loop
    leases = [rank.placement for (run,) in snapshot.indexes.live for rank in snapshot.runs[run].ranks]
    held = sum(len(lease.devices) * lease.device_milli for lease in leases)
    asked = sum(pod.gpus * pod.gpu_milli for pod in pods)
    share = 100 / cluster.capacity
    return Figures(len(pods), len(leases), cpu_s, held * share, asked * share)


def _parts(driver: SimDriver, clock: VirtualClock) -> Parts:
    return Parts(
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


def report(results: Sequence[Figures]) -> Report:
    """The table, and the figures that are held to floors."""
    table = Table(
        "pods", "placed", "CPU s", "allocated %", "asked for %", title="the live engine, openb default"
    )
    for one in results:
        figures = f"{one.cpu_s:.2f}", f"{one.allocated_pct:.2f}", f"{one.arrived_pct:.2f}"
        table.add_row(f"{one.pods:,}", f"{one.placed:,}", *figures)
    figures_of = {
        "engine_openb_cpu_s": max(one.cpu_s for one in results),
        "engine_openb_allocated_pct": min(one.allocated_pct for one in results),
    }
    return Report(figures_of, [table], [one._asdict() for one in results], {})


PROBLEM = Problem("engine", "p1_packing", cases, run, report)
