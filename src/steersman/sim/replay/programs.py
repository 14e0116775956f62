"""A driver whose programs do the work of a recorded history.

Theory of operation. What a rank is at an instant follows from when it began, what its job needs, and what it
was told (see `work`); the driver wakes its sensor when one begins, saves for the first time, is ready or
ends. Later saves are told with whatever is told next, so that a decision for which a timer alone asks may not
know the newest; `freshen` asks for them before something comes from outside. How far a job has come is kept
by lineage, as the checkpoint folder of a real job is. All ranks of a gang do the same, but for the ends of a
failure, which are those that were recorded.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence

import msgspec

from steersman.model.errors import DriverError
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.snapshot import RankEnd
from steersman.ports.driver import CheckpointReport, RankKey, RankReport, StartOrder, StopOrder
from steersman.sim.replay.history import DRIVER
from steersman.sim.replay.work import Progress, Work, advance, first_save_at_ms, reaches_at_ms, saving_of
from steersman.sim.virtual import LoopClock
from steersman.state.ends import rank_failed

WorkOf = Callable[[StartOrder], Work]


class _Rank(msgspec.Struct, kw_only=True):
    """A started rank. `base_ms` is what its lineage had saved, `own_end_ms` when it ends unless stopped."""

    order: StartOrder
    work: Work
    epoch: int
    began_ms: int
    base_ms: int
    interval_ms: int | None
    fault: int | None
    progress: Progress = Progress()
    own_end_ms: int | None = None
    own_end: RankEnd = RankEnd()
    stop_at_ms: int | None = None
    end_ms: int | None = None
    end: RankEnd | None = None


class Programs:
    """Implements `ports.driver.Driver`. `work_of` gives the work of the job that an order is for."""

    def __init__(self, clock: LoopClock, work_of: WorkOf) -> None:
        self._clock = clock
        self._work_of = work_of
        self._ranks: dict[RankKey, _Rank] = {}
        self._saved: dict[tuple[WorkloadName, int], int] = {}
        self._failed: dict[tuple[WorkloadName, int], int] = {}
        self._changes: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """The name that a node's `driver` field uses."""
        return DRIVER

    async def start(self, order: StartOrder) -> None:
        """Begin one rank or find it. Raises DriverError when fenced."""
        if order.key in self._ranks:
            _accept(self._ranks[order.key], order.epoch)
            return
        work = self._work_of(order)
        failed = self._failed.get((order.workload, order.generation), 0)
        rank = _Rank(
            order=order,
            work=work,
            epoch=order.epoch,
            began_ms=self._clock.now_ms() + work.start_ms,
            base_ms=self._saved.get((order.workload, order.lineage), 0),
            interval_ms=order.checkpoint_interval_ms,
            fault=_next_fault(work, failed),
        )
        self._ranks[order.key] = rank
        self._plan(rank)
        self._wake_at(rank.began_ms)
        if work.ready_ms is not None:
            self._wake_at(rank.began_ms + work.ready_ms)
        saving = saving_of(rank.interval_ms, work.save_ms)
        if saving is not None:
            self._wake_at(rank.began_ms + first_save_at_ms(rank.progress, saving))

    async def stop(self, order: StopOrder) -> None:
        """It ends as its job does when it is told to, or by force after the grace. Raises DriverError."""
        rank = self._live(order.key)
        if rank is None:
            return
        _accept(rank, order.epoch)
        now_ms = self._clock.now_ms()
        asked_ms = now_ms if rank.stop_at_ms is None else rank.stop_at_ms
        rank.stop_at_ms = asked_ms
        obeyed = rank.work.stop_ms <= order.grace_ms
        end_ms = max(asked_ms + min(rank.work.stop_ms, max(order.grace_ms, 0)), now_ms)
        rank.end_ms = end_ms if rank.end_ms is None else min(rank.end_ms, end_ms)
        rank.end = rank.work.stop_end if obeyed else RankEnd(signal=9)
        rank.end = msgspec.structs.replace(rank.end, stop_delivered=True)
        self._wake_at(rank.end_ms)

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        """From now on it saves that often. Raises DriverError when fenced."""
        rank = self._live(key)
        if rank is None:
            return
        _accept(rank, epoch)
        rank.progress = _progress(rank, self._clock.now_ms())
        rank.interval_ms = interval_ms
        self._plan(rank)

    async def observe(self) -> Sequence[RankReport]:
        """Every rank that was not discarded."""
        now_ms = self._clock.now_ms()
        return [self._report(rank, now_ms) for rank in self._ranks.values()]

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when something has changed; the world has no faults that only a look could find."""
        del timeout_ms
        await self._changed.wait()
        self._changed.clear()

    async def discard(self, key: RankKey) -> None:
        """Forget an ended rank. Raises DriverError when it has not ended."""
        if self._live(key) is not None:
            raise DriverError(f"{key.run}/{key.rank} has not ended and cannot be forgotten")
        self._ranks.pop(key, None)

    def freshen(self) -> bool:
        """Have a look taken if it could tell of saves that nobody was told of; whether it could."""
        if not any(rank.work.save_ms is not None for rank in self._ranks.values()):
            return False
        self._changed.set()
        return True

    def look(self) -> None:
        """Have a look taken."""
        self._changed.set()

    def lose(self, node: NodeId, end: RankEnd, workload: WorkloadName | None = None) -> bool:
        """A fault: a rank on that node is gone, the named job's or else the first; with no name, all are."""
        here = [key for key, rank in self._ranks.items() if rank.order.placement.node == node]
        live = [key for key in here if self._live(key) is not None]
        if workload is not None:
            own = [key for key in live if self._ranks[key].order.workload == workload]
            live = (own or live)[:1]
        for key in live:
            rank = self._ranks[key]
            rank.end_ms, rank.end, rank.stop_at_ms = self._clock.now_ms(), end, None
        return bool(live)

    def _live(self, key: RankKey) -> _Rank | None:
        rank = self._ranks.get(key)
        return None if rank is None or _ended(rank, self._clock.now_ms()) is not None else rank

    def _plan(self, rank: _Rank) -> None:
        """Work out when it ends by itself."""
        work, goal_ms, end = (
            rank.work,
            rank.work.needs_ms,
            RankEnd(exit_code=0, completed=rank.work.completed),
        )
        rank.own_end_ms = None
        if rank.fault is not None:
            fault = work.faults[rank.fault]
            goal_ms, end = fault.progress_ms, fault.ends[min(rank.order.key.rank, len(fault.ends) - 1)]
            if not rank_failed(end) or end.stop_delivered:
                return  # it was another rank that failed, and this one was told to end
        if goal_ms is None:
            return
        saving = saving_of(rank.interval_ms, work.save_ms)
        rank.own_end_ms = rank.began_ms + reaches_at_ms(rank.progress, goal_ms - rank.base_ms, saving)
        rank.own_end = end
        self._wake_at(rank.own_end_ms)

    def _wake_at(self, at_ms: int) -> None:
        heapq.heappush(self._changes, at_ms)
        if self._changes[0] == at_ms:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_ms = max(self._changes[0] - self._clock.now_ms(), 0)
        self._timer = asyncio.get_running_loop().call_later(left_ms / 1000, self._due)

    def _due(self) -> None:
        now_ms, self._timer = self._clock.now_ms(), None
        while self._changes and self._changes[0] <= now_ms:
            heapq.heappop(self._changes)
        self._changed.set()
        if self._changes:
            self._set_timer()

    def _report(self, rank: _Rank, now_ms: int) -> RankReport:
        order, ended = rank.order, _ended(rank, now_ms)
        progress = _progress(rank, now_ms if ended is None else ended[0])
        begun = rank.began_ms <= now_ms
        ready_ms = None if rank.work.ready_ms is None else rank.began_ms + rank.work.ready_ms
        report = RankReport(
            key=order.key,
            epoch=rank.epoch,
            decision=order.decision,
            state="running" if begun else "setup",
            pid=1 if begun else None,
            started_ms=rank.began_ms if begun else None,
            limits=DRIVER,
            checkpoints=_checkpoints(rank, progress, ended),
            ready_ms=ready_ms if ready_ms is not None and ready_ms <= now_ms else None,
        )
        if ended is None:
            return report
        end_ms, end = ended
        self._settle(rank, report, end)
        return msgspec.structs.replace(
            report,
            state="exited",
            ended_ms=end_ms,
            exit_code=end.exit_code,
            signal=end.signal,
            cause=end.cause,
            detail=end.detail,
            completed=end.completed,
            stop_delivered=end.stop_delivered,
            artifacts=rank.work.artifacts if end.exit_code == 0 and order.key.rank == 0 else (),
        )

    def _settle(self, rank: _Rank, report: RankReport, end: RankEnd) -> None:
        """What the next try of the job begins with. Settling twice is settling once."""
        order = rank.order
        if report.checkpoints:
            lineage = (order.workload, order.lineage)
            self._saved[lineage] = max(self._saved.get(lineage, 0), report.checkpoints[-1].step)
        if rank.fault is not None and end is rank.own_end:
            self._failed[order.workload, order.generation] = rank.fault + 1


