"""The live engine over a recorded history, under one policy.

Theory of operation. The engine is the one that runs at home, over a journal that forgets, programs that do
the work of the history (`programs`), and time that jumps (`sim.virtual`). A feeder brings what came from
outside at the time at which it came; what was said of a job because it had ended waits until it has ended
here. It is over when every job that ended by itself in the record has ended here too, or when the limit of
time is reached: what waits then waits for ever.

The journal here keeps nothing: its events are counted as they come (`books`), so that memory grows with jobs
and not with events.
"""

import asyncio
import gc
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import msgspec

from steersman.model.decisions import Finish, Forget
from steersman.model.errors import ConflictError, SteersmanError
from steersman.model.events import Decided, Event, NodeHealth, PolicySet, Signal, WorkloadDeclared
from steersman.model.ids import WorkloadName
from steersman.model.policy import Policy
from steersman.model.snapshot import FINAL_PHASES, RankEnd, Snapshot
from steersman.ports.driver import Driver, RankKey, StartOrder
from steersman.ports.journal import Head, Record, Verification
from steersman.ports.sensor import Observation, Sensor
from steersman.sim.gateways import SimGateways
from steersman.sim.plane import InlineExecutor, Plane, Weather
from steersman.sim.replay.books import Books
from steersman.sim.replay.history import Happening, History, Loss
from steersman.sim.replay.programs import Programs
from steersman.sim.replay.result import Progress
from steersman.sim.replay.work import Work
from steersman.sim.virtual import LoopClock, VirtualLoop

LIMIT_SPANS = 3
"""A simulation may take so many times the record's length, and LIMIT_MS."""
LIMIT_MS = 24 * 3_600_000
TELL_EVERY = 500

