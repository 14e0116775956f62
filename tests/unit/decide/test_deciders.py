"""The deciders by themselves: amounts at their edges, greedy preemption, and totality on any state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.scenarios.home import GIB, RESUMABLE, Home, fleet, job, node, told

from steersman.decide.admit import admit, ranks_that_fit, too_large
from steersman.decide.fit import ranks_in, times
from steersman.decide.preempt import lost_work
from steersman.decide.recover import backoff_ms, checkpoint_interval_ms, recover
from steersman.model.events import RankExited
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.resources import Resources
from steersman.model.snapshot import Indexes, NodeSize, NodeState, Phase, Shape, Snapshot
from steersman.model.table import SortedSeq
from steersman.model.workload import CheckpointPolicy


@pytest.mark.parametrize(
    ("cpu", "memory", "free", "shape", "ranks"),
    [
        (4_000, 8, (), (2_000, 2, (), 9), 2),
        (4_000, 8, (), (1_000, 4, (), 9), 2),
        (4_000, 8, (), (1_000, 1, (), 3), 3),
        (4_000, 8, (), (0, 4, (), 9), 2),
        (4_000, 8, (), (2_000, 0, (), 9), 2),
        (-1_000, 8, (), (1_000, 1, (), 9), 0),
        (9_000, 9, (("A100", 5),), (1, 1, (("A100", 2),), 9), 2),
        (9_000, 9, (("A100", 5),), (1, 1, (("H100", 1),), 9), 0),
    ],
)
def test_how_many_ranks_fit(
    cpu: int,
    memory: int,
    free: tuple[tuple[str, int], ...],
    shape: tuple[int, int, tuple[tuple[str, int], ...], int],
    ranks: int,
) -> None:
    assert ranks_in(cpu, memory, free, Shape(*shape)) == ranks


def test_what_ranks_ask_for_adds_up() -> None:
    shape = Shape(500, 2, (("A100", 1),), 9)
    gpus = node("gpus", devices=["A100"])
    assert times(shape, 3, NodeState(node=gpus)) == Resources(
        cpu_milli=1_500, memory_bytes=6, accelerators=(("A100", 3),)
    )


def test_what_asks_for_nothing_fits_everywhere() -> None:
    spec = replace(job("free", ranks=4), resources=Resources())
    assert ranks_that_fit(spec, NodeSize(1, 1)) == 4
    assert too_large(spec, {NodeSize(1, 1): 1}) is None
    assert ranks_that_fit(job("one", ranks=4, cores=2), NodeSize(4_000, 8 * GIB, ())) == 2
    assert ranks_that_fit(job("one", ranks=4, gib=4), NodeSize(4_000, 8 * GIB, ())) == 2


def test_too_large_tells_the_largest_of_each_amount() -> None:
    spec = job("big", cores=9, gpus=(("A100", 2), ("TPU", 1)), ranks=2)
    sizes = {NodeSize(4_000, GIB, (("A100", 1),)): 2, NodeSize(2_000, 3 * GIB): 1}
    why = too_large(spec, sizes)
    assert why is not None
    assert dict(why.facts) == {
        "num_nodes": 2,
        "ranks_that_fit": 0,
        "cpu_milli": 9_000,
        "cpu_milli_largest": 4_000,
        "memory_bytes": GIB,
        "memory_bytes_largest": 3 * GIB,
        "devices:A100": 2,
        "devices_largest:A100": 1,
        "devices:TPU": 1,
        "devices_largest:TPU": 0,
        "kinds": "A100",
    }


@given(st.integers(1, 10_000), st.integers(1, 100_000), st.integers(1, 10**9))
def test_back_off_doubles_and_is_capped(failures: int, base: int, most: int) -> None:
    policy = Policy(backoff_ms_base=base, backoff_ms_max=most)
    assert backoff_ms(policy, 1) == min(base, most)
    assert backoff_ms(policy, failures + 1) in {min(2 * backoff_ms(policy, failures), most), most}
    assert backoff_ms(policy, 10_000) == most


def _waiting(*specs: object) -> Home:
    home = Home(fleet(node("big", cores=10, gib=32)))
    home.up(*specs)  # type: ignore[arg-type]  # workloads
    return home


def test_greedy_lets_go_of_whoever_is_not_needed() -> None:
    """Cheap and small comes first, but once the next one makes room alone it stays."""
    names = [f"j{at}" for at in range(7)]
    home = _waiting(
        *(job(name, checkpoint=RESUMABLE) for name in names), job("three", cores=3, checkpoint=RESUMABLE)
    )
    for name in (*names, "three"):
        home.begin(name)
    home.cycle(after_ms=30_000)
    home.save("j0", 1, after_ms=0)
    home.save("three", 1, after_ms=0)
    home.cycle(after_ms=1_000)
    plan = home.up(job("urgent", cores=3, priority=9))
    assert [word for word in told(plan) if "preempted" in word] == ["stop three (preempted): preempted"]


def test_greedy_may_need_everyone() -> None:
    names = [f"j{at}" for at in range(10)]
    home = _waiting(*(job(name, checkpoint=RESUMABLE) for name in names))
    home.cycle(after_ms=30_000)
    plan = home.up(job("urgent", cores=10, priority=9))
    assert len([word for word in told(plan) if "preempted" in word]) == 10


def test_no_more_victims_than_the_policy_allows() -> None:
    home = _waiting(*(job(f"j{at}", checkpoint=RESUMABLE) for at in range(10)))
    home.snapshot = replace(home.snapshot, policy=Policy(preempt_victims_max=9))
    home.cycle(after_ms=30_000)
    assert told(home.up(job("urgent", cores=10, priority=9)))[1:] == ["hold urgent: no-cores"]
    assert told(home.up(job("other", cores=9, priority=9)))[1:] != ["hold other: no-cores"]


def test_work_is_lost_since_the_start_or_the_last_save_by_ranks_that_still_run() -> None:
    home = _waiting(job("gang", cores=2, ranks=2, checkpoint=RESUMABLE))
    assert lost_work(home.run("gang"), home.now_ms + 9_000) == 0, "it has not begun"
    home.begin("gang")
    begun = home.now_ms
    assert lost_work(home.run("gang"), begun + 5_000) == 5_000 * 4
    home.save("gang", 1, after_ms=3_000)
    assert lost_work(home.run("gang"), begun + 5_000) == 2_000 * 4
    assert lost_work(home.run("gang"), begun) == 0
    home.cycle(RankExited(run=home.run("gang").id, rank=0, at_ms=home.now_ms, exit_code=0))
    assert lost_work(home.run("gang"), begun + 5_000) == 2_000 * 2


def test_intervals_of_who_saves_and_who_does_not() -> None:
    home = _waiting(job("work", checkpoint=CheckpointPolicy(enabled=True)), job("plain"))
    policy = home.snapshot.policy
    assert checkpoint_interval_ms(home.state("plain"), policy) is None
    assert checkpoint_interval_ms(home.state("work"), policy) == 10_000


def _asked_for_all(home: Home) -> Snapshot:
    """The state with a verdict asked for on everyone, needed or not."""
    names = [(name,) for name, _ in home.snapshot.workloads.sorted_items()]
    return replace(home.snapshot, indexes=replace(Indexes(), attention=SortedSeq.of(names)))


def test_deciders_are_asked_in_vain_without_harm() -> None:
    """A healthy run, a finished workload, a run that is ending: no verdict is due, and none is given."""
    home = _waiting(job("done"), job("well"), job("going"))
    for name in ("done", "well", "going"):
        home.begin(name)
    home.end("done")
    home.stop("going")
    state = _asked_for_all(home)
    assert recover(state) == ()
    assert admit(state) == ()


def test_each_decider_leaves_the_other_its_own() -> None:
    """A failed gang and an ended run are recover's; admit says nothing of them."""
    home = _waiting(job("gang", ranks=2), job("ended"))
    home.begin("gang")
    home.begin("ended")
    failed = RankExited(run=home.run("gang").id, rank=0, at_ms=home.now_ms, exit_code=1)
    ended = RankExited(run=home.run("ended").id, rank=0, at_ms=home.now_ms, exit_code=0)
    home.fold(failed, ended)
    assert admit(home.snapshot) == ()
    assert [item.reason.code for item in recover(home.snapshot)] == [Code.SUCCEEDED, Code.RANK_FAILED]
    assert home.phase("gang") is Phase.ACTIVE
