"""Seeded storms: a random fleet, random work, random faults, then calm; what must be true afterwards.

Theory of operation. A seed first draws how much of each fault there will be, none of some (a swarm: one fixed
mix hides what it never mixes). In the storm anything may fail, and only safety is asked for. Then the weather
clears, and everything must converge within a bound of virtual time: every workload final, held or forgotten,
no program alive but replicas that are wanted and answer, no object left; the checkers are silent. What only
ever refuses fails the second part. Storms of an odd seed have services in them.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence

import msgspec

from steersman.model.codec import decode_event
from steersman.model.errors import SteersmanError
from steersman.model.events import (
    Event,
    FleetDeclared,
    PolicySet,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.resources import Device, Resources
from steersman.model.service import ArtifactRef, OnnxModel, RolloutPolicy, Scaling, Service
from steersman.model.snapshot import FINAL_PHASES, Phase, RunState, ServiceState, Snapshot, WorkloadState
from steersman.model.workload import Artifact, CheckpointPolicy, Input, Job, Retry, RetryEvent, Workload
from steersman.ports.driver import ArtifactReport, Driver, RankKey, RankReport, StartOrder
from steersman.ports.journal import Journal
from steersman.ports.sensor import Sensor
from steersman.sim.checkers import Evidence, Life, violations
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways
from steersman.sim.plane import LATENCY_MS_MAX, InlineExecutor, Plane, Weather

BEGIN_MS = 1_700_000_000_000
STEPS = 60
STEP_MS_MAX = 3_000
CALM_MS_MAX = 3_600_000
CALM_STEP_MS = 1_000
CLIENT_TRIES_MAX = 60
CLIENT_PAUSE_MS = 700
GIB = 1 << 30
POLICY = Policy(backoff_ms_base=200, backoff_ms_max=5_000, preempt_run_ms_min=300)
PLACES = (
    "*", "before-record", "after-record", "before-intent", "after-intent", "before-begin", "after-begin",
    "before-end", "after-end", "before-discard", "after-discard", "before-tune", "journal:append",
    "journal:appended", "start:sent", "start:done", "stop:sent", "stop:done", "observe:done", "discard:done",
    "publish:sent", "publish:done",
)  # fmt: skip


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a storm came to. `violations` is empty when all held."""

    seed: int
    violations: tuple[str, ...]
    events: int
    lives: int
    crashes: int
    programs: int
    position: int