SensorOf = Callable[[Driver], Sensor]


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `events`: how many a journal would hold. `unfinished`: jobs that ended in the record
    and not here. `unmet`: losses of a process that found none on their node."""

    books: Books
    events: int
    unfinished: int
    unmet: int


def simulate(history: History, policy: Policy | None, sensor: SensorOf, progress: Progress) -> Simulated:
    """The history under a policy, from its first to its last setting; None: under its own.

    `sensor` makes what looks at a driver. Raises SteersmanError.
    """
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(_World(history, policy, sensor, progress).whole())
    finally:
        gc.unfreeze()


class ForgetfulJournal:
    """Takes events, hands them on, and keeps none. Enough of a journal for an engine that never fails."""

    def __init__(self, taken: Callable[[int, Event], None]) -> None:
        self._taken = taken
        self._position = 0

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        del at_ms
        for event in events:
            self._position += 1
            self._taken(self._position, event)
        return self._position

    def head(self) -> Head:
        return Head(position=self._position, digest=bytes(32))

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]:
        del limit
        assert after == self._position, "the simulated engine failed, and its journal was not kept"
        return iter(())

    def verify(self) -> Verification:
        return Verification(rows=0, head=self.head(), problems=())

    def save_image(self, position: int, build: str, image: bytes) -> None:
        """Nobody reads it."""

    def load_image(self, build: str) -> None:
        """There is none."""
        del build

    def close(self) -> None:
        """Nothing is held."""


class Watch:
    """A sensor of programs that also says the recorded load on services when it is due."""

    def __init__(self, inner: Sensor) -> None:
        self._inner = inner
        self.signals: list[Signal] = []

    @property
    def name(self) -> str:
        return self._inner.name

    async def observe(self, snapshot: Snapshot) -> Observation:
        seen = await self._inner.observe(snapshot)
        signals, self.signals = tuple(self.signals), []
        return msgspec.structs.replace(seen, signals=signals)

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._inner.wait_changed(timeout_ms)


class _World:
    """Implements `sim.plane.World` for one simulation."""

    def __init__(self, history: History, policy: Policy | None, sensor: SensorOf, progress: Progress) -> None:
        self._history = history
        self._policy = policy
        self._sensor = sensor
        self._progress = progress
        self.books = Books(history.begin_ms)
        self.weather = Weather()
        self.chance = random.Random(0)  # noqa: S311 - fair weather asks for none
        self.gateways = SimGateways()
        self.journal = ForgetfulJournal(self._taken)
        self._left = {key for key, work in history.works.items() if work.counts}
        self._ended = 0
        self._unmet = 0
        self._held: dict[WorkloadName, deque[Happening]] = {}
        self._releases: list[asyncio.Task[None]] = []
        self._all_ended = asyncio.Event()

    async def whole(self) -> Simulated:
        """From the first event to the last end."""
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        self.clock = LoopClock(self._history.begin_ms)
        self.driver = Programs(self.clock, self._work_of)
        self._watch = Watch(self._sensor(self.driver))
        self._plane = Plane(self, lambda _: self._watch)
        if not await self._plane.begin():
            raise ConflictError("the simulated engine could not begin")
        span_ms = self._history.end_ms - self._history.begin_ms
        limit_ms = self._history.end_ms + LIMIT_SPANS * span_ms + LIMIT_MS
        feeder = asyncio.create_task(self._feed())
        limit = asyncio.create_task(self.clock.until_ms(limit_ms))
        try:
            await asyncio.wait((feeder, limit), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            if feeder.done():
                feeder.result()
        finally:
            for task in (feeder, limit):
                task.cancel()
            if not self._plane.engine.stats().failures:  # one that failed is not asked for more
                await self._plane.kill()
        snapshot = self._plane.engine.snapshot
        self.books.pass_to(self.clock.now_ms(), lambda: snapshot)
        return Simulated(
            books=self.books,
            events=self.journal.head().position,
            unfinished=len(self._left),
            unmet=self._unmet,
        )

    def _check(self) -> None:
        """In a world without faults nothing may fail, though the engine would get over it."""
        stats = self._plane.engine.stats()
        if stats.failures:
            words = f"the simulated engine failed {stats.failures} times, at last {stats.problem}"
            raise SteersmanError(words, hint="report this with the journal's events; it is a bug")

    def told(self, key: RankKey) -> None:
        """Nobody asks here."""

    # What the engine brings about.

    def _taken(self, position: int, event: Event) -> None:
        """An event is recorded, and not folded yet."""
        snapshot = self._plane.engine.snapshot
        self.books.take(position, event, lambda: snapshot)
        if isinstance(event, Decided):
            for decision in event.decisions:
                if isinstance(decision, Finish | Forget):
                    self._judged(decision.workload, snapshot)

    def _judged(self, name: WorkloadName, snapshot: Snapshot) -> None:
        state = snapshot.workloads.get(name)
        if state is None:
            return
        generation = state.generation if state.run is None else snapshot.runs[state.run].generation
        key = self.books.numbers.of(generation)
        if key in self._left:
            self._left.remove(key)
            self._ended += 1
            if self._ended % TELL_EVERY == 0:
                self._progress(self._ended / (self._ended + len(self._left)), f"{self._ended:,} jobs ended")
            if not self._left:
                self._all_ended.set()
        if name in self._held:
            self._releases.append(asyncio.create_task(self._release(name)))

    def _work_of(self, order: StartOrder) -> Work:
        """What the job of an order needs: of its own declaration, or of the one before that began a job."""
        if order.job.program != "command":
            service = order.workload if order.job.replica is None else order.job.replica.service
            return Work(fate="running", ready_ms=self._history.ready_ms.get(service))
        key = self.books.numbers.of(order.generation)
        assert key is not None, order.generation
        name, number = key
        known = (self._history.works.get((name, each)) for each in range(number, -1, -1))
        return next((work for work in known if work is not None), Work(fate="stopped"))

    # What comes from outside.

    async def _feed(self) -> None:
        """Everything that came from outside; returns when all has come to its end."""
        if self._policy is not None:
            await self._submit([PolicySet(policy=self._policy)])
        for at_ms, group in groupby(self._history.happenings, key=lambda item: item.at_ms):
            await self.clock.until_ms(at_ms - 1)
            self.driver.freshen()
            await self.clock.until_ms(at_ms)
            await self._submit([event for item in group for event in self._comes(item)])
        await self.clock.until_ms(self._history.end_ms)
        if self._left:
            await self._all_ended.wait()
        await asyncio.gather(*self._releases)

    async def _submit(self, events: Sequence[Event]) -> None:
        if events:
            await self._plane.engine.submit(events)
            if any(isinstance(event, NodeHealth) for event in events):
                self.driver.look()  # what is left of a dead node is for the sweep

    def _comes(self, item: Happening) -> Iterator[Event]:
        """The events to record now."""
        what, name = item.what, item.subject
        match what:
            case Loss():
                self._unmet += not self.driver.lose(what.node, what.end, what.workload)
                self.driver.look()
            case tuple():
                self._watch.signals += what
                self.driver.look()
            case PolicySet() if self._policy is not None:
                return
            case NodeHealth(health="dead"):
                self.driver.lose(what.node, RankEnd(cause="lost", detail="its node is dead"))
                yield what
            case _ if name is not None and (name in self._held or (item.after_end and self._goes_on(name))):
                self._held.setdefault(name, deque()).append(item)
            case _:
                yield what

    def _goes_on(self, name: WorkloadName) -> bool:
        state = self._plane.engine.snapshot.workloads.get(name)
        return state is not None and state.phase not in FINAL_PHASES

    async def _release(self, name: WorkloadName) -> None:
        """The job has ended: what was held for that comes now, up to what waits for another end."""
        held = self._held.get(name)
        events: list[Event] = []
        while held:
            declared = any(isinstance(event, WorkloadDeclared) for event in events)
            if declared and held[0].after_end:
                break
            what = held.popleft().what
            assert not isinstance(what, Loss | tuple), what
            events.append(what)
        if not held:
            self._held.pop(name, None)
        await self._submit(events)
