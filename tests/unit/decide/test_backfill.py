"""Promises one by one: where, by when, who may pass beside them or inside, and when they are taken back."""

import pytest
from msgspec.structs import replace
from tests.properties.queue_laws import put_in, queue
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node, starts, told

from steersman.decide import backfill, vacancy
from steersman.decide.schedule import schedule
from steersman.explain.words import fix
from steersman.explain.workload import current_reason, explain
from steersman.model.decisions import Reservation, Start
from steersman.model.events import PolicySet
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.reasons import Code, reason
from steersman.model.resources import Resources
from steersman.model.snapshot import Phase, WorkloadState
from steersman.model.workload import Workload
from steersman.state.derive import finish_ms, shape_of

AT_ONCE = PolicySet(policy=Policy(backfill_patience_ms=0, preempt_run_ms_min=1_000))
OFF = PolicySet(policy=Policy(backfill_patience_ms=None))


def small(name: str, *, cores: int = 2, lasts_ms: int | None = None, priority: int = 0) -> Workload:
    made = job(name, cores=cores, max_duration_ms=lasts_ms, priority=priority)
    return replace(made, body=replace(made.body, stop_grace_ms=0))


def waits(*, lasts_ms: int | None = 60_000, policy: PolicySet = AT_ONCE, nodes: int = 2) -> Home:
    """Node a runs something for a minute, or nobody knows how long; b is free; a gang wants both."""
    home = Home(fleet(*(node(name, cores=2) for name in "abcd"[:nodes])), policy)
    home.up(small("first", lasts_ms=lasts_ms))
    home.begin("first")
    home.up(job("gang", cores=2, ranks=nodes))
    assert home.code("gang") is Code.NO_ROOM_FOR_GANG
    return home


def test_nobody_is_promised_anything_until_somebody_would_pass() -> None:
    home = waits()
    assert home.settle() == []
    assert home.state("gang").reservations == ()


def test_who_would_pass_is_held_back_and_told_for_whom_and_what_helps() -> None:
    home = waits()
    left_ms = 58_000  # a minute from its begin, two cycles ago
    plan = home.up(small("late", lasts_ms=100_000))
    assert told(plan)[1:] == ["reserve gang: room-promised", "hold late: waiting-backfill"]
    assert home.facts("gang")["left_ms"] == left_ms
    assert home.facts("late") == {
        "by": "gang",
        "left_ms": left_ms,
        "max_duration_ms": left_ms,
        "until_ms": home.now_ms + left_ms,
    }
    why = home.state("late").reason
    assert why is not None
    assert fix(why) == "set max_duration: at most 58s, or wait for gang (steer explain gang)"
    home.cycle(after_ms=50_000)
    later = current_reason(home.snapshot, home.state("late"))
    assert later is not None
    assert dict(later.facts)["max_duration_ms"] == dict(later.facts)["left_ms"] == 8_000
    home.cycle(after_ms=20_000)
    past = current_reason(home.snapshot, home.state("late"))
    assert past is not None
    assert "max_duration_ms" not in dict(past.facts)
    assert "expected to start within" in explain(home.snapshot, "gang", ()).why
    assert "kept for gang" in explain(home.snapshot, "late", ()).why


def test_who_ends_in_time_starts_in_promised_room_though_others_of_its_shape_may_not() -> None:
    home = waits()
    plan = home.up(small("late", lasts_ms=100_000), small("later"), small("short", lasts_ms=58_000))
    assert starts(plan) == {"short": ["b"]}
    assert home.phase("later") is Phase.QUEUED
    home.begin("short")
    home.end("short", after_ms=30_000)
    assert starts(home.end("first", after_ms=0)) == {"gang": ["a", "b"]}


def test_looks_at_others_of_a_shape_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "LOOKS_MAX", 1)
    home = waits()
    assert not starts(home.up(small("late"), small("later"), small("short", lasts_ms=50_000)))


def test_tries_in_promised_room_are_bounded_and_go_on_in_the_next_cycle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backfill, "NODES_LIFTED_MAX", 2)
    home = waits()
    parts = [small(f"short-{at}", cores=1, lasts_ms=40_000) for at in range(2)]
    plan = home.up(*parts)
    assert len(starts(plan)) == 1
    assert plan.wake_at_ms == home.now_ms
    assert len(starts(home.cycle(after_ms=0))) == 1


def test_walks_of_a_cycle_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PROMISES_TRIED_MAX", 0)
    assert starts(waits().up(small("late"))) == {"late": ["b"]}


