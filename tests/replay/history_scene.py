"""A home that was lived in without faults of its own: a real engine over a simulated fleet, journaled.

The programs here are `SimDriver`'s, which know nothing of how a replay models them. A job that saves goes on
from its last save; saves take no time.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from steersman.journal import MemoryJournal
from steersman.model.events import (
    Event,
    FleetDeclared,
    PolicySet,
    Signal,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.resources import Device, Resources
from steersman.model.snapshot import FINAL_PHASES, Snapshot
from steersman.model.workload import CheckpointPolicy, Job, Retry, Workload
from steersman.ports.driver import RankKey, RankReport, StartOrder
from steersman.ports.journal import Journal
from steersman.sensors.runs import RunSensor
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways
from steersman.sim.plane import InlineExecutor, Plane, Weather
from steersman.sim.replay.simulate import Watch

BEGIN_MS = 1_700_000_000_000
GIB = 1 << 30
SAVE_EVERY_MS = 10_000
READY_MS = 1_500
"""When a replica answers, after its start."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the scene. `fails`: how its first tries end, by exit code, each after half of its work."""

    name: str
    at_ms: int
    run_ms: int
    cpu_milli: int = 1_000
    priority: int = 0
    nodes: int = 1
    gpus: int = 0
    saves: bool = False
    fails: tuple[int, ...] = ()
    grace_ms: int = 2_000


def node(number: int, cpu_milli: int, gpus: int = 0, price: int | None = None) -> Node:
    """A node of the scene."""
    return Node(
        id=NodeId(f"node-{number}"),
        driver="sim",
        cpu_milli=cpu_milli,
        memory_bytes=64 * GIB,
        devices=tuple(Device(id=DeviceId(f"gpu-{number}-{at}"), kind="A100") for at in range(gpus)),
        price_usd_micro_per_hour=price,
    )


def declared(job: Asked) -> WorkloadDeclared:
    """The declaration of a job."""
    retry = Retry(on_events=("interruption", "error"), attempts_max=9)
    saving = CheckpointPolicy(enabled=job.saves, interval_ms=SAVE_EVERY_MS if job.saves else None)
    body = Job(run="x", num_nodes=job.nodes, retry=retry, checkpoint=saving, stop_grace_ms=job.grace_ms)
    kinds = (("A100", job.gpus),) if job.gpus else ()
    workload = Workload(
        name=WorkloadName(job.name),
        body=body,
        resources=Resources(cpu_milli=job.cpu_milli, accelerators=kinds),
        priority=job.priority,
    )
    return WorkloadDeclared(workload=workload, digest=f"{job.at_ms}")


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a job are lost, by nobody's decision."""

    workload: str


Said = Event | Signal | Lost


class Prompt(SimDriver):
    """A driver that tells of a save when it is made, and that it took no time, as is true of `SimDriver`."""

    async def observe(self) -> Sequence[RankReport]:
        return [
            msgspec.structs.replace(
                report,
                checkpoints=tuple(msgspec.structs.replace(save, save_ms=0) for save in report.checkpoints),
            )
            for report in await super().observe()
        ]

    async def wait_changed(self, timeout_ms: int) -> None:
        now_ms = self._clock.now_ms()
        begun = [rank.started_ms for rank in self._ranks.values() if rank.order.job.checkpoint.enabled]
        saves = [SAVE_EVERY_MS - (now_ms - at_ms) % SAVE_EVERY_MS for at_ms in begun]
        await super().wait_changed(min([timeout_ms, *saves]))


