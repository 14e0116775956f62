"""A driver without processes: every rank is a small script over a clock.

What a rank is at an instant is computed from when it was started and asked to stop, so nothing has to run
and time may jump. The object is the world: a control plane may die and another take the same `SimDriver`
over, and finds its ranks as they are by then. `program` says how each start behaves; faults are behaviours.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from steersman.model.errors import DriverError
from steersman.model.ids import NodeId
from steersman.ports.clock import Clock
from steersman.ports.driver import (
    ArtifactReport,
    CheckpointReport,
    RankKey,
    RankReport,
    StartOrder,
    StopOrder,
)

SIGKILL, SIGTERM = 9, 15
REPORTED_CHECKPOINTS_MAX = 16

Cause = Literal["exited", "start-failed", "setup-failed", "lost", "memory"]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How a program goes. Times in milliseconds; `run_ms` None: until it is stopped.

    By itself it ends with `exit_code`, or `signal` if given, for `cause`. SIGTERM ends it after `term_ms`
    with `term_code`, or by the signal when that is None; `ignores_term` leaves it to SIGKILL. Checkpoints
    are published every `checkpoint_ms` of running: one step each, or with `step_ms` the whole steps of that
    length since `first_step`, and once more when SIGTERM ends it. A replica is ready `ready_ms` after its
    setup. `refuses` makes `start` itself fail with that message.
    """

    run_ms: int | None = 1_000
    exit_code: int = 0
    signal: int | None = None
    cause: Cause = "exited"
    setup_ms: int = 0
    setup_code: int = 0
    ignores_term: bool = False
    term_ms: int = 0
    term_code: int | None = None
    checkpoint_ms: int | None = None
    first_step: int = 0
    step_ms: int | None = None
    completes: bool = False
    artifacts: tuple[ArtifactReport, ...] = ()
    refuses: str = ""
    ready_ms: int | None = None


class _Rank(msgspec.Struct, kw_only=True):
    """A started rank. `kill_ms` is when everything of it is ended by force."""

    order: StartOrder
    behaviour: Behaviour
    started_ms: int
    epoch: int
    interval_ms: int | None
    saves: list[tuple[int, int]] = []
    term_ms: int | None = None
    kill_ms: int | None = None
    discarded: bool = False


