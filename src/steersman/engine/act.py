"""Orders carried out: a bounded number at once, one after another for one key.

Theory of operation. The cycle hands orders over and goes on; this actor carries them out beside it. What
came of them is not taken from a driver's answer but seen by the sensors, except that a rank which could not
be started is reported as such at once. An order for a state that has moved on meanwhile is dropped. Orders
are not kept over a crash: the sweep makes them again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from steersman.engine.orders import Begin, Discard, End, Order, Tune
from steersman.engine.parts import Parts
from steersman.model.errors import SteersmanError
from steersman.model.events import ActionFailed, Event, RankExited
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.ports.driver import RankKey, StartOrder, StopOrder

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
        """Carry out orders until cancelled."""
        slots = asyncio.Semaphore(ACTIONS_MAX)
        async with asyncio.TaskGroup() as tasks:
            while True:
                order = await self._queue.get()
                await slots.acquire()
                tasks.create_task(self._carry_out(order, slots))

    async def _carry_out(self, order: Order, slots: asyncio.Semaphore) -> None:
        key = order.key
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                await self._do(order)
        finally:
            slots.release()
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]
                self._locks.pop(key, None)

    async def _do(self, order: Order) -> None:
        self._parts.reach(f"before-{type(order).__name__.lower()}")
        driver = self._parts.drivers[order.driver]
        match order:
            case Begin():
                await self._begin(order)
            case End():
                await self._attempt(
                    order,
                    driver.stop(
                        StopOrder(
                            key=order.key,
                            epoch=self._snapshot().epoch,
                            grace_ms=order.grace_ms,
                            cause=order.cause,
                        )
                    ),
                )
            case Tune():
                epoch = self._snapshot().epoch
                await self._attempt(
                    order, driver.set_checkpoint_interval(order.key, epoch, order.interval_ms)
                )
            case Discard():
                self._told.discard(order.key)
                await self._attempt(order, driver.discard(order.key))
        self._parts.reach(f"after-{type(order).__name__.lower()}")

    async def _attempt(self, order: Order, effect: Awaitable[None]) -> None:
        try:
            await effect
        except SteersmanError as error:
            if isinstance(order, End):
                self._told.discard(order.key)
            detail = f"{type(order).__name__} {order.key.run}/{order.key.rank}: {error.message}"
            await self._submit([ActionFailed(decision="", detail=detail[:DETAIL_CHARACTERS_MAX])])

    async def _begin(self, order: Begin) -> None:
        snapshot = self._snapshot()
        run = snapshot.runs.get(order.key.run)
        if run is None or run.state is RunState.ENDED or run.ranks[order.key.rank].end is not None:
            return
        if run.state is RunState.STOPPING and run.ranks[order.key.rank].started_ms is None:
            return  # told to end before it began: the sweep says so, for it never will
        try:
            start = self._start_order(snapshot, run, order.key)
            await self._parts.drivers[order.driver].start(start)
        except SteersmanError as error:
            detail = f"{error.message} (hint: {error.hint})" if error.hint else error.message
            await self._submit(
                [
                    RankExited(
                        run=run.id,
                        rank=order.key.rank,
                        at_ms=self._parts.clock.now_ms(),
                        cause="start-failed",
                        detail=detail[:DETAIL_CHARACTERS_MAX],
                    )
                ]
            )

    def _start_order(self, snapshot: Snapshot, run: Run, key: RankKey) -> StartOrder:
        state = snapshot.workloads[run.workload]
        body = state.spec.body
        inputs = []
        for item in body.inputs:
            origin = snapshot.workloads.get(item.workload)
            stored = [] if origin is None else [a for a in origin.artifacts if a.name == item.artifact]
            if not stored:
                raise SteersmanError(
                    f"the input {item.name!r} is gone: {item.workload} has no artifact {item.artifact!r}"
                )
            inputs.append((item.name, str(self._parts.artifact_path(stored[0].digest))))
        return StartOrder(
            key=key,
            workload=run.workload,
            generation=run.generation,
            decision=run.decision,
            epoch=snapshot.epoch,
            job=body,
            placement=run.ranks[key.rank].placement,
            num_ranks=len(run.ranks),
            checkpoint_interval_ms=run.interval_ms,
            input_paths=tuple(inputs),
            secrets=tuple((item.env, self._parts.open_secret(item.secret)) for item in body.secrets),
        )
