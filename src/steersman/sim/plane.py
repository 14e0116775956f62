"""One life of a real engine in a simulated world, and the faults between the two.

Theory of operation. A `Plane` is a control plane between its start and its end: the real Engine over a
journal, a driver and a clock that it reaches through gates. A gate can fail (`Weather`), takes virtual time,
and is a place where the plane may be killed, just as every boundary that the engine names: `arm` names the
place and the arrival. A killed plane gets nothing through a gate any more, whatever its tasks still try, and
its memory is gone; journal and driver stay for the next one.

Everything runs on one thread in one order: journal writes, which the engine gives to a thread, are done at
once by `InlineExecutor`. So a seed is a bug report.
"""

import asyncio
import concurrent.futures
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.model.errors import DriverError, JournalWriteError, SteersmanError
from steersman.model.events import Event
from steersman.ports.clock import Clock
from steersman.ports.driver import Driver, RankKey, RankReport, StartOrder, StopOrder
from steersman.ports.gateway import GatewayAddress, GatewayConfig, Gateways, GatewayStats, ReplicaTarget
from steersman.ports.journal import Head, Journal, Record, Verification
from steersman.ports.sensor import Sensor

LATENCY_MS_MAX = 400
"""The longest that a driver takes for one call, in virtual milliseconds."""
OWN_CAUSES = frozenset({"stray", "start-failed"})
"""Causes of ends that are no decision's but the engine's own tidying up."""


class Crash(BaseException):
    """The control plane is gone at this instant."""


class Weather(msgspec.Struct, kw_only=True):
    """What fails at present. Rates are per mille of calls; all zero and False: nothing."""

    journal_down: bool = False
    blind: bool = False
    refuse_start: int = 0
    lose_answer: int = 0
    refuse_stop: int = 0
    slow: bool = False


class World(Protocol):
    """What outlives a plane."""

    weather: Weather
    chance: random.Random

    @property
    def journal(self) -> Journal: ...

    @property
    def driver(self) -> Driver: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def gateways(self) -> Gateways: ...

    def told(self, key: RankKey) -> None:
        """A decision's stop order reached the driver."""


class InlineExecutor(concurrent.futures.ThreadPoolExecutor):
    """Does the work where it is handed in."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Call `fn` now; the future is done when this returns."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except (SteersmanError, AssertionError, Crash) as error:
            done.set_exception(error)
        return done


class Plane:
    """One life. `start`, then `run` in a task, until `kill` or a crash; then `dead` and never again."""

    def __init__(
        self,
        world: World,
        sensor: Callable[[Driver], Sensor],
        *,
        skew_ms: int = 0,
        others: Sequence[Sensor] = (),
    ) -> None:
        self.world = world
        self.dead = False
        self.arrivals: Counter[str] = Counter()
        self._armed: tuple[str, int] | None = None
        driver = DriverGate(self)
        self.engine = Engine(
            Parts(
                journal=JournalGate(self),
                drivers={driver.name: driver},
                sensors=[*others, sensor(driver)],
                clock=SkewedClock(world.clock, skew_ms),
                build="sim",
                boot_id="sim",
                open_secret=lambda name: name,
                artifact_path=lambda digest: Path("artifacts") / digest,
                new_home_id=lambda: "sim",
                gateways=GatewaysGate(self),
                reach=self.reach,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def arm(self, place: str, nth: int) -> None:
        """Crash at the nth arrival at a place from now on; ``*`` is any place."""
        self.arrivals.clear()
        self._armed = (place, nth)

    def armed(self) -> int | None:
        """How many more arrivals it lives through; None: nothing is armed."""
        return None if self._armed is None else self._armed[1] - self.arrivals[self._armed[0]]

    def reach(self, place: str) -> None:
        """A place where the plane may be killed."""
        if self.dead:
            raise Crash(place)
        self.arrivals[place] += 1
        self.arrivals["*"] += 1
        if self._armed is not None and self.arrivals[self._armed[0]] >= self._armed[1]:
            self.dead = True
            raise Crash(place)

    async def begin(self) -> bool:
        """Start the engine and its loop; False when it could not, or died of it."""
        try:
            await self.engine.start()
        except (SteersmanError, Crash):
            self.dead = True
            return False
        self._task = asyncio.create_task(self.engine.run())
        return True

    async def kill(self) -> None:
        """End it at the await where each of its tasks happens to be."""
        self.dead = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ended(self) -> bool:
        """Whether it does nothing any more. Raises what its engine could not get over."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
            self.dead = True
        return self.dead and (self._task is None or self._task.done())