@pytest.mark.parametrize("limit", [0, 1])
def test_a_walk_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Who needs more ends than are followed is told no time; its nodes drain."""
    monkeypatch.setattr(vacancy, "RANKS_LOOKED_MAX", limit)
    home = Home(fleet(*(node(name, cores=2) for name in "abc")), AT_ONCE)
    home.up(*(small(name, lasts_ms=60_000) for name in ("one", "two")))
    home.up(job("gang", cores=2, ranks=3))
    home.up(small("late"))
    assert "left_ms" not in home.facts("gang")
    assert {item.node for item in home.state("gang").reservations} == {"a", "b", "c"}


def test_drains_look_at_so_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacancy, "NODES_LOOKED_MAX", 1)
    assert starts(waits(lasts_ms=None).up(small("late"))) == {"late": ["b"]}


def test_where_nobody_knows_it_waits_for_its_patience_and_then_drains() -> None:
    home = waits(lasts_ms=None, policy=PolicySet(policy=Policy(backfill_patience_ms=30_000)))
    assert starts(home.up(small("early"))) == {"early": ["b"]}
    home.begin("early")
    home.end("early", after_ms=30_000)
    plan = home.up(small("late"), small("short", lasts_ms=1_000))
    assert not starts(plan)
    assert home.code("gang") is Code.ROOM_PROMISED
    assert home.facts("late") == {"by": "gang"}
    why = home.state("late").reason
    assert why is not None
    assert fix(why) == "wait for gang (steer explain gang)"
    assert starts(home.end("first")) == {"gang": ["a", "b"]}


def test_what_fits_beside_the_promised_ranks_may_start_there() -> None:
    home = Home(fleet(node("a", cores=4)), AT_ONCE)
    home.up(small("first", cores=3, lasts_ms=60_000))
    home.up(small("wide", cores=3))
    plan = home.up(small("beside", cores=1), small("beyond", cores=1))
    assert starts(plan) == {"beside": ["a"]}
    assert home.code("wide") is Code.ROOM_PROMISED
    assert home.code("beyond") is not None


def test_two_that_fit_alone_but_not_together_beside_it() -> None:
    """Newcomers do not count on one another's end."""
    home = Home(fleet(node("a", cores=8)), AT_ONCE)
    home.up(small("old", cores=6))
    home.up(small("wide", cores=6))
    assert starts(home.up(small("one", cores=2))) == {"one": ["a"]}
    home.end("old")
    assert home.phase("wide") is Phase.ACTIVE
    home = Home(fleet(node("a", cores=8)), AT_ONCE)
    home.up(small("old", cores=5))
    home.up(small("wide", cores=6))
    made = home.up(small("one", cores=1), small("two", cores=1), small("three", cores=1))
    assert len(starts(made)) == 2
    assert starts(home.end("old")) == {"wide": ["a"]}


def test_a_higher_priority_takes_promised_room_and_the_promise_is_taken_back() -> None:
    home = waits()
    home.up(small("late"))
    plan = home.up(small("urgent", priority=5))
    assert told(plan)[1:] == ["reserve gang: no-room-for-gang", "start urgent: placed"] or starts(plan)
    assert starts(plan) == {"urgent": ["b"]}
    assert home.state("gang").reservations == ()
    home = waits()
    home.up(small("late"))
    assert starts(home.up(small("urgent", priority=5, lasts_ms=1_000))) == {"urgent": ["b"]}
    assert home.state("gang").reservations


def test_a_higher_priority_takes_the_place_of_who_waits_in_its_kind() -> None:
    home = waits(nodes=3)
    home.up(small("late"))
    assert home.state("gang").reservations
    home.up(replace(job("urgent", cores=2, ranks=3, priority=5)))
    plan = home.up(small("more", priority=5))
    assert home.code("urgent") is Code.ROOM_PROMISED
    assert home.state("gang").reservations == ()
    assert not starts(plan)


def test_a_promise_of_no_use_is_not_lost_for_one_that_cannot_be_made() -> None:
    home = waits(lasts_ms=60_000, policy=PolicySet(policy=Policy()), nodes=2)
    home.up(small("late"))
    assert home.state("gang").reservations
    home.fold(declared(small("endless", cores=1, priority=9)))
    home.cycle()
    home.up(job("urgent", cores=2, ranks=2, priority=5))
    assert home.phase("endless") is Phase.ACTIVE