class _End(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    exit_code: int | None = None
    signal: int | None = None
    cause: Cause = "exited"
    stopped: bool = False


class SimDriver:
    """Implements `ports.driver.Driver`. `starts` counts the programs begun per key: never more than one."""

    def __init__(self, clock: Clock, program: Callable[[StartOrder], Behaviour]) -> None:
        self._clock = clock
        self._program = program
        self._ranks: dict[RankKey, _Rank] = {}
        self._changed = asyncio.Event()
        self.starts: dict[RankKey, int] = {}

    @property
    def name(self) -> str:
        """The name that a node's `driver` field uses."""
        return "sim"

    async def start(self, order: StartOrder) -> None:
        """Begin one rank or find it. Raises DriverError."""
        rank = self._ranks.get(order.key)
        if rank is not None:
            _accept(rank, order.epoch)
            return
        behaviour = self._program(order)
        if behaviour.refuses:
            raise DriverError(behaviour.refuses)
        self._ranks[order.key] = _Rank(
            order=order,
            behaviour=behaviour,
            started_ms=self._clock.now_ms(),
            epoch=order.epoch,
            interval_ms=order.checkpoint_interval_ms,
        )
        self.starts[order.key] = self.starts.get(order.key, 0) + 1
        self._changed.set()

    async def stop(self, order: StopOrder) -> None:
        """SIGTERM now, SIGKILL after the grace. Raises DriverError when fenced."""
        rank = self._live(order.key)
        if rank is None:
            return
        _accept(rank, order.epoch)
        now = self._clock.now_ms()
        rank.term_ms = now if rank.term_ms is None else rank.term_ms
        kill_ms = now + max(order.grace_ms, 0)
        rank.kill_ms = kill_ms if rank.kill_ms is None else min(rank.kill_ms, kill_ms)
        self._changed.set()

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        """Keep the interval. Raises DriverError when fenced."""
        rank = self._live(key)
        if rank is not None:
            _accept(rank, epoch)
            rank.interval_ms = interval_ms
            if rank.behaviour.step_ms is not None:
                rank.saves.append((self._clock.now_ms(), interval_ms))

    def paid(self) -> list[tuple[NodeId, int, int]]:
        """(node, from, until) of every rank that ever began, in milliseconds: what is paid for."""
        now = self._clock.now_ms()
        return [
            (rank.order.placement.node, rank.started_ms, min(now, _ended_at(rank, now)))
            for _, rank in sorted(self._ranks.items())
        ]

    def checkpoint_interval_ms(self, key: RankKey) -> int | None:
        """The interval a rank has been told last, for tests."""
        return self._ranks[key].interval_ms

    async def observe(self) -> Sequence[RankReport]:
        """Every rank that was not discarded, in order of key."""
        now = self._clock.now_ms()
        return [_report(rank, now) for _, rank in sorted(self._ranks.items()) if not rank.discarded]

    def everything(self) -> list[RankReport]:
        """Every rank that ever began, forgotten ones too: the world's own books, for checkers."""
        now = self._clock.now_ms()
        return [_report(rank, now) for _, rank in sorted(self._ranks.items())]

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when a rank was ordered or changes by itself, or after the timeout."""
        now = self._clock.now_ms()
        changes = [at for rank in self._ranks.values() for at in _instants(rank) if at > now]
        sleep = asyncio.ensure_future(self._clock.sleep_ms(min([timeout_ms, *(at - now for at in changes)])))
        ordered = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((sleep, ordered), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            ordered.cancel()
        self._changed.clear()

    async def discard(self, key: RankKey) -> None:
        """Forget an ended rank. Raises DriverError when it has not ended."""
        if self._live(key) is not None:
            raise DriverError(
                f"{key.run}/{key.rank} has not ended and cannot be forgotten", hint="stop it first"
            )
        if key in self._ranks:
            self._ranks[key].discarded = True

    def kill(self, key: RankKey, cause: Cause = "exited") -> None:
        """A fault: the program is killed (SIGKILL), or with ``lost`` its record too, now."""
        rank = self._live(key)
        if rank is not None:
            passed_ms = self._clock.now_ms() - rank.started_ms
            setup_ms = min(rank.behaviour.setup_ms, passed_ms)
            rank.behaviour = msgspec.structs.replace(
                rank.behaviour,
                setup_ms=setup_ms,
                setup_code=0,
                run_ms=passed_ms - setup_ms,
                signal=None if cause == "lost" else SIGKILL,
                cause=cause,
            )
            self._changed.set()

    def lose_node(self, node: NodeId) -> None:
        """The machine is gone, and all that ran there with it, now."""
        for key, rank in sorted(self._ranks.items()):
            if rank.order.placement.node == node:
                self.kill(key, "lost")

    def vanish(self, key: RankKey) -> None:
        """A fault: the program is killed, and nothing is left that could tell."""
        rank = self._live(key)
        if rank is not None:
            self.kill(key, "lost")
            rank.discarded = True

    def _live(self, key: RankKey) -> _Rank | None:
        rank = self._ranks.get(key)
        if rank is None:
            return None
        end = _end(rank)
        return None if end is not None and end.at_ms <= self._clock.now_ms() else rank


def _accept(rank: _Rank, epoch: int) -> None:
    if epoch < rank.epoch:
        raise DriverError(
            f"{rank.order.key.run}/{rank.order.key.rank} has seen epoch {rank.epoch} "
            f"and refuses an order of epoch {epoch}",
            hint="another control plane has taken this home; stop this one",
            code="driver-fenced",
        )
    rank.epoch = epoch


def _own_end(rank: _Rank) -> _End | None:
    """How it ends when nobody stops it."""
    does, run_at = rank.behaviour, rank.started_ms + rank.behaviour.setup_ms
    if does.setup_code:
        return _End(at_ms=run_at, exit_code=does.setup_code, cause="setup-failed")
    if does.run_ms is None:
        return None
    at_ms = run_at + does.run_ms
    if does.cause in ("lost", "start-failed"):
        return _End(at_ms=at_ms, cause=does.cause)
    code = does.exit_code if does.signal is None else None
    return _End(at_ms=at_ms, exit_code=code, signal=does.signal, cause=does.cause)


def _end(rank: _Rank) -> _End | None:
    """How it ends, given what is known now."""
    does, own = rank.behaviour, _own_end(rank)
    if rank.term_ms is None or rank.kill_ms is None or (own is not None and own.at_ms <= rank.term_ms):
        return own
    killed = _End(at_ms=rank.kill_ms, signal=SIGKILL, stopped=True)
    obeyed_ms = rank.term_ms + does.term_ms
    if does.ignores_term or obeyed_ms > rank.kill_ms:
        stopped = killed
    elif does.term_code is None:
        stopped = _End(at_ms=obeyed_ms, signal=SIGTERM, stopped=True)
    else:
        stopped = _End(at_ms=obeyed_ms, exit_code=does.term_code, stopped=True)
    if own is not None and own.at_ms <= stopped.at_ms:
        return msgspec.structs.replace(own, stopped=True)
    return stopped


def _instants(rank: _Rank) -> list[int]:
    """When something of a rank changes by itself."""
    end, ready = _end(rank), _ready_at(rank.behaviour, rank.started_ms + rank.behaviour.setup_ms)
    changes = (rank.started_ms + rank.behaviour.setup_ms, ready, None if end is None else end.at_ms)
    return [at_ms for at_ms in changes if at_ms is not None]


def _ready_at(does: Behaviour, run_at: int) -> int | None:
    return None if does.ready_ms is None else run_at + does.ready_ms


def _report(rank: _Rank, now: int) -> RankReport:
    does, end = rank.behaviour, _end(rank)
    run_at = rank.started_ms + does.setup_ms
    until = now if end is None else min(now, end.at_ms)
    ready_at = _ready_at(does, run_at)
    report = RankReport(
        key=rank.order.key,
        epoch=rank.epoch,
        decision=rank.order.decision,
        state="setup" if now < run_at else "running",
        pid=None if does.cause == "start-failed" else 1_000 + len(rank.order.key.run) + rank.order.key.rank,
        started_ms=rank.started_ms,
        limits="sim",
        checkpoints=_checkpoints(does, run_at, until) if does.step_ms is None else _steps(rank, until),
        ready_ms=ready_at if ready_at is not None and ready_at <= until else None,
    )
    if end is None or now < end.at_ms:
        return report
    ended_well = end.exit_code == 0
    return msgspec.structs.replace(
        report,
        state="exited",
        ended_ms=end.at_ms,
        exit_code=end.exit_code,
        signal=end.signal,
        cause=end.cause,
        stop_delivered=end.stopped,
        completed=does.completes and ended_well,
        artifacts=does.artifacts if ended_well and rank.order.key.rank == 0 else (),
    )


def _ended_at(rank: _Rank, now: int) -> int:
    end = _end(rank)
    return now if end is None else end.at_ms


def _steps(rank: _Rank, until: int) -> tuple[CheckpointReport, ...]:
    """The newest checkpoint of a program that saves at the interval it is told, and as it is told to end."""
    does, end = rank.behaviour, _end(rank)
    run_at = rank.started_ms + does.setup_ms
    at_ms, interval_ms = run_at, does.checkpoint_ms or 0
    for changed_ms, other_ms in (*rank.saves, (until, interval_ms)):
        if interval_ms and changed_ms > at_ms:
            at_ms += (min(changed_ms, until) - at_ms) // interval_ms * interval_ms
        interval_ms = other_ms
    obeyed = end is not None and end.stopped and end.exit_code is not None and end.at_ms <= until
    if obeyed and rank.term_ms is not None:
        at_ms = max(at_ms, rank.term_ms)
    assert does.step_ms is not None
    steps = (at_ms - run_at) // does.step_ms
    if at_ms <= run_at or not steps:
        return ()
    step = does.first_step + steps
    return (CheckpointReport(step=step, at_ms=at_ms, save_ms=1_000, digest=f"sha256:{step:064x}"),)


def _checkpoints(does: Behaviour, run_at: int, until: int) -> tuple[CheckpointReport, ...]:
    if does.checkpoint_ms is None or until < run_at:
        return ()
    newest = (until - run_at) // does.checkpoint_ms
    oldest = max(newest - REPORTED_CHECKPOINTS_MAX, 0)
    return tuple(
        CheckpointReport(
            step=step,
            at_ms=run_at + step * does.checkpoint_ms,
            save_ms=1,
            digest=f"sha256:{step:064x}",
        )
        for step in range(oldest + 1, newest + 1)
    )
