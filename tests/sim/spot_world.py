"""A home over a simulated fleet of spot pools: the real engine, one job, and what became of it.

Theory: the world keeps what the job has saved, as a volume would; each start goes on from there after its
cold start. Money is what machines were held for, at the price of their pool.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.sim.planting import planted

from steersman.engine import engine as engine_module
from steersman.journal import MemoryJournal
from steersman.model.codec import decode_event
from steersman.model.decisions import Choose, Start, Stop
from steersman.model.events import Decided, Event, FleetDeclared, PolicySet, WorkloadDeclared
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.resources import Resources
from steersman.model.snapshot import FINAL_PHASES, WorkloadState
from steersman.model.workload import CheckpointPolicy, Job, SpotPolicy, Workload
from steersman.ports.driver import RankKey, StartOrder
from steersman.sensors.runs import RunSensor
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways
from steersman.sim.plane import InlineExecutor, Plane, Weather
from steersman.sim.pools import PoolRecord, SimPools

BEGIN_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
STEP_MS = 10_000
COLD_START_MS = 120_000
LOOK_MS = 60_000
"""Sensors wake at every change by themselves; checkpoints are seen at their next look."""
JOB = WorkloadName("train")
ON_DEMAND_MICRO, SPOT_MICRO = 3_060_000, 973_100
GIB = 1 << 30


def node(name: str, pool: str = "", price: int | None = None) -> Node:
    """A machine for one job; of a spot pool when the pool is called so."""
    return Node(
        id=NodeId(name),
        driver="sim",
        cpu_milli=1_000,
        memory_bytes=4 * GIB,
        zone=pool,
        pool=pool,
        market="spot" if pool.startswith("spot") else "on-demand",
        price_usd_micro_per_hour=price,
    )


def fleet_of(pools: Sequence[str], spot_price: int | None = SPOT_MICRO) -> list[Node]:
    """A node in each of the spot pools, and one on-demand."""
    nodes = [node(f"{pool}-0", pool, spot_price) for pool in pools]
    return [node("dear-0", "dear", ON_DEMAND_MICRO), *nodes]


def job_of(
    work_h: float, deadline_h: float | None, policy: SpotPolicy = "auto", price_max: int | None = None
) -> Workload:
    """One job that saves its progress."""
    body = Job(
        run="train",
        stop_grace_ms=30_000,
        checkpoint=CheckpointPolicy(enabled=True),
        spot_policy=policy,
        deadline_ms=None if deadline_h is None else round(deadline_h * HOUR_MS),
        work_ms=round(work_h * HOUR_MS),
        price_usd_micro_per_hour_max=price_max,
    )
    return Workload(name=JOB, body=body, resources=Resources(cpu_milli=1_000, memory_bytes=GIB))


class Outcome(NamedTuple):
    """What became of the job: when it was done after its declaration (None: not yet), and for how much."""

    done_ms: int | None
    cost_usd_micro: int
    chosen: tuple[tuple[int, str, str], ...]
    stops: tuple[str, ...]
    starts: tuple[str, ...]
    steps: tuple[tuple[int, int], ...]
    state: WorkloadState
    events: tuple[Event, ...]

    def kinds(self) -> list[str]:
        """The capacities chosen, one after another, without repetition."""
        found: list[str] = []
        for _, capacity, _ in self.chosen:
            if not found or found[-1] != capacity:
                found.append(capacity)
        return found


class SpotWorld:
    """What outlives a plane; see the module."""

    def __init__(self, nodes: Sequence[Node], records: Mapping[str, PoolRecord], job: Workload) -> None:
        self.weather, self.chance = Weather(), random.Random(0)
        self.clock = VirtualClock(BEGIN_MS)
        self.journal = MemoryJournal()
        self.gateways = SimGateways()
        self.driver = SimDriver(self.clock, self._program)
        self.pools = SimPools(self.clock, self.driver, nodes, records)
        self.nodes, self.records, self.job = list(nodes), dict(records), job
        self.resumed: list[tuple[int, int]] = []

    def told(self, key: RankKey) -> None:
        """Nobody asks."""

    def _saved_step(self) -> int:
        saved = [report.checkpoints[-1].step for report in self.driver.everything() if report.checkpoints]
        return max(saved, default=0)

    def _program(self, order: StartOrder) -> Behaviour:
        pool = next(item.pool for item in self.nodes if item.id == order.placement.node)
        if pool in self.records and not self.records[pool].is_up(self.clock.now_ms()):
            return Behaviour(refuses="the machine is gone")
        first = self._saved_step()
        self.resumed.append((self.clock.now_ms(), first))
        total = (self.job.body.work_ms or 0) // STEP_MS
        return Behaviour(
            setup_ms=COLD_START_MS,
            run_ms=(total - first) * STEP_MS,
            checkpoint_ms=order.checkpoint_interval_ms,
            first_step=first,
            step_ms=STEP_MS,
            term_ms=2_000,
            term_code=75,
            completes=True,
        )

    async def _live(self, until_ms: int) -> None:
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        plane = Plane(self, RunSensor, others=[self.pools])
        assert await plane.begin()
        machines = asyncio.create_task(self.pools.run())
        fleet = Fleet(name="fleet", nodes=tuple(sorted(self.nodes, key=lambda item: item.id)))
        for event in (PolicySet(policy=Policy()), FleetDeclared(fleet=fleet)):
            await self._submitted(plane, event)
        await self._submitted(plane, WorkloadDeclared(workload=self.job, digest="1"))
        while self.clock.now_ms() - BEGIN_MS < until_ms:
            await self.clock.advance(LOOK_MS * 5)
            state = plane.engine.snapshot.workloads[JOB]
            if state.phase in FINAL_PHASES:
                break
        machines.cancel()
        self.state = plane.engine.snapshot.workloads[JOB]
        await plane.kill()

    async def _submitted(self, plane: Plane, event: Event) -> None:
        task = asyncio.create_task(plane.engine.submit([event]))
        while not task.done():
            await self.clock.advance(1)

    def outcome(self, until_h: float) -> Outcome:
        """Run it until it ends, or for so many hours."""
        with planted((engine_module, "LOOK_MS", LOOK_MS)):
            asyncio.run(self._live(round(until_h * HOUR_MS)))
        prices = {item.id: item.price_usd_micro_per_hour or 0 for item in self.nodes}
        money = sum((until - since) * prices[at] for at, since, until in self.driver.paid()) // HOUR_MS
        records = list(self.journal.read())
        events = [decode_event(record.type, record.version, record.body) for record in records]
        times = {at: record.at_ms for at, record in enumerate(records)}
        decided = [(at, item) for at, item in enumerate(events) if isinstance(item, Decided)]
        made = [(times[at] - BEGIN_MS, one) for at, item in decided for one in item.decisions]
        finished = self.state.finished_ms
        return Outcome(
            done_ms=None if finished is None else finished - self.state.declared_ms,
            cost_usd_micro=money,
            chosen=tuple(
                (at, one.capacity, one.reason.code.value) for at, one in made if isinstance(one, Choose)
            ),
            stops=tuple(one.cause for _, one in made if isinstance(one, Stop)),
            starts=tuple(RunId(one.placements[0].node) for _, one in made if isinstance(one, Start)),
            steps=tuple(self.resumed),
            state=self.state,
            events=tuple(events),
        )
