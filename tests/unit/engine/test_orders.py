"""From record and world to orders: a table of what is, and what is then asked for."""

from collections.abc import Collection, Sequence

import pytest
from msgspec.structs import replace
from tests.unit.engine.rig import declared, fleet, workload

from steersman.engine.orders import (
    STRAY_GRACE_MS,
    Begin,
    Discard,
    End,
    Order,
    Sweep,
    Tune,
    after_decisions,
    sweep,
)
from steersman.model.decisions import Admit, Placement, SetCheckpointInterval, Start, Stop
from steersman.model.events import Decided, Event, HomeCreated, Observed, RankExited, RankStarted
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import Snapshot
from steersman.ports.driver import RankKey, RankReport
from steersman.state.fold import fold

NAME = WorkloadName("a")
RUN = RunId("a.5")
WHY = reason(Code.PLACED)
NOW_MS = 10_000
KEY = RankKey(run=RUN, rank=0)
STRANGER = RankKey(run=RunId("b.1"), rank=0)


def after(snapshot: Snapshot, *events: Event) -> Snapshot:
    return fold(snapshot, enumerate(events, start=snapshot.position + 1))


def placement(rank: int = 0) -> Placement:
    return Placement(rank=rank, node=NodeId("n0"), cpu_milli=1_000, memory_bytes=0)


def decided(snapshot: Snapshot, *decisions: Start | Stop | Admit | SetCheckpointInterval) -> Snapshot:
    return after(snapshot, Decided(observed_at=snapshot.observed_at, decisions=decisions))


START = Start(workload=NAME, run=RUN, placements=(placement(),), checkpoint_interval_ms=None, reason=WHY)
STOP = Stop(workload=NAME, run=RUN, cause="stop-requested", grace_ms=1_000, reason=WHY)
BASE = after(
    Snapshot(),
    HomeCreated(home_id="h"),
    fleet(),
    declared(workload("a")),
    Observed(now_ms=NOW_MS),
)
QUEUED = decided(BASE, Admit(workload=NAME, reason=WHY))
STARTING = decided(QUEUED, START)
RUNNING = after(STARTING, RankStarted(run=RUN, rank=0, pid=1, at_ms=NOW_MS))
STOPPING_UNBEGUN = decided(STARTING, STOP)
STOPPING = decided(RUNNING, STOP)
ENDED = after(RUNNING, RankExited(run=RUN, rank=0, at_ms=NOW_MS, exit_code=0))


def report(state: str, key: RankKey = KEY, epoch: int = 0) -> RankReport:
    return RankReport(key=key, epoch=epoch, decision="4.0", state=state)  # type: ignore[arg-type]  # a table of words


BEGIN = Begin(driver="sim", key=KEY)
END = End(driver="sim", key=KEY, grace_ms=1_000, cause="stop-requested")
STRAY = End(driver="sim", key=KEY, grace_ms=STRAY_GRACE_MS, cause="stray")


def swept(
    snapshot: Snapshot,
    reports: Sequence[RankReport],
    *,
    before: Snapshot | None = None,
    busy: Collection[RankKey] = (),
    driver: str = "sim",
) -> Sweep:
    return sweep(snapshot if before is None else before, snapshot, driver, reports, busy)