def test_who_may_preempt_does_so_and_its_promise_becomes_a_reservation() -> None:
    """The lower runs come into reach only later: the promise is replaced, never doubled."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2)), AT_ONCE)
    for name in ("one", "two"):
        spec = small(name, lasts_ms=60_000)
        home.up(replace(spec, body=replace(spec.body, checkpoint=RESUMABLE)))
    home.cycle(after_ms=5_000)
    home.up(small("gang", cores=2, priority=1))
    assert home.code("gang") is Code.WAITING_PREEMPTION


def test_a_lower_run_that_yields_too_little_leaves_the_promise_as_it_is() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)), AT_ONCE)
    home.up(small("first", lasts_ms=60_000, priority=5))
    low = small("low", cores=1, lasts_ms=30_000)
    home.up(replace(low, body=replace(low.body, checkpoint=RESUMABLE)))
    home.cycle(after_ms=5_000)
    home.up(job("gang", cores=2, ranks=2, priority=5))
    home.up(small("late", cores=1))
    kept = home.state("gang").reservations
    assert kept
    plan = home.cycle()
    assert not plan.decisions
    assert home.state("gang").reservations == kept


def test_an_urgent_one_makes_others_yield_where_room_is_promised() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)), AT_ONCE)
    low = small("low", cores=2, lasts_ms=60_000)
    home.up(replace(low, body=replace(low.body, checkpoint=RESUMABLE)))
    home.up(job("gang", cores=2, ranks=2))
    home.up(small("late"))
    assert home.state("gang").reservations
    home.cycle(after_ms=5_000)
    home.up(job("urgent", cores=2, ranks=2, priority=5))
    assert home.code("urgent") is Code.WAITING_PREEMPTION
    assert home.state("gang").reservations == ()


def test_a_quota_that_is_gone_ends_a_promise() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)), AT_ONCE)
    home.cycle(queue("ash", cores=6, cohort=""))
    home.up(small("first", lasts_ms=60_000))
    home.up(put_in("ash", job("gang", cores=2, ranks=2)))
    home.up(small("late"))
    assert home.state("gang").reservations
    home.cycle(queue("ash", cores=3, cohort=""))
    assert home.state("gang").reservations == ()
    assert home.code("gang") is Code.OVER_QUOTA


def test_the_quota_that_a_promised_one_needs_is_left_to_it() -> None:
    """Who comes behind may have what is beyond it, or gives it back in time."""
    large, tiny = [node(name, cores=2) for name in "abcd"], [node(name, cores=1) for name in "efg"]
    home = Home(fleet(*large, *tiny), AT_ONCE)
    home.cycle(queue("ash", cores=7, cohort=""))
    home.up(small("first", lasts_ms=60_000), small("other", lasts_ms=60_000))
    home.up(put_in("ash", job("gang", cores=2, ranks=3)))
    home.up(small("pass"))
    assert home.code("gang") is Code.ROOM_PROMISED
    specs = [small("one", cores=1), small("two", cores=1), small("short", cores=1, lasts_ms=30_000)]
    plan = home.up(*(put_in("ash", spec) for spec in specs))
    assert sorted(starts(plan)) == ["one", "short"]
    assert home.facts("two")["by"] == "gang"


def test_ends_on_nodes_that_are_too_small_promise_nothing() -> None:
    home = Home(fleet(node("a", cores=4), node("b", cores=1), node("c", cores=4)), AT_ONCE)
    home.up(small("tiny", cores=1, lasts_ms=10_000), *(small(name, lasts_ms=60_000) for name in ("x", "y")))
    home.up(job("gang", cores=3, ranks=2))
    home.up(small("late"), small("lately"))
    assert {item.node for item in home.state("gang").reservations} == {"a", "c"}


def test_an_end_that_should_have_been_tells_nothing() -> None:
    """`work` is no bound: when it is past and the run goes on, nobody knows."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2)), AT_ONCE)
    late = small("first")
    home.up(replace(late, body=replace(late.body, work_ms=5_000)))
    home.begin("first")
    home.cycle(after_ms=10_000)
    home.up(job("gang", cores=2, ranks=2))
    home.up(small("late"))
    assert home.code("gang") is Code.ROOM_PROMISED
    assert "left_ms" not in home.facts("gang")