class Scene:
    """One life of a home."""

    def __init__(self, journal: Journal, nodes: Sequence[Node], jobs: Sequence[Asked]) -> None:
        self.journal = journal
        self.weather = Weather()
        self.nodes = tuple(nodes)
        self.jobs = {job.name: job for job in jobs}
        self.clock = VirtualClock(BEGIN_MS)
        self.driver = Prompt(self.clock, self._program)
        self.gateways = SimGateways()
        self.chance = random.Random(1)
        self.runs: dict[str, list[RunId]] = {}

    def lose(self, name: str) -> None:
        """A process of that job is gone, and what it left too."""
        for report in self.driver.everything():
            if report.state == "running" and report.key.run in self.runs.get(name, []):
                self.driver.kill(report.key, "lost")

    def _over(self, snapshot: Snapshot, until_ms: int | None) -> bool:
        if until_ms is not None:
            return self.clock.now_ms() >= BEGIN_MS + until_ms
        return all(state.phase in FINAL_PHASES for _, state in snapshot.workloads.sorted_items())

    def told(self, key: RankKey) -> None:
        """Nobody asks."""

    def _program(self, order: StartOrder) -> Behaviour:
        if order.job.program != "command":
            return Behaviour(run_ms=None, ready_ms=READY_MS, term_ms=0)
        job, runs = self.jobs[order.workload], self.runs.setdefault(order.workload, [])
        if order.key.run not in runs:
            runs.append(order.key.run)
        steps = [
            report.checkpoints[-1].step
            for report in self.driver.everything()
            if report.key.run in runs and report.key.rank == 0 and report.checkpoints
        ]
        code = job.fails[len(runs) - 1] if len(runs) <= len(job.fails) else 0
        left_ms = max(job.run_ms - sum(steps) * SAVE_EVERY_MS, 0)
        return Behaviour(
            run_ms=left_ms // 2 if code else left_ms,
            exit_code=code,
            checkpoint_ms=SAVE_EVERY_MS if job.saves else None,
            term_ms=500,
        )

    async def live(self, policy: Policy, events: Sequence[tuple[int, Said]], until_ms: int | None) -> None:
        """All of it; until every job is final, or that long."""
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        watch = Watch(RunSensor(self.driver))
        plane = Plane(self, lambda _: watch)
        beginning = asyncio.create_task(plane.begin())
        await self.clock.advance(1)
        assert beginning.result()
        first: list[Said] = [
            PolicySet(policy=policy),
            FleetDeclared(fleet=Fleet(name="f", nodes=self.nodes)),
        ]
        asks: list[tuple[int, Said]] = [(1, event) for event in first]
        asks += [(job.at_ms, declared(job)) for job in self.jobs.values()] + list(events)
        tasks = []
        for at_ms, event in sorted(asks, key=lambda ask: ask[0]):
            await self.clock.advance(max(BEGIN_MS + at_ms - self.clock.now_ms(), 0))
            if isinstance(event, Signal):
                watch.signals.append(event)  # the next look tells, at most two seconds later
            elif isinstance(event, Lost):
                self.lose(event.workload)
            else:
                tasks.append(asyncio.create_task(plane.engine.submit([event])))
        await self.clock.advance(1)
        while not self._over(plane.engine.snapshot, until_ms):
            await self.clock.advance(1_000)
        await asyncio.gather(*tasks)
        await plane.kill()


def some_jobs(seed: int, count: int, **like: Any) -> list[Asked]:
    """Jobs that are more than the fleet of `some_nodes` holds at once."""
    chance = random.Random(seed)
    return [
        Asked(
            name=f"job-{number:03}",
            at_ms=chance.randrange(10, 10_000 * count),
            run_ms=chance.randrange(1_000, 120_000),
            cpu_milli=chance.choice((500, 1_000, 2_000)),
            nodes=chance.choice((1, 1, 2)),
            gpus=chance.choice((0, 0, 1)),
            **{name: chance.choice(values) for name, values in like.items()},
        )
        for number in range(count)
    ]


def some_nodes() -> list[Node]:
    """Two nodes with prices."""
    return [node(0, 4_000, 2, price=1_000_000), node(1, 4_000, 1, price=2_000_000)]


def lived(
    nodes: Sequence[Node],
    jobs: Sequence[Asked],
    *,
    policy: Policy | None = None,
    journal: Journal | None = None,
    events: Sequence[tuple[int, Said]] = (),
    until_ms: int | None = None,
) -> Journal:
    """The journal of a home in which these jobs were asked for."""
    journal = MemoryJournal() if journal is None else journal
    asyncio.run(Scene(journal, nodes, jobs).live(policy or Policy(), events, until_ms))
    return journal
