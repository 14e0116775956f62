"""A real engine over a journal in memory, a simulated driver and virtual time, for unit tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from steersman.engine.engine import Engine
from steersman.engine.inbox import Submission
from steersman.engine.parts import Parts
from steersman.journal import MemoryJournal
from steersman.model.codec import decode_event
from steersman.model.errors import DriverError, JournalWriteError
from steersman.model.events import Event, FleetDeclared, WorkloadDeclared
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.resources import Resources
from steersman.model.workload import Artifact, CheckpointPolicy, Input, Job, Retry, SecretRef, Workload
from steersman.ports.driver import Driver, StartOrder
from steersman.ports.gateway import GatewayConfig
from steersman.ports.sensor import Sensor
from steersman.sensors.runs import RunSensor
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways
from steersman.sim.plane import InlineExecutor

BEGIN_MS = 1_700_000_000_000
ONE_TRY = Retry(on_events=(), attempts_max=1)
NO_CHECKPOINTS = CheckpointPolicy()
RECORD_MS_MAX = 20_000


class FailingJournal(MemoryJournal):
    """A journal on a disk that is full when `full` is set. `appends` are the sizes of what was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.images_full = False
        self.appends: list[int] = []

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        if self.full:
            raise JournalWriteError("the disk is full", hint="free some space")
        self.appends.append(len(events))
        return super().append(events, at_ms)

    def save_image(self, position: int, build: str, image: bytes) -> None:
        if self.images_full:
            raise JournalWriteError("the disk is full", hint="free some space")
        super().save_image(position, build, image)

    def events(self) -> list[Event]:
        """Everything recorded."""
        return [decode_event(record.type, record.version, record.body) for record in self.read()]


class FailingGateways(SimGateways):
    """A home whose configuration cannot be written when `full` is set. `trace`: (what, run or runs)."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.trace: list[tuple[str, frozenset[str]]] = []

    def publish(self, config: GatewayConfig) -> None:
        if self.full:
            self.trace.append(("refused", frozenset()))
            raise DriverError("the disk is full", hint="free some space")
        targets = (replica for each in config.services for one in each.revisions for replica in one.replicas)
        self.trace.append(("publish", frozenset(target.run for target in targets)))
        super().publish(config)


class Rig:
    """Parts and the engine made of them. Set `behaviour` and `reach` before work begins."""

    def __init__(self, journal: FailingJournal | None = None) -> None:
        self.clock = VirtualClock(BEGIN_MS)
        self.journal = FailingJournal() if journal is None else journal
        self.behaviour = Behaviour()
        self.gateways = FailingGateways()
        self.sensors: list[Sensor] = []
        self.policy: Policy | None = None
        self.driver = SimDriver(self.clock, self._program)
        self.orders: list[StartOrder] = []
        self.reach: Callable[[str], None] = lambda _name: None
        self.engine = self.make(self.driver)

    def make(self, driver: Driver) -> Engine:
        """Another engine over the same journal and clock."""
        return Engine(
            Parts(
                journal=self.journal,
                drivers={driver.name: driver},
                sensors=[RunSensor(driver), *self.sensors],
                clock=self.clock,
                build="test",
                boot_id="boot",
                open_secret=lambda name: f"value of {name}",
                artifact_path=lambda digest: Path("/artifacts") / digest,
                new_home_id=lambda: "home-1",
                gateways=self.gateways,
                policy=self.policy,
                libraries=(("msgspec", "1"),),
                reach=self._reach,
            )
        )

    def _reach(self, name: str) -> None:
        self.reach(name)  # whatever it is by then

    def _program(self, order: StartOrder) -> Behaviour:
        self.orders.append(order)
        return self.behaviour

    async def record(self, *events: Event) -> int:
        """Submit, and let the world go on for as long as that takes."""
        asked = asyncio.create_task(self.engine.submit(events))
        for _ in range(RECORD_MS_MAX):
            await self.clock.advance(1)
            if asked.done():
                return await asked
        raise AssertionError("nobody answers")

    async def until(self, holds: Callable[[], bool], *, seconds: int = 600) -> None:
        """Let time pass until it holds."""
        for _ in range(seconds * 10):
            if holds():
                return
            await self.clock.advance(100)
        raise AssertionError("it does not come to hold")

    def phase(self, name: str) -> str:
        return self.engine.snapshot.workloads[name].phase.value

    def of(self, kind: type[Event]) -> list[Any]:
        """Recorded events of one type."""
        return [event for event in self.journal.events() if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    """The engine started and its loop running; closed at the end unless it ended by itself."""
    await rig.engine.start()
    task = asyncio.create_task(rig.engine.run())
    try:
        await rig.clock.advance(0)
        yield task
    finally:
        if not task.done():
            closing = asyncio.create_task(rig.engine.close())
            await rig.clock.advance(0)
            await closing
            await task


def in_rig(test: Callable[[Rig], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an asynchronous test with a rig of its own, on one thread."""

    def whole() -> None:
        async def inside() -> None:
            asyncio.get_running_loop().set_default_executor(InlineExecutor())
            await test(Rig())

        asyncio.run(inside())

    whole.__doc__ = test.__doc__
    return whole


def inject(rig: Rig, event: Event) -> asyncio.Future[int]:
    """Hand an event in from within the cycle, where nothing can be awaited; its answer."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    rig.engine._inbox._waiting.append(Submission((event,), answer))
    rig.engine._inbox._length += 1
    rig.engine._inbox._news.set()
    return answer


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """A planted bug, for as long as the block lasts."""
    honest = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, honest)


def fleet(*, cpu_milli: int = 2_000, driver: str = "sim", nodes: int = 1) -> FleetDeclared:
    made = [
        Node(id=NodeId(f"n{number}"), driver=driver, cpu_milli=cpu_milli, memory_bytes=1 << 32)
        for number in range(nodes)
    ]
    return FleetDeclared(fleet=Fleet(name="f", nodes=tuple(made)))


def workload(
    name: str = "a",
    *,
    cpu_milli: int = 1_000,
    ranks: int = 1,
    retry: Retry = ONE_TRY,
    checkpoint: CheckpointPolicy = NO_CHECKPOINTS,
    inputs: tuple[Input, ...] = (),
    artifacts: tuple[Artifact, ...] = (),
    secrets: tuple[SecretRef, ...] = (),
    priority: int = 0,
) -> Workload:
    job = Job(
        run="train",
        num_nodes=ranks,
        retry=retry,
        checkpoint=checkpoint,
        inputs=inputs,
        artifacts=artifacts,
        secrets=secrets,
        stop_grace_ms=1_000,
    )
    return Workload(
        name=WorkloadName(name), body=job, resources=Resources(cpu_milli=cpu_milli), priority=priority
    )


def declared(spec: Workload | None = None, **changes: Any) -> WorkloadDeclared:
    spec = workload() if spec is None else spec
    return WorkloadDeclared(workload=replace(spec, **changes) if changes else spec, digest="sha256:0")
