"""Each checker on a history that is right, and on one wrong in just what it checks."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from steersman.model.decisions import Decision, Finish, Forget, Placement, Spawn, Start, Stop
from steersman.model.events import (
    CheckpointSaved,
    ClusterObserved,
    ControlPlaneStarted,
    Decided,
    Event,
    FleetDeclared,
    HomeCreated,
    NodeHealth,
    Observed,
    RankExited,
    RankReady,
    RankStarted,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Cluster, Fleet, Node
from steersman.model.ids import DeviceId, NodeId, RunId, WorkloadName
from steersman.model.reasons import Code, reason
from steersman.model.resources import Device, Resources
from steersman.model.service import CallableModel, Service
from steersman.model.workload import Job, Workload
from steersman.ports.driver import RankKey
from steersman.sim.checkers import (
    AT_REST,
    OF_EVIDENCE,
    OF_HISTORY,
    Evidence,
    Life,
    leases_fit,
    violations,
)

A, RUN = WorkloadName("a"), RunId("a.5")
KEY = RankKey(run=RUN, rank=0)
NODE = Node(
    id=NodeId("n"), cpu_milli=2_000, memory_bytes=100, devices=(Device(id=DeviceId("g"), kind="A100"),)
)
DECLARED = WorkloadDeclared(
    workload=Workload(name=A, body=Job(run="x"), resources=Resources(cpu_milli=1_000)), digest=""
)
PLACED = Placement(rank=0, node=NODE.id, cpu_milli=1_000, memory_bytes=60, devices=(DeviceId("g"),))
START = Start(
    workload=A, run=RUN, placements=(PLACED,), checkpoint_interval_ms=None, reason=reason(Code.PLACED)
)
OTHER = replace(
    START, workload=WorkloadName("b"), run=RunId("b.5"), placements=(replace(PLACED, devices=()),)
)
STOP = Stop(workload=A, run=RUN, cause="stop-requested", grace_ms=0, reason=reason(Code.STOP_REQUESTED))
FINISH = Finish(workload=A, outcome="succeeded", reason=reason(Code.SUCCEEDED))
FORGET = Forget(workload=A, reason=reason(Code.REMOVED))
STARTED = RankStarted(run=RUN, rank=0, pid=1, at_ms=1)
EXITED = RankExited(run=RUN, rank=0, at_ms=2, exit_code=3)
SAVED = CheckpointSaved(run=RUN, step=1, at_ms=1, save_ms=1, digest="")
HEAD: tuple[Event, ...] = (
    HomeCreated(home_id="h"),
    ControlPlaneStarted(epoch=1, build="", boot_id=""),
    FleetDeclared(fleet=Fleet(name="f", nodes=(NODE,))),
    DECLARED,
    Observed(now_ms=1),
)
LIFE = Life(key=KEY, starts=1, live=False, exit_code=3, began_after=6, told_after=7)


def decided(*decisions: Decision) -> Decided:
    return Decided(observed_at=5, decisions=decisions)


def history(*events: Event) -> tuple[tuple[int, Event], ...]:
    return tuple(enumerate((*HEAD, *events), start=1))


GOOD = history(
    decided(START), decided(STOP), STARTED, SAVED, EXITED, decided(FINISH), DECLARED, decided(FORGET)
)


def test_a_right_history_is_silent() -> None:
    evidence = Evidence(history=GOOD, lives=(LIFE,), acknowledged=((4, DECLARED),))
    assert violations(evidence) == []
    assert violations(Evidence(history=())) == []


SHOP = ServiceDeclared(
    service=Service(name=WorkloadName("shop"), model=CallableModel(target="m:f"), resources=Resources()),
    digest="",
)
SHOP_FORGET = Forget(workload=SHOP.service.name, reason=FORGET.reason)
SPAWN = Spawn(workload=SHOP.service.name, revision=1, job=DECLARED.workload, reason=FORGET.reason)
READY = RankReady(run=START.run, rank=0, at_ms=1, load_ms=1)
SECOND = replace(START, run=RunId("a.9"))
FOREIGN = replace(START, placements=(replace(PLACED, node=NodeId("elsewhere")),))


def part(start: Start, device_milli: int = 1000, mig_profile: str = "", mig_start: int = 0) -> Start:
    """The start with a part of the one device."""
    lease = Placement(
        rank=0,
        node=NODE.id,
        cpu_milli=1,
        memory_bytes=1,
        devices=(DeviceId("g"),),
        device_milli=device_milli,
        mig_profile=mig_profile,
        mig_start=mig_start,
    )
    return replace(start, placements=(lease,))


def test_parts_that_fit_are_silent() -> None:
    for one, other in (
        (part(START, device_milli=600), part(OTHER, device_milli=400)),
        (part(START, mig_profile="3g.20gb"), part(OTHER, mig_profile="3g.20gb", mig_start=4)),
    ):
        assert leases_fit(history(decided(one, other))) == []


def test_the_nodes_of_a_cluster_are_those_that_it_shows() -> None:
    joined = FleetDeclared(
        fleet=Fleet(name="f", nodes=(NODE,), clusters=(Cluster(name="gpu", address="h:1"),))
    )
    node = replace(NODE, id=NodeId("elsewhere"), infra="ray/gpu", devices=NODE.devices)
    shown, silent = ClusterObserved(cluster="gpu", nodes=(node,)), ClusterObserved(cluster="gpu", problem="x")
    for events in ([shown], [shown, joined], [shown, silent], [ClusterObserved(cluster="gpu"), shown]):
        assert leases_fit(history(joined, *events, decided(FOREIGN))) == []
    gone = ClusterObserved(cluster="gpu")
    assert leases_fit(history(joined, shown, decided(FOREIGN), gone)) == []
    for events in ([gone], [shown, gone], [shown, FleetDeclared(fleet=Fleet(name="f", nodes=(NODE,)))]):
        (found,) = leases_fit(history(joined, *events, decided(FOREIGN)))
        assert "not in the fleet" in found


GANG = replace(DECLARED, workload=replace(DECLARED.workload, body=Job(run="x", num_nodes=2)))
BAD_HISTORIES: list[tuple[str, Sequence[Event], str]] = [
    ("epochs_rise", [ControlPlaneStarted(epoch=1, build="", boot_id="")], "epoch 1 after epoch 1"),
    ("time_never_goes_back", [Observed(now_ms=5), Observed(now_ms=4)], "4 is now, and before that 5 was"),
    ("leases_fit", [decided(START, OTHER)], "120 bytes are leased on n"),
    ("leases_fit", [decided(replace(START, placements=(replace(PLACED, cpu_milli=2_001),)))],
     "2001 millicores"),
    ("leases_fit", [decided(START), decided(replace(OTHER, placements=(replace(PLACED, memory_bytes=0),)))],
     "device g of n is leased twice"),
    ("leases_fit", [decided(replace(START, placements=(replace(PLACED, devices=(DeviceId("h"),)),)))],
     "n has no such device"),
    ("leases_fit", [decided(part(START, device_milli=600), part(OTHER, device_milli=401))], "leased twice"),
    ("leases_fit", [decided(part(START, device_milli=600), part(OTHER))], "leased twice"),
    ("leases_fit", [decided(part(START, 100), part(OTHER, 1000, "1g.5gb"))], "leased twice"),
    ("leases_fit", [decided(part(START, 1000, "3g.20gb"), part(OTHER, 1000, "1g.5gb", 3))], "leased twice"),
    ("leases_fit", [decided(part(START, 1000, "4g.20gb"), part(OTHER, 1000, "4g.20gb", 4))], "leased twice"),
    ("leases_fit", [decided(FOREIGN)], "not in the fleet"),
    ("leases_fit", [decided(START), decided(START)], "granted while it is held"),
    ("one_live_run", [decided(START), decided(SECOND)], "a.9 begins while a.5 of a is live"),
    ("one_live_run", [decided(START), EXITED, decided(START)], "begun again"),
    ("decided_before_seen", [STARTED], "before it was decided"),
    ("decided_before_seen", [EXITED], "before it was decided"),
    ("decided_before_seen", [SAVED], "before it was decided"),
    ("decided_before_seen", [decided(START), replace(STARTED, rank=1)], "a.5/1 is heard of"),
    ("ends_agree", [decided(START), EXITED, replace(EXITED, exit_code=4)], "and before as"),
    ("ends_agree", [decided(START), EXITED, replace(EXITED, cause="lost")], "and before as"),
    ("final_is_final", [decided(FINISH), decided(START)], "Start of a, which is succeeded"),
    ("final_is_final", [decided(FINISH), decided(FINISH)], "Finish of a"),
    ("final_is_final", [decided(FORGET), decided(FORGET)], "which is forgotten"),
    ("final_is_final", [decided(SHOP_FORGET), decided(SPAWN)], "Spawn of shop, which is forgotten"),
    ("decided_before_seen", [READY], "before it was decided"),
    ("nothing_stale_is_decided", [decided(STOP)], "a.5 is told to end and has ended"),
    ("nothing_stale_is_decided", [decided(START), decided(STOP), decided(STOP)], "was told before"),
    ("nothing_stale_is_decided", [StopRequested(workload=A), decided(START)], "nobody wants it"),
    ("nothing_stale_is_decided", [RemoveRequested(workload=A), decided(START)], "nobody wants it"),
    ("nothing_stale_is_decided", [decided(START), decided(FINISH)], "Finish of a, which still has ['a.5']"),
    ("gangs_are_whole", [GANG, decided(START)], "begins with ranks [0], declared are 2"),
    ("gangs_are_whole", [decided(replace(START, placements=(PLACED, PLACED)))], "ranks [0, 0]"),
    ("gangs_are_whole", [decided(replace(SPAWN, job=GANG.workload), START)], "declared are 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "events", "words"), BAD_HISTORIES)
def test_a_checker_of_histories_bites(name: str, events: Sequence[Event], words: str) -> None:
    bites = {check.__name__: check(history(*events)) for check in OF_HISTORY}
    assert any(words in item for item in bites[name]), bites


def test_a_gap_is_seen() -> None:
    assert any("position 7 stands where 6" in item for item in OF_HISTORY[0]((*history(), (7, STARTED))))


RIGHT_HISTORIES: list[Sequence[Event]] = [
    [decided(START), EXITED, EXITED, decided(SECOND)],
    [decided(START), NodeHealth(node=NODE.id, health="dead"), decided(SECOND)],
    [decided(START), NodeHealth(node=NODE.id, health="unknown")],
    [decided(START), FleetDeclared(fleet=Fleet(name="f", nodes=())), EXITED],
    [decided(FINISH), decided(FORGET), DECLARED, decided(START)],
    [decided(SHOP_FORGET), SHOP, decided(SPAWN)],
    [decided(FINISH), decided(FORGET), decided(SPAWN), decided(START)],
    [decided(START), STARTED, READY],
    [Observed(now_ms=5), Observed(now_ms=5)],
]


@pytest.mark.parametrize("events", RIGHT_HISTORIES)
def test_what_looks_wrong_and_is_right(events: Sequence[Event]) -> None:
    assert [item for check in OF_HISTORY for item in check(history(*events))] == []


LIVE = history(decided(START), STARTED)
ENDED = history(decided(START), decided(STOP), STARTED, EXITED, decided(FINISH))
BAD_EVIDENCE: list[tuple[str, Evidence, str]] = [
    ("begun_once", Evidence(history=ENDED, lives=(replace(LIFE, starts=2),)), "begun 2 times"),
    ("decided_before_done", Evidence(history=ENDED, lives=(replace(LIFE, began_after=5),)), "began when"),
    ("decided_before_done", Evidence(history=history(), lives=(LIFE,)), "undecided"),
    ("decided_before_done", Evidence(history=ENDED, lives=(replace(LIFE, told_after=6),)),
     "told to end at 6"),
    ("no_orphans", Evidence(history=ENDED, lives=(replace(LIFE, live=True),)), "knows of no lease"),
    ("no_orphans", Evidence(history=LIVE, lives=(LIFE,)), "live for the journal and gone"),
    ("no_lost_exits", Evidence(history=LIVE, lives=(LIFE,)), "0 of its recorded ends count"),
    ("no_lost_exits", Evidence(history=ENDED, lives=(replace(LIFE, exit_code=0),)), "ended with code 0"),
    ("no_lost_exits", Evidence(history=ENDED, lives=(replace(LIFE, exit_code=None, signal=9),)), "signal 9"),
    ("let_go_before_told", Evidence(history=ENDED, lives=(LIFE,), listed=(LIFE.key,)), "knew nothing of it"),
    ("nobody_is_lost", Evidence(history=history()), "the last that is known of a is its declaration"),
    ("nobody_is_lost", Evidence(history=history(decided(START), EXITED), lives=(LIFE,)),
     "the last that is known of a is Start"),
    ("nobody_is_lost", Evidence(history=history(decided(FINISH), DECLARED)), "is its declaration"),
    ("acknowledged_is_kept", Evidence(history=ENDED, acknowledged=((4, EXITED),)), "was acknowledged"),
    ("acknowledged_is_kept", Evidence(history=ENDED, acknowledged=((99, DECLARED),)), "was acknowledged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "evidence", "words"), BAD_EVIDENCE)
def test_a_checker_of_evidence_bites(name: str, evidence: Evidence, words: str) -> None:
    bites = {check.__name__: check(evidence) for check in (*OF_EVIDENCE, *AT_REST)}
    assert any(words in item for item in bites[name]), bites
    assert any(item.startswith(f"{name}: ") for item in violations(evidence))


def test_whoever_was_on_a_dead_node_ended_with_it() -> None:
    dead = history(decided(START), NodeHealth(node=NODE.id, health="dead"), EXITED, decided(FINISH))
    assert violations(Evidence(history=dead, lives=(replace(LIFE, told_after=None, exit_code=0),))) == []


def test_an_end_that_the_world_does_not_know_and_a_live_one_are_right() -> None:
    unknown = replace(LIFE, exit_code=None, signal=None)
    assert violations(Evidence(history=ENDED, lives=(unknown,))) == []
    assert violations(Evidence(history=LIVE, lives=(replace(LIFE, live=True, told_after=None),))) == []
    assert violations(Evidence(history=(*ENDED, (11, StopRequested(workload=A))), lives=(LIFE,))) == []