def _accept(rank: _Rank, epoch: int) -> None:
    if epoch < rank.epoch:
        raise DriverError(f"{rank.order.key.run} has seen epoch {rank.epoch} and refuses {epoch}")
    rank.epoch = epoch


def _next_fault(work: Work, failed: int) -> int | None:
    """Which failure comes next after so many; the last of a job that never succeeds comes again."""
    if failed < len(work.faults):
        return failed
    return len(work.faults) - 1 if work.faults and work.needs_ms is None else None


def _ended(rank: _Rank, now_ms: int) -> tuple[int, RankEnd] | None:
    """When and how it ended; None while it has not."""
    own_ms, told_ms = rank.own_end_ms, rank.end_ms
    if own_ms is not None and own_ms <= now_ms and (told_ms is None or own_ms <= told_ms):
        if rank.stop_at_ms is not None and rank.stop_at_ms < own_ms:
            return own_ms, msgspec.structs.replace(rank.own_end, stop_delivered=True)
        return own_ms, rank.own_end
    if told_ms is not None and told_ms <= now_ms and rank.end is not None:
        return told_ms, rank.end
    return None


def _progress(rank: _Rank, now_ms: int) -> Progress:
    saving = saving_of(rank.interval_ms, rank.work.save_ms)
    return advance(rank.progress, now_ms - rank.began_ms, saving)


def _checkpoints(
    rank: _Rank, progress: Progress, ended: tuple[int, RankEnd] | None
) -> tuple[CheckpointReport, ...]:
    """The newest save; its step is how far the job had come."""
    done_ms, at_ms = progress.saved_ms, progress.saved_at_ms
    if ended is not None and ended[1].stop_delivered and rank.work.saves_on_stop and rank.stop_at_ms:
        done_ms, at_ms = _progress(rank, rank.stop_at_ms).done_ms, ended[0] - rank.began_ms
    if at_ms is None or rank.order.key.rank != 0:
        return ()
    step = rank.base_ms + done_ms
    return (
        CheckpointReport(
            step=step,
            at_ms=rank.began_ms + at_ms,
            save_ms=rank.work.save_ms or 0,
            digest=f"sha256:{step:064x}",
        ),
    )