@pytest.mark.parametrize("nodes", ["abc", "ab"])
def test_what_never_ends_is_drained_only_when_there_is_nothing_else(nodes: str) -> None:
    home = Home(fleet(*(node(name, cores=2) for name in nodes)), AT_ONCE)
    served = small("served")
    home.up(replace(served, body=replace(served.body, program="gateway")))
    ((where,),) = starts(home.cycles[-1].plan).values()
    home.up(*(small(f"first-{at}") for at in range(len(nodes) - 2)))
    home.up(job("gang", cores=2, ranks=2))
    home.up(small("late"))
    kept = {item.node for item in home.state("gang").reservations}
    assert (where in kept) == (nodes == "ab")
    assert not starts(home.up(small("later", lasts_ms=1_000)))


def test_a_gang_may_lie_partly_in_promised_room() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2), node("c", cores=1)), AT_ONCE)
    home.up(small("first", lasts_ms=60_000))
    home.up(job("gang", cores=2, ranks=2))
    home.up(small("late"))
    pair = job("pair", cores=1, ranks=3, max_duration_ms=50_000)
    assert not starts(home.up(replace(job("other", cores=1, ranks=3))))
    made = home.up(replace(pair, body=replace(pair.body, stop_grace_ms=0)))
    assert sorted(starts(made)[WorkloadName("pair")]) == ["b", "b", "c"]


