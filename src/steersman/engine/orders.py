"""From the state to what should be asked of the drivers: the orders of a cycle, and the sweep.

Theory of operation. Both are the same comparison: what the journal says should be against what the drivers
report there is. After its cycle a decision becomes orders at once; the sweep finds what a crash or a lost
answer left behind: a rank that should run and has no object is started (its key makes that idempotent), a
rank that should end and may not know is told, an object without a record is a stray and is ended, and the
object of a run that was judged is discarded. An object with a higher epoch than ours is left alone: it
knows of a future that this journal has lost.
"""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from steersman.model.decisions import Decision, SetCheckpointInterval, Start, Stop
from steersman.model.events import Event, RankExited
from steersman.model.ids import RunId
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.ports.driver import RankKey, RankReport

STRAY_GRACE_MS = 5_000


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Start a rank."""

    driver: str
    key: RankKey


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a rank to end."""

    driver: str
    key: RankKey
    grace_ms: int
    cause: str


class Tune(msgspec.Struct, frozen=True, kw_only=True):
    """Give a rank another checkpoint interval."""

    driver: str
    key: RankKey
    interval_ms: int


class Discard(msgspec.Struct, frozen=True, kw_only=True):
    """Forget an ended object whose run was judged."""

    driver: str
    key: RankKey


Order = Begin | End | Tune | Discard


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of record and world calls for."""

    orders: tuple[Order, ...]
    events: tuple[Event, ...]


def driver_of(snapshot: Snapshot, run: Run, rank: int) -> str:
    """The driver that holds a rank."""
    return snapshot.nodes[run.ranks[rank].placement.node].node.driver


def grace_left_ms(snapshot: Snapshot, run: Run) -> int:
    """What is left of a stopping run's grace."""
    grace_ms = snapshot.workloads[run.workload].spec.body.stop_grace_ms
    since_ms = snapshot.now_ms - (snapshot.now_ms if run.stop_ms is None else run.stop_ms)
    return max(grace_ms - since_ms, 0)


def after_decisions(snapshot: Snapshot, decisions: Sequence[Decision]) -> list[Order]:
    """The orders that recorded decisions call for; `snapshot` has them applied."""
    orders: list[Order] = []
    for decision in decisions:
        if not isinstance(decision, Start | Stop | SetCheckpointInterval):
            continue
        run = snapshot.runs.get(decision.run)
        if run is None:
            continue
        for rank, state in enumerate(run.ranks):
            if state.end is not None:
                continue
            driver, key = driver_of(snapshot, run, rank), RankKey(run=run.id, rank=rank)
            match decision:
                case Start():
                    orders.append(Begin(driver=driver, key=key))
                case Stop():
                    orders.append(
                        End(driver=driver, key=key, grace_ms=decision.grace_ms, cause=decision.cause)
                    )
                case SetCheckpointInterval():
                    orders.append(Tune(driver=driver, key=key, interval_ms=decision.interval_ms))
    return orders


def sweep(
    before: Snapshot,
    snapshot: Snapshot,
    driver: str,
    reports: Sequence[RankReport],
    busy: Collection[RankKey],
) -> Sweep:
    """What this driver's objects and the record do not agree on.

    The reports were taken after `before` and before `snapshot`: an object is missing only when the older
    one called for it, and a stray only when the newer one does not know it. `busy` are all keys that had an
    order under way at any of the three instants.
    """
    seen = {report.key for report in reports} | set(busy)
    orders: list[Order] = []
    events: list[Event] = []
    for report in reports:
        if report.key not in busy and report.epoch <= snapshot.epoch:
            orders += _object(snapshot, driver, report)
    for (run_id,) in before.indexes.live:
        run = snapshot.runs.get(RunId(run_id))
        for key in () if run is None else _not_begun(snapshot, run, driver):
            if key in seen:
                continue
            if snapshot.runs[key.run].state is not RunState.STOPPING:
                orders.append(Begin(driver=driver, key=key))
            elif before.runs[key.run].state is RunState.STOPPING:
                events.append(_never_began(snapshot, key))
    return Sweep(orders=tuple(orders), events=tuple(events))


def _not_begun(snapshot: Snapshot, run: Run, driver: str) -> Iterator[RankKey]:
    for rank, state in enumerate(run.ranks):
        begun = state.end is not None or state.started_ms is not None
        if not begun and driver_of(snapshot, run, rank) == driver:
            yield RankKey(run=run.id, rank=rank)


def _object(snapshot: Snapshot, driver: str, report: RankReport) -> Iterator[Order]:
    run = snapshot.runs.get(report.key.run)
    recorded = run is not None and report.key.rank < len(run.ranks)
    if report.state == "exited":
        if run is None:
            yield Discard(driver=driver, key=report.key)
        return
    if report.state == "unknown":
        return
    if run is None or not recorded or run.ranks[report.key.rank].end is not None:
        yield End(driver=driver, key=report.key, grace_ms=STRAY_GRACE_MS, cause="stray")
    elif run.state is RunState.STOPPING:
        yield End(
            driver=driver, key=report.key, grace_ms=grace_left_ms(snapshot, run), cause=run.stop or "stopped"
        )
    elif report.state == "starting":
        yield Begin(driver=driver, key=report.key)


def _never_began(snapshot: Snapshot, key: RankKey) -> RankExited:
    return RankExited(
        run=key.run,
        rank=key.rank,
        at_ms=snapshot.now_ms,
        cause="start-failed",
        detail="told to end before it began",
        stop_delivered=True,
    )
