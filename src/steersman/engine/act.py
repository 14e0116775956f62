"""Orders carried out: a bounded number at once, one after another for one key.

Theory of operation. The cycle hands orders over and goes on; this actor carries them out beside it. What
came of them is not taken from a driver's answer but seen by the sensors, except that a rank which could not
be started is reported as such at once, when nothing of it is there: a start that failed may have begun all
the same, so its key is told to end first, and what is there then is left to the sensors. An order for a
state that has moved on meanwhile is dropped. Orders are not kept over a crash, nor over a failure to record
what came of them: the sweep makes them again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from steersman.engine.orders import Begin, Discard, End, Order, Tune
from steersman.engine.parts import Parts
from steersman.model.errors import DriverError, NotTakenError, SteersmanError
from steersman.model.events import ActionFailed, Event, RankExited
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.ports.driver import Driver, RankKey, StartOrder, StopOrder

ACTIONS_MAX = 16
ORDERS_MAX = 100_000
DETAIL_CHARACTERS_MAX = 500

Submit = Callable[[Sequence[Event]], Awaitable[int]]


class Actor:
    """Carries out orders. `snapshot` gives the state to build an order from at the moment it is due."""

    def __init__(self, parts: Parts, snapshot: Callable[[], Snapshot], submit: Submit) -> None:
        self._parts = parts
        self._snapshot = snapshot
        self._submit = submit
        self._queue: asyncio.Queue[Order] = asyncio.Queue(ORDERS_MAX)
        self._locks: dict[RankKey, asyncio.Lock] = {}
        self._busy: dict[RankKey, int] = {}
        self._told: set[RankKey] = set()
        self._trouble: dict[RankKey, str] = {}

    def busy(self) -> frozenset[RankKey]:
        """Keys with an order that was handed over and is not done."""
        return frozenset(self._busy)

    def hand_over(self, orders: Sequence[Order]) -> None:
        """Queue orders. What does not fit the queue is dropped: the sweep brings it again."""
        for order in orders:
            if isinstance(order, End) and order.key in self._told:
                continue
            if self._queue.full():
                return
            if isinstance(order, End):
                self._told.add(order.key)
            self._busy[order.key] = self._busy.get(order.key, 0) + 1
            self._queue.put_nowait(order)

    async def run(self) -> None:
        """Carry out orders until cancelled. It begins with none: the sweep brings what a failed life had."""
        self._queue = asyncio.Queue(ORDERS_MAX)
        for held in (self._busy, self._told, self._locks, self._trouble):
            held.clear()
        slots = asyncio.Semaphore(ACTIONS_MAX)
        async with asyncio.TaskGroup() as tasks:
            while True:
                order = await self._queue.get()
                await slots.acquire()
                tasks.create_task(self._carry_out(order, slots))

    async def _carry_out(self, order: Order, slots: asyncio.Semaphore) -> None:
        key, done = order.key, False
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                self._parts.reach(f"before-{type(order).__name__.lower()}")
                done = await self._do(order)
                self._parts.reach(f"after-{type(order).__name__.lower()}")
        finally:
            slots.release()
            if isinstance(order, Discard) or (isinstance(order, End) and not done):
                self._told.discard(key)
            if done:
                self._trouble.pop(key, None)
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]
                self._locks.pop(key, None)

    async def _do(self, order: Order) -> bool:
        """Whether the driver took the order, or there was nothing to do."""
        if isinstance(order, Begin):
            return await self._begin(order)
        try:
            driver, epoch = self._driver(order), self._snapshot().epoch
            match order:
                case End():
                    await driver.stop(
                        StopOrder(key=order.key, epoch=epoch, grace_ms=order.grace_ms, cause=order.cause)
                    )
                case Tune():
                    await driver.set_checkpoint_interval(order.key, epoch, order.interval_ms)
                case Discard():
                    await driver.discard(order.key)
        except SteersmanError as error:
            await self._failed(order, error)
            return False
        return True

    def _driver(self, order: Order) -> Driver:
        driver = self._parts.drivers.get(order.driver)
        if driver is None:
            raise DriverError(
                f"this control plane has no driver {order.driver!r}",
                hint=f"drivers are {', '.join(sorted(self._parts.drivers))}; change the node's declaration",
            )
        return driver

    async def _tell(self, event: Event) -> None:
        # What cannot be recorded now is found again by the sweep, as after a crash.
        with contextlib.suppress(SteersmanError):
            await self._submit([event])

    async def _failed(self, order: Order, error: SteersmanError) -> None:
        detail = f"{type(order).__name__} {order.key.run}/{order.key.rank}: {error.message}"
        if self._trouble.get(order.key) == detail:
            return  # said already; the sweep tries again every other second
        self._trouble[order.key] = detail
        await self._tell(ActionFailed(decision="", detail=detail[:DETAIL_CHARACTERS_MAX]))

    async def _begin(self, order: Begin) -> bool:
        snapshot, key = self._snapshot(), order.key
        run = snapshot.runs.get(key.run)
        if run is None or run.state is RunState.ENDED or run.ranks[key.rank].end is not None:
            return True
        if run.state is RunState.STOPPING and run.ranks[key.rank].started_ms is None:
            return True  # told to end before it began: the sweep says so, for it never will
        try:
            driver = self._driver(order)
            start = self._start_order(snapshot, run, key)
        except SteersmanError as error:
            await self._could_not_begin(key, error)
            return False
        try:
            await driver.start(start)
        except SteersmanError as error:
            try:
                left = await _left_of(driver, key, snapshot.epoch)
            except SteersmanError as blind:
                await self._failed(order, blind)
                return False
            await (self._failed(order, error) if left else self._could_not_begin(key, error))
            return False
        return True

    async def _could_not_begin(self, key: RankKey, error: SteersmanError) -> None:
        detail = f"{error.message} (hint: {error.hint})" if error.hint else error.message
        await self._tell(
            RankExited(
                run=key.run,
                rank=key.rank,
                at_ms=self._parts.clock.now_ms(),
                cause="not-taken" if isinstance(error, NotTakenError) else "start-failed",
                detail=detail[:DETAIL_CHARACTERS_MAX],
            )
        )

    def _start_order(self, snapshot: Snapshot, run: Run, key: RankKey) -> StartOrder:
        state = snapshot.workloads[run.workload]
        body = state.spec.body
        inputs = []
        for item in body.inputs:
            if item.digest is not None:
                inputs.append((item.name, str(self._parts.artifact_path(item.digest))))
                continue
            origin = snapshot.workloads.get(item.workload)
            stored = [] if origin is None else [a for a in origin.artifacts if a.name == item.artifact]
            if not stored:
                raise SteersmanError(
                    f"the input {item.name!r} is gone: {item.workload} has no artifact {item.artifact!r}"
                )
            inputs.append((item.name, str(self._parts.artifact_path(stored[0].digest))))
        placement = run.ranks[key.rank].placement
        node = snapshot.nodes.get(placement.node)
        return StartOrder(
            key=key,
            workload=run.workload,
            generation=run.generation,
            lineage=state.lineage,
            decision=run.decision,
            epoch=snapshot.epoch,
            job=body,
            placement=placement,
            node_devices=() if node is None else node.node.devices,
            num_ranks=len(run.ranks),
            gang=tuple(rank.placement for rank in run.ranks),
            cluster="" if node is None else node.node.cluster,
            checkpoint_interval_ms=run.interval_ms,
            input_paths=tuple(inputs),
            secrets=tuple((item.env, self._parts.open_secret(item.secret)) for item in body.secrets),
        )


async def _left_of(driver: Driver, key: RankKey, epoch: int) -> bool:
    """End whatever a failed start may have begun; whether there is an object, whose end the sensors will see.

    Raises DriverError when that cannot be told; then nothing is known, and nothing may be said.
    """
    await driver.stop(StopOrder(key=key, epoch=epoch, grace_ms=0, cause="start-failed"))
    return any(report.key == key for report in await driver.observe())