TABLE: list[tuple[str, Snapshot, list[RankReport], list[Order]]] = [
    ("to be begun, and nothing there", STARTING, [], [BEGIN]),
    ("claimed, and never begun", STARTING, [report("starting")], [BEGIN]),
    ("begun, and not yet recorded", STARTING, [report("running")], []),
    ("in its setup", STARTING, [report("setup")], []),
    ("nobody can tell", STARTING, [report("unknown")], []),
    ("running, as recorded", RUNNING, [report("running")], []),
    ("running, and gone: the sensor says so", RUNNING, [], []),
    ("to be ended, and it runs", STOPPING, [report("running")], [END]),
    ("to be ended, and it is claimed only", STOPPING_UNBEGUN, [report("starting")], [END]),
    ("to be ended, and nobody can tell", STOPPING, [report("unknown")], []),
    ("to be ended, and it has", STOPPING, [report("exited")], []),
    ("ended for the record, alive for the world", ENDED, [report("running")], [STRAY]),
    ("ended, not judged", ENDED, [report("exited")], []),
    ("no such run", QUEUED, [report("running")], [STRAY]),
    ("no such run, and it has ended", QUEUED, [report("exited")], [Discard(driver="sim", key=KEY)]),
    ("no such run, and nobody can tell", QUEUED, [report("unknown")], []),
    ("knows of a future that we have lost", QUEUED, [report("running", epoch=1)], []),
    ("no such rank", RUNNING, [report("running"), report("running", RankKey(run=RUN, rank=1))],
     [replace(STRAY, key=RankKey(run=RUN, rank=1))]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("snapshot", "reports", "orders"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_sweep(snapshot: Snapshot, reports: list[RankReport], orders: list[Order]) -> None:
    assert swept(snapshot, reports) == Sweep(orders=tuple(orders), events=())


def test_what_was_told_to_end_before_it_began_is_said_to_have_ended() -> None:
    found = swept(STOPPING_UNBEGUN, [])
    assert found.orders == ()
    (event,) = found.events
    assert isinstance(event, RankExited)
    assert (event.run, event.rank, event.cause, event.stop_delivered) == (RUN, 0, "start-failed", True)
    assert after(STOPPING_UNBEGUN, event).runs[RUN].state.value == "ended"


def test_a_look_from_before_the_stop_proves_nothing() -> None:
    """The object may have begun after it was looked for and before the stop was decided."""
    assert swept(STOPPING_UNBEGUN, [], before=STARTING) == Sweep(orders=(), events=())


def test_a_look_from_before_the_start_proves_nothing() -> None:
    assert swept(STARTING, [], before=QUEUED) == Sweep(orders=(), events=())


def test_a_run_that_ended_since_the_look_is_left_alone() -> None:
    assert swept(ENDED, [], before=STARTING) == Sweep(orders=(), events=())
    assert swept(QUEUED, [], before=STARTING) == Sweep(orders=(), events=())


@pytest.mark.parametrize("snapshot", [STARTING, STOPPING, STOPPING_UNBEGUN, QUEUED])
@pytest.mark.parametrize("reports", [[], [report("running")], [report("exited")], [report("starting")]])
def test_a_key_with_an_order_under_way_is_left_alone(snapshot: Snapshot, reports: list[RankReport]) -> None:
    assert swept(snapshot, reports, busy={KEY}) == Sweep(orders=(), events=())


def test_another_drivers_ranks_are_not_ours() -> None:
    assert swept(STARTING, [], driver="other") == Sweep(orders=(), events=())
    assert swept(STOPPING_UNBEGUN, [], driver="other") == Sweep(orders=(), events=())


def test_what_is_left_of_the_grace() -> None:
    for later_ms, grace_ms in ((400, 600), (5_000, 0)):
        later = after(STOPPING, Observed(now_ms=NOW_MS + later_ms))
        assert swept(later, [report("running")]).orders == (replace(END, grace_ms=grace_ms),)


def test_decisions_become_orders_for_every_rank_that_has_not_ended() -> None:
    gang = replace(START, placements=(placement(0), placement(1)))
    tune = SetCheckpointInterval(workload=NAME, run=RUN, interval_ms=7, reason=WHY)
    admit = Admit(workload=NAME, reason=WHY)
    second = RankKey(run=RUN, rank=1)
    started = decided(QUEUED, gang)
    assert after_decisions(started, [admit, gang]) == [BEGIN, Begin(driver="sim", key=second)]
    assert after_decisions(started, [tune]) == [
        Tune(driver="sim", key=key, interval_ms=7) for key in (KEY, second)
    ]
    half = after(started, RankExited(run=RUN, rank=0, at_ms=NOW_MS, exit_code=1))
    assert after_decisions(decided(half, STOP), [STOP]) == [replace(END, key=second)]
    assert after_decisions(QUEUED, [STOP]) == []
