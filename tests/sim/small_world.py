"""Every story of a small world up to a depth, told by the real engine: 3 nodes, 3 workloads, 4 faults.

    python -m tests.sim.small_world [--depth N] [--seconds N]

Theory of operation. Most bugs show in small worlds if all of it is looked at. A story is a path of letters:
what clients ask, time that passes, and faults (a node is lost, a rank is killed, the control plane is killed,
now or at the nth boundary from now on, and comes back, perhaps with a clock that is late; outages: of the
journal, of the driver's eyes, of its answers). Breadth first, every letter that means something is tried in
every state. A path is told anew to a fresh home (real engine, sensor, deciders and fold; simulated driver and
journal), so nothing has to be copied. After its last letter every checker of what must always hold is asked;
two paths into one state (times counted from now, runs by their order, no positions) go on as one.

In each new state the faults then stop, and within a bound everything declared must come to its end, with
nothing left over: that is what "nobody starves" and "nothing leaks" mean here. The first violation of a
search has the shortest path that there is. From each of `ROOTS` on, what was looked at is complete up to the
depth that is reported.
"""

import argparse
import asyncio
import gc
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Self

import msgspec
from tests.properties.checkers import SNAPSHOT_LAWS
from tests.properties.counting import View

from steersman.engine.restore import replay
from steersman.journal import MemoryJournal
from steersman.model.events import (
    Decided,
    Event,
    FleetDeclared,
    NodeHealth,
    PolicySet,
    RemoveRequested,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, WorkloadName
from steersman.model.resources import Device, Resources
from steersman.model.snapshot import FINAL_PHASES, Run, Snapshot
from steersman.model.workload import CheckpointPolicy, Job, Retry, Workload
from steersman.ports.driver import RankKey, RankReport, StartOrder
from steersman.sensors.runs import RunSensor
from steersman.sim.checkers import always, violations
from steersman.sim.driver import Behaviour
from steersman.sim.plane import InlineExecutor, Weather
from steersman.sim.storm import GIB, POLICY, Storm
from steersman.state.fold import fold

Story = tuple[str, ...]

NODES = tuple(
    Node(
        id=NodeId(name),
        driver="sim",
        cpu_milli=cores * 1_000,
        memory_bytes=8 * GIB,
        devices=tuple(Device(id=DeviceId(f"{name}/gpu"), kind="A100") for _ in range(devices)),
    )
    for name, cores, devices in (("a", 2, 1), ("b", 2, 0), ("c", 1, 0))
)


def _job(name: str, ranks: int, cores: int, priority: int, *, gpus: int = 0, saves: bool = False) -> Workload:
    return Workload(
        name=WorkloadName(name),
        body=Job(
            run="train",
            num_nodes=ranks,
            stop_grace_ms=500,
            retry=Retry(on_events=("interruption", "error"), attempts_max=3),
            checkpoint=CheckpointPolicy(enabled=saves, interval_ms_min=500),
        ),
        resources=Resources(
            cpu_milli=cores * 1_000, memory_bytes=GIB, accelerators=(("A100", gpus),) if gpus else ()
        ),
        priority=priority,
    )


WORKLOADS = (
    _job("gang", 2, 1, 0),
    _job("low", 1, 2, -1, saves=True),
    _job("top", 1, 2, 1, gpus=1),
)
"""Six cores are asked of five, so the last waits; `low` has to yield its node to `top` when it is there."""
PROGRAMS = {
    "gang": Behaviour(run_ms=1_500, ignores_term=True),
    "low": Behaviour(run_ms=3_000, checkpoint_ms=700, term_ms=50, term_code=75),
    "top": Behaviour(run_ms=1_200, term_code=143),
}

PASS_MS = 1_000
SETTLE_MAX = 6
COLLECT_EVERY = 32
ROOTS: tuple[Story, ...] = (
    (),
    ("up low", "up gang", "up top"),
    ("up gang", "pass", "up low", "pass", "up top"),
)
"""An empty home, one where all three come at once, one where the low one has to yield."""
KILLED_AT = (0, 1, 2, 3, 5, 8)
"""The control plane is killed now (0) or at the so manyth boundary that it passes from now on."""
LATE_MS = -3_600_000
"""By how much the clock of a plane that is restarted late is behind that of the one before."""
FAULTS = ("lose", "crash", "kill", "outage")


class SmallWorld(Storm):
    """One home; `tell` lets a letter happen."""

    def __init__(self) -> None:
        super().__init__(0, MemoryJournal(), RunSensor)
        self.skew_ms = 0
        self.lost: set[str] = set()
        self._at: dict[RankKey, str] = {}
        self._saying: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[asyncio.Task[None], Event] = {}

    def _skew_ms(self) -> int:
        return self.skew_ms

    def _program(self, order: StartOrder) -> Behaviour:
        if order.placement.node in self.lost:
            return Behaviour(refuses="the node does not answer")
        self._began[order.key] = self.journal.head().position
        self._at[order.key] = order.placement.node
        return PROGRAMS[order.workload]

    def _submit(self, event: Event) -> None:
        self._ask(event, self._client(event))

    def _ask(self, event: Event, asking: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(asking)
        self._clients.add(task)
        self._asked[task] = event
        return task

    async def open(self) -> None:
        """A control plane over a fleet and nothing else."""
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        await self._plane()
        self._submit(PolicySet(policy=POLICY))
        self._submit(FleetDeclared(fleet=Fleet(name="fleet", nodes=NODES)))
        await self._settle()

    def letters(self) -> Iterator[str]:
        """Everything that can happen next and would change something."""
        yield "pass"
        plane = self.planes[-1]
        snapshot = plane.engine.snapshot
        for spec in WORKLOADS:
            state = snapshot.workloads.get(spec.name)
            if state is None or state.phase in FINAL_PHASES:
                yield f"up {spec.name}"
            elif not (state.stop_requested or state.removing):
                yield f"{'stop' if spec.name == 'low' else 'down'} {spec.name}"
        yield from (f"{'back' if node.id in self.lost else 'lose'} {node.id}" for node in NODES)
        running = {report.key.run for report in self.driver.everything() if report.state == "running"}
        yield from (f"crash {run.workload}" for id_, run in snapshot.runs.sorted_items() if id_ in running)
        if plane.dead:
            yield from ("restart", "restart late")
        elif plane.armed() is None:
            yield from (f"kill {nth}" for nth in KILLED_AT)
        yield from ("outage journal", "outage eyes", "outage answers")

    async def tell(self, letter: str) -> None:
        """Let it happen, and the home do what it does about it at once."""
        kind, _, what = letter.partition(" ")
        match kind:
            case "pass":
                await self.clock.advance(PASS_MS)
            case "up":
                spec = next(item for item in WORKLOADS if item.name == what)
                self._submit(WorkloadDeclared(workload=spec, digest=what))
            case "stop":
                self._submit(StopRequested(workload=WorkloadName(what)))
            case "down":
                self._submit(RemoveRequested(workload=WorkloadName(what)))
            case "restart":
                self.skew_ms = LATE_MS if what else 0
                await self._plane()
            case _:
                await self._fault(kind, what)
        await self._settle()

    async def _fault(self, kind: str, what: str) -> None:
        match kind:
            case "lose":
                self._lose(what)
            case "back":
                self._find_again(what)
            case "crash":
                self._crash(what)
            case "outage":
                self._outage(what)
            case "kill" if what == "0":
                await self.planes[-1].kill()
            case _:
                self.planes[-1].arm("*", int(what))

    def _lose(self, node: str) -> None:
        """Its programs are gone, nothing of them can be seen, and somebody says so."""
        self.lost.add(node)
        for key, at in self._at.items():
            if at == node:
                self.driver.vanish(key)
        self._say(NodeHealth(node=NodeId(node), health="dead"))

    def _find_again(self, node: str) -> None:
        self.lost.discard(node)
        self._say(NodeHealth(node=NodeId(node), health="alive"))

    def _say(self, health: NodeHealth) -> None:
        """Report it once what was said of the node before is on record: nobody rejoins unmissed."""
        before = self._saying.get(health.node)

        async def say() -> None:
            if before is not None:
                await before
            await self._client(health)

        self._saying[health.node] = self._ask(health, say())

    def _crash(self, workload: str) -> None:
        for report in self.driver.everything():
            if report.state == "running" and report.key.run.startswith(f"{workload}."):
                self.driver.kill(report.key)
                return

    def _outage(self, of: str) -> None:
        weather = self.weather
        match of:
            case "journal":
                weather.journal_down = not weather.journal_down
            case "eyes":
                weather.blind = not weather.blind
            case _:
                weather.lose_answer = 0 if weather.lose_answer else 1_000

    async def _settle(self) -> None:
        """Until nothing moves without time."""
        position = -1
        for _ in range(SETTLE_MAX):
            if position == self.journal.head().position:
                return
            position = self.journal.head().position
            await self.clock.advance(0)

    def broken(self) -> list[str]:
        """What does not hold now and must at any instant."""
        evidence = self.evidence()
        found = always(evidence)
        plane = self.planes[-1]
        if not plane.dead:
            snapshot = plane.engine.snapshot
            if snapshot != fold(Snapshot(), evidence.history):
                found.append("the state is not what the journal says")
            found += _lawless(snapshot)
        return found

    async def calm(self) -> list[str]:
        """The faults stop; what does not hold when all should be over."""
        self._calm, self.weather = True, Weather()
        await self._plane()
        for node in sorted(self.lost):
            self._find_again(node)
        found = await self._converge()
        snapshot = self.planes[-1].engine.snapshot
        found += [
            f"{name} never came to its end: it is {state.phase.value}"
            for name, state in snapshot.workloads.sorted_items()
            if state.phase not in FINAL_PHASES
        ]
        found += [
            f"{name} still has something leased or kept"
            for name, node in snapshot.nodes.sorted_items()
            if node.leases or node.used_cpu_milli or node.reserved_cpu_milli or node.reserved_accelerators
        ]
        return [*found, *_lawless(snapshot), *violations(self.evidence())]

    async def close(self) -> None:
        """End every task."""
        await self.planes[-1].kill()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def key(self) -> object:
        """The state, with times counted from now and runs by their order: equal keys, equal futures, but for
        what the engine remembers of the orders that it gave."""
        plane, now_ms = self.planes[-1], self.clock.now_ms()
        snapshot = replay(self.journal, Snapshot())
        known = {*(key.run for key in self.driver.starts), *(run for run, _ in snapshot.runs.sorted_items())}
        names = {run: at for at, run in enumerate(sorted(known, key=_age))}
        wake_ms = self.clock.next_wake_ms()
        return (
            _workloads_key(snapshot, names),
            [_run_key(run, names, snapshot.now_ms) for _, run in snapshot.runs.sorted_items()],
            [(name, node.health) for name, node in snapshot.nodes.sorted_items()],
            [_object_key(item, names, now_ms) for item in self.driver.everything()],
            (msgspec.structs.astuple(self.weather), sorted(self.lost), plane.dead, plane.armed()),
            [event for task, event in self._asked.items() if not task.done()],
            (now_ms + self.skew_ms - snapshot.now_ms, None if wake_ms is None else wake_ms - now_ms),
        )


def _age(run: str) -> tuple[str, int]:
    workload, _, position = run.rpartition(".")
    return workload, int(position)


def _workloads_key(snapshot: Snapshot, names: dict[str, int]) -> object:
    """Where each stands, in the order in which they came."""
    states = sorted(snapshot.workloads.sorted_items(), key=lambda item: item[1].declared_at)
    return [
        (
            (name, state.phase, None if state.reason is None else state.reason.code, state.outcome),
            (state.attempts, state.failures, state.short_failures, state.saved_step is None),
            (state.stop_requested, state.removing, state.overdue, state.recheck),
            max(state.not_before_ms - snapshot.now_ms, 0),
            None if state.run is None else names[state.run],
            [(kept.node, kept.amount.cpu_milli) for kept in state.reservations],
        )
        for name, state in states
    ]


def _run_key(run: Run, names: dict[str, int], now_ms: int) -> object:
    return (
        (names[run.id], run.state, run.stop, run.saved_ms is None),
        [
            None if at_ms is None else now_ms - at_ms
            for at_ms in (run.decided_ms, run.started_ms, run.stop_ms)
        ],
        [(rank.placement.node, rank.started_ms is None, rank.end, rank.unknown) for rank in run.ranks],
    )


def _object_key(report: RankReport, names: dict[str, int], now_ms: int) -> object:
    lives = report.state != "exited" and report.started_ms is not None
    return (
        (names[report.key.run], report.key.rank, report.state, report.exit_code, report.signal, report.cause),
        now_ms - (report.started_ms or 0) if lives else None,
    )


def _lawless(snapshot: Snapshot) -> list[str]:
    """The laws of a state that do not hold; that every index equals its rebuild is one of them."""
    found, view = [], View(snapshot)
    for law in SNAPSHOT_LAWS:
        try:
            law(view)
        except AssertionError as error:
            found.append(f"{law.__name__}: {error}")
    return found


class Visit(NamedTuple):
    """What a story led to: `letters` are those that can come next, none when the state was seen before."""

    key: bytes
    letters: tuple[str, ...]
    broken: tuple[str, ...]
    decided: Counter[str]


class Teller:
    """Tells stories, and of those that lead to what it has not seen yet the end as well."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._runner = asyncio.Runner()
        self._told = 0

    def visit(self, story: Story) -> Visit:
        """Tell one to a fresh home."""
        self._told += 1
        if self._told % COLLECT_EVERY == 0:  # an engine takes what is there at its start for lasting
            gc.unfreeze()
            gc.collect()
        return self._runner.run(self._visit(story))

    async def _visit(self, story: Story) -> Visit:
        world = SmallWorld()
        await world.open()
        for letter in story:
            await world.tell(letter)
        broken, key = world.broken(), msgspec.json.encode(world.key())
        letters: tuple[str, ...] = ()
        decided: Counter[str] = Counter()
        if not broken and key not in self._seen:
            self._seen.add(key)
            letters = tuple(world.letters())
            broken = await world.calm()
            for _, event in world.evidence().history:
                if isinstance(event, Decided):
                    decided.update(type(decision).__name__ for decision in event.decisions)
        await world.close()
        return Visit(key, letters, tuple(broken), decided)


class Search:
    """Breadth first from the roots; `found` is the shortest story that breaks something, and what it breaks.

    `whole` is the number of letters up to which everything was looked at.
    """

    def __init__(
        self, tell: Callable[[Iterable[Story]], Iterator[Visit]], roots: Sequence[Story] = ROOTS
    ) -> None:
        self.stories = 0
        self.whole = -1
        self.decided: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.found: tuple[Story, tuple[str, ...]] | None = None
        self._tell = tell
        self._roots = roots
        self._states: set[bytes] = set()

    @property
    def states(self) -> int:
        """How many different ones were met."""
        return len(self._states)

    def run(self, depth: int, seconds: float = math.inf) -> Self:
        """Look at everything up to a depth, or until the time is over or something is broken."""
        until = time.monotonic() + seconds
        level = list(self._roots)
        while self.whole < depth:
            following: list[Story] = []
            for story, visit in zip(level, self._tell(level), strict=True):
                self.stories += 1
                if visit.broken:
                    self.found = (story, visit.broken)
                if self.found is not None or time.monotonic() > until:
                    return self
                if visit.key not in self._states:
                    self._states.add(visit.key)
                    self.decided += visit.decided
                    self.faults.update(letter for letter in story if letter.split()[0] in FAULTS)
                    following += [(*story, letter) for letter in visit.letters]
            level = following
            self.whole += 1
        return self


def search(depth: int, roots: Sequence[Story] = ROOTS) -> Search:
    """In this process."""
    return Search(partial(map, Teller().visit), roots).run(depth)


_TELLER = Teller()


def _visit(story: Story) -> Visit:
    return _TELLER.visit(story)


def main(argv: Sequence[str] | None = None) -> int:
    """Search with every core, and say what was looked at."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.small_world", description="every story of a small world up to a depth"
    )
    parser.add_argument("--depth", type=int, default=3, help="letters after each root")
    parser.add_argument("--seconds", type=float, default=900, help="stop looking after so long")
    asked = parser.parse_args(argv)
    with multiprocessing.Pool() as pool:
        done = Search(partial(pool.imap, _visit, chunksize=8)).run(asked.depth, asked.seconds)
        pool.terminate()
    print(f"{done.states} states by {done.stories} stories; everything up to {done.whole} letters")
    print("decided:", *(f"{kind} {count}" for kind, count in sorted(done.decided.items())))
    print("faults:", *(f"{kind}: {count};" for kind, count in sorted(done.faults.items())))
    if done.found is not None:
        story, broken = done.found
        print("broken by: " + ", ".join(story), *broken, sep="\n  ")
        return 1
    if done.whole < asked.depth:
        print(
            f"error: {asked.seconds:g} s were not enough for {asked.depth} letters; hint: --seconds, --depth"
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