class SkewedClock:
    """A machine's clock that is wrong by a constant."""

    def __init__(self, true: Clock, skew_ms: int) -> None:
        self._true = true
        self._skew_ms = skew_ms

    def now_ms(self) -> int:
        return self._true.now_ms() + self._skew_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        await self._true.sleep_ms(duration_ms)


class JournalGate:
    """The journal as one plane reaches it."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def _through(self) -> Journal:
        if self._plane.dead:
            raise Crash("journal")
        return self._plane.world.journal

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        self._plane.reach("journal:append")
        if self._plane.world.weather.journal_down:
            raise JournalWriteError("the disk is full", hint="free some space")
        position = self._through().append(events, at_ms)
        self._plane.reach("journal:appended")
        return position

    def head(self) -> Head:
        return self._through().head()

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]:
        return self._through().read(after, limit)

    def verify(self) -> Verification:
        return self._through().verify()

    def save_image(self, position: int, build: str, image: bytes) -> None:
        if self._plane.world.weather.journal_down:
            raise JournalWriteError("the disk is full", hint="free some space")
        self._through().save_image(position, build, image)

    def load_image(self, build: str) -> tuple[int, bytes] | None:
        return self._through().load_image(build)

    def close(self) -> None:
        """The world keeps the journal."""


class GatewaysGate:
    """The gateway's files as one plane reaches them."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def target(self, run: str) -> ReplicaTarget:
        return self._plane.world.gateways.target(run)

    def publish(self, config: GatewayConfig) -> None:
        self._plane.reach("publish:sent")
        self._plane.world.gateways.publish(config)
        self._plane.reach("publish:done")

    def observe(self, now_ms: int) -> tuple[GatewayStats, ...]:
        return self._plane.world.gateways.observe(now_ms)

    def address(self) -> GatewayAddress | None:
        return self._plane.world.gateways.address()


class DriverGate:
    """The driver as one plane reaches it: late, failing, and losing answers as the weather is."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    @property
    def name(self) -> str:
        return self._plane.world.driver.name

    def _happens(self, per_mille: int) -> bool:
        return self._plane.world.chance.randrange(1_000) < per_mille

    async def _travel(self, place: str) -> None:
        world = self._plane.world
        if world.weather.slow:
            await world.clock.sleep_ms(world.chance.randrange(LATENCY_MS_MAX))
        self._plane.reach(place)

    async def start(self, order: StartOrder) -> None:
        world = self._plane.world
        await self._travel("start:sent")
        if self._happens(world.weather.refuse_start):
            raise DriverError("no process could be made")
        await world.driver.start(order)
        await self._travel("start:done")
        if self._happens(world.weather.lose_answer):
            raise DriverError("the answer did not come")

    async def stop(self, order: StopOrder) -> None:
        world = self._plane.world
        await self._travel("stop:sent")
        if self._happens(world.weather.refuse_stop):
            raise DriverError("the stop did not get through")
        await world.driver.stop(order)
        if order.cause not in OWN_CAUSES:
            world.told(order.key)
        await self._travel("stop:done")

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        await self._travel("tune:sent")
        await self._plane.world.driver.set_checkpoint_interval(key, epoch, interval_ms)

    async def observe(self) -> Sequence[RankReport]:
        self._plane.reach("observe:sent")
        if self._plane.world.weather.blind:
            raise DriverError("nothing can be seen")
        reports = await self._plane.world.driver.observe()
        await self._travel("observe:done")  # by the time the answer is here the world has moved on
        return reports

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._plane.world.driver.wait_changed(timeout_ms)

    async def discard(self, key: RankKey) -> None:
        await self._travel("discard:sent")
        await self._plane.world.driver.discard(key)
        await self._travel("discard:done")