def test_who_others_yield_to_still_passes_nobody() -> None:
    """Its own reservation is as it was when its start would delay another, and the promise is kept."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2), node("c", cores=2)), AT_ONCE)
    low = small("low", cores=2)
    home.up(
        replace(low, body=replace(low.body, checkpoint=RESUMABLE)), small("x", lasts_ms=60_000, priority=9)
    )
    home.up(small("y", lasts_ms=60_000, priority=9))
    home.cycle(after_ms=5_000)
    home.up(small("mid", priority=2))
    assert home.code("mid") is Code.WAITING_PREEMPTION
    home.up(job("gang", cores=2, ranks=2, priority=3))
    plan = home.end("low")
    assert not starts(plan)
    assert home.code("gang") is Code.ROOM_PROMISED
    assert home.code("mid") in {Code.WAITING_BACKFILL, Code.NO_CORES, Code.WAITING_PREEMPTION}
    again = schedule(home.snapshot)
    assert not any(isinstance(item, Start) for item in again.decisions)


def test_yielding_elsewhere_leaves_a_promise_alone() -> None:
    kinds = [
        node("a", cores=2, devices=("T4",)),
        node("b", cores=2, devices=("T4",)),
        node("c", cores=2, gib=64),
    ]
    home = Home(fleet(*kinds), AT_ONCE)
    gpu = replace(small("first", lasts_ms=60_000, priority=9).resources, accelerators=(("T4", 1),))
    home.up(replace(small("first", lasts_ms=60_000, priority=9), resources=gpu))
    home.up(job("gang", cores=2, ranks=2, gpus=(("T4", 1),), priority=1))
    home.up(small("fill", lasts_ms=90_000))
    low = home.state("fill")
    assert low.phase is Phase.ACTIVE
    home.up(replace(small("late"), resources=gpu))
    assert home.code("gang") is Code.ROOM_PROMISED
    home.end("fill")
    saves = small("saves")
    home.up(replace(saves, body=replace(saves.body, checkpoint=RESUMABLE)))
    home.cycle(after_ms=5_000)
    home.up(job("urgent", cores=2, gib=32, priority=5))
    assert home.code("urgent") is Code.WAITING_PREEMPTION
    assert home.state("gang").reservations


def test_what_is_free_now_stays_open_when_enough_comes_free_later() -> None:
    home = Home(fleet(node("a", cores=4), node("b", cores=2), node("c", cores=1)), AT_ONCE)
    home.up(small("first", cores=4, lasts_ms=60_000))
    home.up(job("gang", cores=2, ranks=2))
    assert starts(home.up(small("late"))) == {"late": ["b"]}
    assert {item.node for item in home.state("gang").reservations} == {"a"}


def test_nobody_joins_what_never_ends_where_room_is_promised() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2), node("c", cores=1)), AT_ONCE)
    served = small("served", cores=1)
    home.up(small("tiny", cores=1), replace(served, body=replace(served.body, program="gateway")))
    home.up(small("first"))
    home.up(job("gang", cores=2, ranks=2))
    plan = home.up(small("late", cores=1))
    assert not starts(plan)
    assert home.code("late") is Code.WAITING_BACKFILL


def test_with_the_knob_turned_off_promises_are_taken_back() -> None:
    home = waits()
    home.up(small("late"))
    assert home.state("gang").reservations
    plan = home.cycle(OFF)
    assert home.state("gang").reservations == ()
    assert starts(plan) == {"late": ["b"]}


@pytest.mark.parametrize("topology", ["", "zone", "node"])
def test_a_gang_is_promised_room_where_its_topology_allows(topology: str) -> None:
    home = Home(fleet(node("a", cores=4), node("b", cores=4), node("c", cores=4)), AT_ONCE)
    home.up(*(small(name, cores=3, lasts_ms=lasts_ms) for name, lasts_ms in (("x", 90_000), ("y", 60_000))))
    home.up(small("z", cores=3, lasts_ms=120_000))
    gang = job("gang", cores=2, ranks=2)
    home.up(replace(gang, body=replace(gang.body, topology=topology)))
    home.up(small("late", cores=1), small("wide", cores=1))
    assert home.code("gang") is Code.ROOM_PROMISED or not topology


def test_a_whole_device_is_kept_from_parts() -> None:
    """Fractions do not join a shared device for which a whole-device job waits."""
    home = Home(fleet(node("a", cores=8, devices=("T4",))), AT_ONCE)
    part = Resources(cpu_milli=1_000, accelerators=(("T4", 1),), device_milli=400)

    def fraction(name: str) -> Workload:
        return replace(small(name), resources=part)

    home.up(fraction("one"))
    home.up(job("whole", gpus=(("T4", 1),)))
    plan = home.up(fraction("two"))
    assert not starts(plan)
    assert home.code("two") is Code.WAITING_BACKFILL
    assert starts(home.end("one")) == {"whole": ["a"]}


def test_what_asks_for_nothing_counts_by_what_it_asks() -> None:
    """Ranks of a reservation are counted by cores, else memory, else devices."""
    for amount in (Resources(memory_bytes=5), Resources(accelerators=(("T4", 1),)), Resources()):
        spec = replace(small("any"), resources=amount, body=replace(small("any").body, num_nodes=2))
        state = WorkloadState(
            spec=spec, digest="", declared_at=1, declared_ms=0, generation=1, lineage=1, phase=Phase.QUEUED
        )
        shape = shape_of(state)
        twice = replace(
            amount,
            memory_bytes=amount.memory_bytes * 2,
            accelerators=tuple((kind, count * 2) for kind, count in amount.accelerators),
        )
        kept = Reservation(node=NodeId("a"), amount=twice)
        assert backfill._ranks_of(kept, shape) == 2


def test_by_when_a_run_ends() -> None:
    home = Home(fleet(node("a", cores=8)))
    home.up(replace(small("x"), body=replace(small("x").body, work_ms=10_000, max_duration_ms=60_000)))
    state, run, at_ms = home.state("x"), home.run("x"), home.now_ms
    assert finish_ms(state, run, at_ms) == at_ms + 10_000
    assert finish_ms(state, run, at_ms + 20_000) == at_ms + 60_000  # its word is past: its bound holds
    assert finish_ms(state, run, at_ms + 90_000) == at_ms + 90_000
    saved = replace(run, saved_ms=at_ms + 4_000)
    assert finish_ms(replace(state, saved_work_ms=3_000), saved, at_ms) == at_ms + 11_000
    home.stop("x")
    assert finish_ms(home.state("x"), home.run("x"), home.now_ms) == home.now_ms
    assert finish_ms(state, replace(run, state=run.state), 0) == at_ms + 10_000


def test_the_words_of_old_reasons_are_short() -> None:
    assert fix(reason(Code.WAITING_BACKFILL, by="x", max_duration_ms=10)) is not None


def test_a_plan_is_the_same_without_a_memo() -> None:
    home = waits()
    home.up(small("late"), small("short", lasts_ms=10_000))
    last = home.cycles[-1]
    assert schedule(last.after).decisions == schedule(last.after).decisions
    assert WorkloadName("gang") in home.snapshot.workloads


def test_by_the_index_nothing_is_promised_and_what_was_is_taken_back() -> None:
    """There jobs take turns instead."""
    home = waits()
    home.up(small("late", lasts_ms=100_000))
    assert home.code("gang") is Code.ROOM_PROMISED
    home.cycle(PolicySet(policy=Policy(order="gittins", backfill_patience_ms=0, preempt_run_ms_min=1_000)))
    assert home.state("gang").reservations == ()
    assert home.phase("late") is Phase.ACTIVE