class Storm:
    """One seed's world. `journal` outlives the planes; `sensor` makes the sensor of a driver."""

    def __init__(
        self, seed: int, journal: Journal, sensor: Callable[[Driver], Sensor], *, steps: int = STEPS
    ) -> None:
        self.seed = seed
        self.steps = steps
        self.journal = journal
        self.chance = random.Random(seed)  # noqa: S311 - a seed, not a secret
        self.clock = VirtualClock(BEGIN_MS)
        self.driver = SimDriver(self.clock, self._program)
        self.weather = Weather()
        self.planes: list[Plane] = []
        self.crashes = 0
        self._sensor = sensor
        self._calm = False
        self._began: dict[RankKey, int] = {}
        self._told: dict[RankKey, int] = {}
        self._acknowledged: list[tuple[int, Event]] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._names = [WorkloadName(f"job-{number}") for number in range(self.chance.randint(3, 9))]
        self._services = [WorkloadName(f"service-{number}") for number in range(2 if seed % 2 else 0)]
        self.gateways = SimGateways()
        self._listed: list[RankKey] = []
        self._swarm = self._draw_swarm()

    def _draw_swarm(self) -> dict[str, int]:
        kinds = {"client": 6, "kill-rank": 2, "crash": 3, "arm": 4, "blind": 1, "disk": 1, "driver": 2}
        drawn = {kind: weight * self.chance.choice((0, 1, 1, 2)) for kind, weight in kinds.items()}
        return {**drawn, "client": max(drawn["client"], 4), "pass": 6}

    # What the planes' gates and the driver ask of a world.

    def told(self, key: RankKey) -> None:
        config = self.gateways.published[-1] if self.gateways.published else None
        revisions = () if config is None else [each for one in config.services for each in one.revisions]
        if any(target.run == key.run for each in revisions for target in each.replicas):
            self._listed.append(key)
        if key in self.driver.starts:
            self._told.setdefault(key, self.journal.head().position)

    def _program(self, order: StartOrder) -> Behaviour:
        own = random.Random(f"{self.seed}/{order.key.run}/{order.key.rank}")  # noqa: S311 - the same
        if order.job.program != "command":
            self._began[order.key] = self.journal.head().position
            return _serving(own, good=self._calm)
        artifacts = tuple(
            ArtifactReport(name=item.name, digest=f"sha256:{order.key.run}", size_bytes=1)
            for item in order.job.artifacts
        )
        behaviour = Behaviour(
            run_ms=own.choice((0, 1, 300, 2_000, 9_000, 9_000, 40_000)),
            setup_ms=own.choice((0, 0, 200)),
            checkpoint_ms=700 if order.job.checkpoint.enabled else None,
            ignores_term=own.random() < 0.2,
            term_ms=own.choice((0, 50, 900)),
            term_code=own.choice((None, 75, 143, 0)),
            artifacts=artifacts,
        )
        if not self._calm:
            fault = own.choice(("", "", "", "code", "signal", "setup", "memory", "refuses"))
            behaviour = _FAULTS[fault](behaviour)
        if not behaviour.refuses:
            self._began[order.key] = self.journal.head().position
        return behaviour

    # The storm.

    async def whole(self) -> Outcome:
        """The storm and the calm after it."""
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        await self._plane()
        self._submit(PolicySet(policy=POLICY))
        self._submit(FleetDeclared(fleet=self._fleet()))
        for _ in range(self.steps):
            await self._step()
        self._calm, self.weather = True, Weather()
        found = await self._converge()
        for task in self._clients:
            task.cancel()
        await self.planes[-1].kill()
        evidence = self.evidence()
        return Outcome(
            seed=self.seed,
            violations=(*found, *violations(evidence)),
            events=len(evidence.history),
            lives=len(self.planes),
            crashes=self.crashes,
            programs=sum(self.driver.starts.values()),
            position=self.journal.head().position,
        )

    def evidence(self) -> Evidence:
        """What journal and world say now."""
        reports = self.driver.everything()
        return Evidence(
            history=tuple(
                (record.position, decode_event(record.type, record.version, record.body))
                for record in self.journal.read()
            ),
            lives=tuple(
                Life(
                    key=report.key,
                    starts=self.driver.starts.get(report.key, 0),
                    live=report.state != "exited",
                    exit_code=report.exit_code,
                    signal=report.signal,
                    began_after=self._began.get(report.key),
                    told_after=self._told.get(report.key),
                )
                for report in reports
            ),
            acknowledged=tuple(self._acknowledged),
            listed=tuple(self._listed),
        )

    async def _plane(self) -> Plane:
        """The plane that lives, or a new one; tries until one comes up, for as long as the storm lets it."""
        if self.planes and not self.planes[-1].dead:
            if not self.planes[-1].ended():
                return self.planes[-1]
        elif self.planes:
            self.crashes += 1
            await self.planes[-1].kill()
        for _ in range(CLIENT_TRIES_MAX):
            plane = Plane(self, self._sensor, skew_ms=self._skew_ms())
            self.planes.append(plane)
            beginning = asyncio.create_task(plane.begin())
            while not beginning.done():
                await self.clock.advance(LATENCY_MS_MAX)
            if beginning.result():
                return plane
            self.weather = Weather()
        raise AssertionError(f"seed {self.seed}: no plane could begin in fair weather")

    def _skew_ms(self) -> int:
        """By how much the clock of the next plane is wrong."""
        return self.chance.choice((0, 0, 0, -5_000, 5_000, -3_600_000))

    async def _step(self) -> None:
        plane, chance = await self._plane(), self.chance
        kind = chance.choices(list(self._swarm), weights=list(self._swarm.values()))[0]
        match kind:
            case "client":
                self._submit(self._command())
            case "kill-rank":
                self._kill_rank(plane.engine.snapshot, await self.driver.observe())
            case "crash":
                for _ in range(chance.randrange(200)):
                    await asyncio.sleep(0)
                await plane.kill()
            case "arm":
                plane.arm(chance.choice(PLACES), chance.randint(1, 4))
            case "blind":
                self.weather.blind = not self.weather.blind
            case "disk":
                self.weather.journal_down = not self.weather.journal_down
            case "driver":
                self.weather.slow = chance.random() < 0.7
                self.weather.refuse_start = chance.choice((0, 200))
                self.weather.lose_answer = chance.choice((0, 300))
                self.weather.refuse_stop = chance.choice((0, 300))
            case _:
                await self.clock.advance(chance.randrange(STEP_MS_MAX))
        await self.clock.advance(chance.choice((0, 1, 40)))

    def _kill_rank(self, snapshot: Snapshot, reports: Sequence[RankReport]) -> None:
        running = [report.key for report in reports if report.state == "running"]
        if not running:
            return
        key = self.chance.choice(running)
        run = snapshot.runs.get(key.run)
        seen = run is not None and run.ranks[key.rank].started_ms is not None
        match self.chance.choice(("exited", "lost", "vanished")):
            case "vanished" if seen:  # one that nobody has seen yet would just be begun anew
                self.driver.vanish(key)
            case "lost":
                self.driver.kill(key, "lost")
            case _:
                self.driver.kill(key)

    async def _converge(self) -> list[str]:
        """Wait for the calm state; what is not calm when the time is up."""
        began_ms = self.clock.now_ms()
        restless = ["nothing was looked at"]
        while self.clock.now_ms() - began_ms < CALM_MS_MAX:
            plane = await self._plane()
            await self.clock.advance(CALM_STEP_MS)
            restless = [*_restless(plane.engine.snapshot), *await self._left()]
            if not restless and all(task.done() for task in self._clients) and not plane.dead:
                return []
        return [f"not calm after {CALM_MS_MAX} ms: {item}" for item in restless]

    async def _left(self) -> list[str]:
        """Objects that live and serve nobody, or that nobody has forgotten though their run was judged, and
        those that have just ended, which nobody has seen yet."""
        snapshot = self.planes[-1].engine.snapshot
        found = []
        for report in await self.driver.observe():
            run = snapshot.runs.get(report.key.run)
            ended = report.state == "exited"
            left = run is None or (not ended and not _serves(snapshot, report.key.run))
            if left or (ended and run is not None and run.ranks[report.key.rank].end is None):
                found.append(f"{report.key.run}/{report.key.rank} is {report.state} and not forgotten")
        return found

    # Clients.

    def _submit(self, event: Event) -> None:
        task = asyncio.create_task(self._client(event))
        self._clients.add(task)

    async def _client(self, event: Event) -> None:
        """Ask until it is acknowledged: what was refused or not answered is asked again."""
        for _ in range(CLIENT_TRIES_MAX):
            plane = self.planes[-1]
            try:
                position = await plane.engine.submit([event])
            except SteersmanError:
                await self.clock.sleep_ms(CLIENT_PAUSE_MS)
            else:
                self._acknowledged.append((position, event))
                return

    def _command(self) -> Event:
        chance = self.chance
        if self._services and chance.random() < 0.4:
            return self._service_command(chance.choice(self._services))
        name = chance.choice(self._names)
        match chance.choice(("up", "up", "up", "stop", "down")):
            case "up":
                spec, restarts = self._workload(name), True
                before = self.planes[-1].engine.snapshot.workloads.get(name)
                if before is not None and chance.random() < 0.4:  # a change that needs no new run
                    job = msgspec.structs.replace(before.spec.body, retry=spec.body.retry)
                    spec, restarts = (
                        msgspec.structs.replace(before.spec, body=job, priority=spec.priority),
                        False,
                    )
                return WorkloadDeclared(workload=spec, digest=f"{chance.random()}", restarts=restarts)
            case "stop":
                return StopRequested(workload=name)
            case _:
                return RemoveRequested(workload=name)

    def _service_command(self, name: WorkloadName) -> Event:
        chance = self.chance
        before = self.planes[-1].engine.snapshot.services.get(name)
        match chance.choice(("up", "up", "up", "up", "stop", "down")):
            case "up":
                spec, restarts = self._service(name), True
                if before is not None and chance.random() < 0.4:  # other bounds are no other revision
                    spec, restarts = msgspec.structs.replace(before.spec, scaling=spec.scaling), False
                return ServiceDeclared(service=spec, digest=f"{chance.random()}", restarts=restarts)
            case "stop":
                return StopRequested(workload=name)
            case _:
                return RemoveRequested(workload=name)

    def _service(self, name: WorkloadName) -> Service:
        chance = self.chance
        least = chance.choice((0, 1, 1, 2))
        source = ArtifactRef(workload=chance.choice(self._names), artifact="out")
        digest = chance.choice(("sha256:1", "sha256:2"))
        return Service(
            name=name,
            model=chance.choice((OnnxModel(path="/m", digest=digest), OnnxModel(artifact=source))),
            resources=Resources(cpu_milli=chance.choice((200, 500))),
            scaling=Scaling(min_replicas=least, max_replicas=least + 1),
            rollout=RolloutPolicy(
                surge_max=1,
                ready_timeout_ms=6_000,
                crashes_max=chance.choice((1, 3)),
                ready_ms_min=500 * least,
            ),
            stop_grace_ms=chance.choice((0, 500, 3_000)),
            priority=chance.choice((0, 1, 3)),
        )

    def _fleet(self) -> Fleet:
        chance = self.chance
        nodes = [
            Node(
                id=NodeId(f"node-{number}"),
                driver="sim",
                cpu_milli=chance.choice((1_000, 2_000, 2_000)),
                memory_bytes=chance.choice((2, 8)) * GIB,
                devices=tuple(
                    Device(id=DeviceId(f"gpu-{number}-{at}"), kind="A100")
                    for at in range(chance.choice((0, 2)))
                ),
            )
            for number in range(chance.randint(1, 3))
        ]
        return Fleet(name="fleet", nodes=tuple(nodes))

    def _workload(self, name: WorkloadName) -> Workload:
        chance = self.chance
        earlier = [other for other in self._names if other < name]
        inputs = (
            (Input(name="in", workload=chance.choice(earlier), artifact="out"),)
            if earlier and chance.random() < 0.2
            else ()
        )
        events: tuple[RetryEvent, ...] = chance.choice(
            ((), ("interruption",), ("interruption", "error"), ("error",))
        )
        job = Job(
            run="train",
            num_nodes=chance.choice((1, 1, 1, 1, 2, 3)),
            inputs=inputs,
            artifacts=(Artifact(name="out", path="out"),) if chance.random() < 0.5 else (),
            max_duration_ms=chance.choice((None, None, 5_000)),
            stop_grace_ms=chance.choice((0, 500, 3_000)),
            retry=Retry(on_events=events, attempts_max=chance.choice((1, 3, 9))),
            checkpoint=CheckpointPolicy(enabled=chance.random() < 0.8, interval_ms_min=500),
        )
        resources = Resources(
            cpu_milli=chance.choice((500, 1_000, 1_000, 2_000)),
            memory_bytes=chance.choice((0, GIB)),
            accelerators=(("A100", 1),) if chance.random() < 0.15 else (),
        )
        return Workload(name=name, body=job, resources=resources, priority=chance.choice((-1, 0, 0, 1, 2)))


_FAULTS: dict[str, Callable[[Behaviour], Behaviour]] = {
    "": lambda sane: sane,
    "code": lambda sane: msgspec.structs.replace(sane, exit_code=3),
    "signal": lambda sane: msgspec.structs.replace(sane, signal=11),
    "setup": lambda sane: msgspec.structs.replace(sane, setup_code=4),
    "memory": lambda sane: msgspec.structs.replace(sane, signal=9, cause="memory"),
    "refuses": lambda sane: msgspec.structs.replace(sane, refuses="no such folder"),
}


def _serving(own: random.Random, *, good: bool) -> Behaviour:
    """A replica, or the gateway: serves until it is told to end, unless something is wrong with it."""
    sane = Behaviour(
        run_ms=None,
        ready_ms=own.choice((1, 400, 2_000)),
        ignores_term=own.random() < 0.2,
        term_ms=own.choice((0, 50, 900)),
        term_code=own.choice((0, None)),
    )
    if good:
        return sane
    match own.choice(("", "", "", "hangs", "crashes", "hopeless", "tires")):
        case "hangs":
            return msgspec.structs.replace(sane, ready_ms=None)
        case "crashes":
            return msgspec.structs.replace(sane, run_ms=own.choice((0, 300)), exit_code=1)
        case "hopeless":
            return msgspec.structs.replace(sane, run_ms=10, exit_code=78, ready_ms=None)
        case "tires":
            return msgspec.structs.replace(sane, run_ms=own.choice((3_000, 15_000)), signal=11)
        case _:
            return sane


def _settled(state: WorkloadState, *, shared: bool) -> bool:
    """Final, or held for a reason that only somebody else can mend; where services share the fleet, their
    replicas may hold what it waits for."""
    waits = (Phase.DECLARED, Phase.QUEUED) if shared else (Phase.DECLARED,)
    return state.phase in FINAL_PHASES or (state.phase in waits and state.reason is not None)


def _restless(snapshot: Snapshot) -> list[str]:
    shared = len(snapshot.services) > 0
    found = [
        f"{name} is {state.phase.value}"
        for name, state in snapshot.workloads.sorted_items()
        if state.spec.body.program == "command" and (not _settled(state, shared=shared) or state.removing)
    ]
    for _, service in snapshot.services.sorted_items():
        found += _unserved(snapshot, service)
    return found + [f"{run} has not ended" for (run,) in snapshot.indexes.live if not _serves(snapshot, run)]


def _serves(snapshot: Snapshot, run: str) -> bool:
    """Whether a run is of a replica, or of the gateway, that is wanted."""
    state = snapshot.workloads[snapshot.runs[run].workload]
    return state.spec.body.program != "command" and not state.removing


def _unserved(snapshot: Snapshot, service: ServiceState) -> Iterator[str]:
    """What of a service is not as declared. Four things nobody here can mend: no model, one that can never
    be loaded, no room, and no node at all (a storm in which no fleet was ever declared)."""
    name = service.spec.name
    if service.removing or (service.stop_requested and service.replicas):
        yield f"{name} still has replicas"
    if service.stop_requested or service.removing:
        return
    jobs = [snapshot.workloads[ref.name] for ref in service.replicas]
    waits = service.reason is not None and service.reason.code in (Code.WAITING_INPUT, Code.INPUT_FAILED)
    crowded = any(job.phase is Phase.QUEUED for job in jobs)
    nowhere = not any(node.declared for _, node in snapshot.nodes.sorted_items())
    if waits or crowded or nowhere:
        return
    serving = service.serving
    if serving is None and service.rolling is None and service.failed is not None:
        if any(ref.revision == service.failed.number for ref in service.replicas):
            yield f"{name} still has replicas of what was given up"
        return
    if serving is None or service.rolling is not None:
        yield f"{name} has not rolled out"
    runs = [snapshot.runs[job.run] for job in jobs if job.run is not None]
    ready = [run for run in runs if run.state is RunState.RUNNING and run.ready_ms is not None]
    if not len(ready) == len(jobs) == service.target:
        yield f"{name} has {len(ready)} of {service.target} ready"


def storm(seed: int, journal: Journal, sensor: Callable[[Driver], Sensor]) -> Outcome:
    """Run one seed to its end."""
    return asyncio.run(Storm(seed, journal, sensor).whole())
