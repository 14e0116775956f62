"""Fleets that grow, shrink and die; gangs; devices; dependencies; checkpoint intervals."""

from math import isqrt

from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node, published_by, starts, told

from steersman.model.events import NodeHealth, PolicySet, RankExited, RankUnknown
from steersman.model.ids import DeviceId, NodeId
from steersman.model.policy import Policy
from steersman.model.snapshot import Phase, RunState
from steersman.model.workload import CheckpointPolicy, Retry

AUTO = CheckpointPolicy(enabled=True, interval_ms_min=1_000)


def test_too_large_is_held_until_the_fleet_grows() -> None:
    home = Home(fleet(node("small", cores=2)))
    plan = home.up(job("large", cores=4, gib=2))
    assert told(plan) == ["hold large: refused-too-large"]
    facts = home.facts("large")
    assert (facts["cpu_milli"], facts["cpu_milli_largest"], facts["ranks_that_fit"]) == (4_000, 2_000, 0)
    assert told(home.cycle()) == []
    plan = home.cycle(fleet(node("small", cores=2), node("big", cores=4)))
    assert told(plan) == ["admit large: admitted", "start large: placed"]
    assert starts(plan) == {"large": [NodeId("big")]}


def test_no_fleet_yet() -> None:
    home = Home()
    assert told(home.up(job("early"))) == ["hold early: no-nodes"]
    assert told(home.cycle(fleet(node("here")))) == ["admit early: admitted", "start early: placed"]


def test_best_fit_leaves_the_large_room_free() -> None:
    """The fullest node that has room takes it, and accelerators are not left idle under a job without."""
    home = Home(
        fleet(node("a-gpu", cores=2, devices=["A100"]), node("b-big", cores=8), node("c-small", cores=2))
    )
    plan = home.up(job("one"), job("gpu", gpus=(("A100", 1),)), job("six", cores=6))
    assert starts(plan) == {"one": [NodeId("c-small")], "gpu": [NodeId("a-gpu")], "six": [NodeId("b-big")]}
    assert home.run("gpu").ranks[0].placement.devices == (DeviceId("a-gpu/0"),)


def test_queue_order_is_priority_then_age() -> None:
    home = Home(fleet(node("here", cores=1)))
    home.up(job("busy"))
    for name, priority in (("low-old", 0), ("high-old", 5), ("high-new", 5), ("top", 9)):
        home.up(job(name, priority=priority))
    order = []
    for _ in range(5):
        name = next(key for key, state in home.snapshot.workloads.sorted_items() if state.run)
        order.append(name)
        home.begin(name)
        home.end(name)
    assert order == ["busy", "top", "high-old", "high-new", "low-old"]


def test_a_gang_starts_whole_or_not_at_all() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("filler", cores=1))
    plan = home.up(job("gang", cores=2, ranks=2))
    assert told(plan) == ["admit gang: admitted", "hold gang: no-room-for-gang"]
    home.begin("filler")
    plan = home.end("filler")
    assert starts(plan) == {"gang": [NodeId("a"), NodeId("b")]}


def test_a_failing_rank_ends_its_gang_and_the_first_failure_is_judged() -> None:
    """The others are told to stop; what they say on the way out is not held against the job."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("gang", cores=1, ranks=3, retry=Retry(on_events=("error",), exit_codes_fatal=(3,))))
    home.begin("gang")
    plan = home.end("gang", code=3, rank=1)
    assert told(plan) == ["stop gang (rank-failed): rank-failed"]
    assert home.facts("gang") == {"rank": 1}
    assert told(home.end("gang", signal=15)) == ["finish gang: exit-fatal"]
    assert not home.snapshot.nodes["a"].leases


def test_a_rank_that_finishes_early_does_not_doom_its_gang() -> None:
    home = Home(fleet(node("a", cores=2)))
    home.up(job("gang", ranks=2))
    home.begin("gang")
    assert told(home.end("gang", rank=0)) == []
    assert home.snapshot.nodes["a"].used_cpu_milli == 1_000, "its lease is given back at once"
    assert told(home.end("gang", rank=1)) == ["finish gang: succeeded"]


def test_a_gang_that_loses_a_node_was_interrupted() -> None:
    """Node death dooms the gang, and counts as an interruption, which is tried again by default."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("gang", cores=2, ranks=2))
    home.begin("gang")
    plan = home.cycle(NodeHealth(node=NodeId("b"), health="dead"))
    assert told(plan) == ["stop gang (rank-failed): rank-failed"]
    plan = home.end("gang", signal=15)
    assert told(plan) == ["requeue gang: retry-backoff"]
    assert home.facts("gang")["cause"] == "lost"
    assert home.state("gang").interruptions == 1


def test_node_death_and_return() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=1)))
    home.up(job("work", cores=2))
    home.begin("work")
    plan = home.cycle(NodeHealth(node=NodeId("a"), health="dead"))
    assert told(plan) == ["requeue work: retry-backoff"]
    assert not home.snapshot.nodes["a"].leases
    assert told(home.cycle(after_ms=1_000)) == ["hold work: no-cores"]
    late = RankExited(run=home.cycles[1].seen.indexes.live.first()[0], rank=0, at_ms=home.now_ms, exit_code=0)  # type: ignore[index]  # there is one
    assert told(home.cycle(late)) == [], "what comes late from the dead changes nothing"
    plan = home.cycle(NodeHealth(node=NodeId("a"), health="alive"))
    assert told(plan) == ["start work: placed"]


def test_unknown_takes_no_new_work_and_ends_none() -> None:
    home = Home(fleet(node("a", cores=2)))
    home.up(job("work"))
    home.begin("work")
    run = home.run("work").id
    home.cycle(NodeHealth(node=NodeId("a"), health="unknown"), RankUnknown(run=run, rank=0))
    assert home.run("work").state is RunState.RUNNING
    assert home.run("work").ranks[0].unknown
    assert told(home.up(job("more"))) == ["hold more: no-nodes"]
    plan = home.cycle(NodeHealth(node=NodeId("a"), health="alive"))
    assert starts(plan) == {"more": [NodeId("a")]}
    home.begin("work")
    assert not home.run("work").ranks[0].unknown


def test_a_node_that_leaves_keeps_its_runs_to_their_end() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("work", cores=2))
    home.begin("work")
    assert home.run("work").ranks[0].placement.node == "a"
    assert told(home.cycle(fleet(node("b", cores=2)))) == []
    assert not home.snapshot.nodes["a"].declared
    assert told(home.end("work")) == ["finish work: succeeded"]
    assert "a" not in home.snapshot.nodes


def test_a_device_that_leaves_and_comes_back_is_not_leased_twice() -> None:
    """Its lease stayed in force all the while."""
    full, bare = node("a", cores=4, devices=["A100"]), node("a", cores=4)
    home = Home(fleet(full))
    home.up(job("holder", gpus=(("A100", 1),)))
    home.begin("holder")
    home.cycle(fleet(bare))
    home.cycle(fleet(full))
    assert home.snapshot.nodes["a"].free_devices == ()
    assert told(home.up(job("other", gpus=(("A100", 1),)))) == [
        "admit other: admitted",
        "hold other: no-devices",
    ]


def test_reasons_are_those_of_the_room_as_it_is_within_one_cycle() -> None:
    """The last device goes to one job in the same cycle in which another is told that devices lack."""
    home = Home(fleet(node("a", cores=8, devices=["A100"])))
    plan = home.up(job("one", gpus=(("A100", 1),)), job("two", cores=2, gpus=(("A100", 1),)))
    assert told(plan)[-2:] == ["start one: placed", "hold two: no-devices"]
    assert told(home.cycle()) == []


def test_a_new_node_elsewhere_makes_nobody_else_yield() -> None:
    """Room kept for a need stays kept while the rest of the fleet changes."""
    home = Home(fleet(node("a", cores=1), node("b", cores=1)))
    home.up(*(job(name, checkpoint=RESUMABLE) for name in ("one", "two")))
    home.begin("one")
    home.begin("two")
    home.cycle(after_ms=5_000)
    plan = home.up(job("urgent", priority=9))
    assert told(plan)[1:] == ["reserve urgent: waiting-preemption", "stop one (preempted): preempted"]
    plan = home.cycle(fleet(node("a", cores=1), node("b", cores=1), node("c", cores=1, gib=0)))
    assert told(plan) == []
    assert starts(home.end("one", code=75)) == {"urgent": [NodeId("a")]}


def test_room_kept_on_a_node_that_dies_is_sought_elsewhere() -> None:
    home = Home(fleet(node("a", cores=1), node("b", cores=1)))
    home.up(*(job(name, checkpoint=RESUMABLE) for name in ("one", "two")))
    home.begin("one")
    home.begin("two")
    home.cycle(after_ms=5_000)
    home.up(job("urgent", priority=9))
    assert home.state("urgent").reservations[0].node == "a"
    plan = home.cycle(NodeHealth(node=NodeId("a"), health="dead"))
    assert "stop two (preempted): preempted" in told(plan)
    assert home.state("urgent").reservations[0].node == "b"


def test_dependencies_wait_run_and_fail_in_a_chain() -> None:
    home = Home(fleet(node("here", cores=4)))
    plan = home.up(
        job("train", artifacts=["model"]),
        job("score", inputs=["train/model"], artifacts=["report"]),
        job("mail", inputs=["score/report"]),
    )
    assert told(plan)[:2] == ["hold mail: waiting-input", "hold score: waiting-input"]
    home.begin("train")
    assert told(home.end("train", artifacts=["model"])) == [
        "finish train: succeeded",
        "admit score: admitted",
        "start score: placed",
    ]
    home.begin("score")
    plan = home.end("score", code=1)
    assert told(plan) == ["finish score: event-not-retried", "finish mail: input-failed"]
    assert home.facts("mail") == {"artifact": "report", "phase": "failed", "workload": "score"}


def test_a_failure_far_upstream_reaches_everyone_below_without_news() -> None:
    home = Home(fleet(node("here")))
    home.up(
        job("a", artifacts=["x"]),
        job("b", inputs=["a/x"], artifacts=["x"]),
        job("c", inputs=["b/x"], artifacts=["x"]),
        job("d", inputs=["c/x"]),
    )
    home.begin("a")
    plan = home.end("a", code=1)
    assert plan.wake_at_ms == home.now_ms
    home.settle()
    assert {home.phase(name) for name in "abcd"} == {Phase.FAILED}


def test_inputs_that_will_never_be() -> None:
    home = Home(fleet(node("here", cores=4)))
    assert told(home.up(job("lost", inputs=["nobody/x"]))) == ["hold lost: waiting-input"]
    assert home.facts("lost")["phase"] == "undeclared"
    home.up(job("train", artifacts=["model"]))
    home.begin("train")
    home.end("train", artifacts=["model"])
    plan = home.up(job("wrong", inputs=["train/other"]), job("right", inputs=["train/model"]))
    assert told(plan)[:2] == ["admit right: admitted", "finish wrong: input-failed"]
    assert home.facts("wrong")["phase"] == "no-such-artifact"


def test_late_artifacts_of_older_runs_do_not_replace_the_new_one() -> None:
    home = Home(fleet(node("here")))
    home.up(job("train", artifacts=["model"], retry=Retry(on_events=("interruption",))))
    home.begin("train")
    old = home.run("train")
    home.end("train", signal=9)
    home.cycle(after_ms=1_000)
    home.begin("train")
    new = home.run("train")
    home.cycle(published_by(new, "train", "model"))
    home.cycle(published_by(old, "train", "model"))
    assert home.state("train").artifacts[0].run == new.id
    assert told(home.end("train")) == ["finish train: succeeded"]


def test_a_declared_interval_changes_in_place() -> None:
    home = Home(fleet(node("here")))
    home.up(job("work", checkpoint=CheckpointPolicy(enabled=True, interval_ms=60_000)))
    home.begin("work")
    assert home.run("work").interval_ms == 60_000
    spec = job("work", checkpoint=CheckpointPolicy(enabled=True, interval_ms=5_000))
    assert told(home.up(spec, restarts=False)) == ["set-checkpoint-interval work: checkpoint-interval"]
    assert home.run("work").interval_ms == 5_000
    assert told(home.cycle()) == []


def test_an_automatic_interval_follows_young_and_daly() -> None:
    """sqrt(2 · save · MTBF): 500 ms and six hours give 147 s; an interruption after 50 s halves the MTBF."""
    home = Home(fleet(node("here")))
    home.up(job("work", checkpoint=AUTO))
    home.begin("work")
    assert home.run("work").interval_ms == 1_000, "nothing measured yet: the smallest allowed"
    plan = home.save("work", 10, save_ms=500, after_ms=50_000)
    assert told(plan) == ["set-checkpoint-interval work: checkpoint-interval"]
    assert home.run("work").interval_ms == isqrt(2 * 500 * 6 * 3_600_000) == 146_969
    assert told(home.save("work", 20, save_ms=625, after_ms=1)) == [], (
        "a quarter more is within the dead band"
    )
    assert told(home.save("work", 30, save_ms=626, after_ms=1)) != []
    assert home.run("work").interval_ms == isqrt(2 * 626 * 6 * 3_600_000)

    plan = home.end("work", signal=9, after_ms=0)
    home.cycle(after_ms=1_000)
    plan = home.begin("work")
    mtbf = (50_002 + 6 * 3_600_000) // 2
    assert home.run("work").interval_ms == isqrt(2 * 626 * mtbf) == 116_416, told(plan)
    assert told(home.cycle()) == []


def test_an_automatic_interval_keeps_its_bounds() -> None:
    policy = CheckpointPolicy(enabled=True, interval_ms_min=10_000, interval_ms_max=20_000)
    home = Home(fleet(node("here")), PolicySet(policy=Policy(interruption_mtbf_ms_prior=1_000)))
    home.up(job("work", checkpoint=policy))
    home.begin("work")
    home.save("work", 1, save_ms=0)
    assert home.run("work").interval_ms == 10_000
    home.save("work", 2, save_ms=3_600_000)
    assert home.run("work").interval_ms == 20_000


def test_a_change_of_the_bounds_or_to_automatic_takes_effect_in_place() -> None:
    home = Home(fleet(node("here")))
    home.up(job("work", checkpoint=CheckpointPolicy(enabled=True, interval_ms=60_000)))
    home.begin("work")
    home.save("work", 1, save_ms=500)
    home.up(job("work", checkpoint=AUTO), restarts=False)
    assert home.run("work").interval_ms == 146_969
    bounded = CheckpointPolicy(enabled=True, interval_ms_max=30_000)
    home.up(job("work", checkpoint=bounded), restarts=False)
    assert home.run("work").interval_ms == 30_000
    assert told(home.cycle()) == []


def test_a_resumed_run_may_fall_back_to_an_older_checkpoint() -> None:
    """The newest was not valid: the first save of the new run counts, though its step is lower."""
    home = Home(fleet(node("here")))
    home.up(job("work", checkpoint=RESUMABLE))
    home.begin("work")
    home.save("work", 100)
    home.save("work", 90)
    assert home.state("work").saved_step == 100, "late, of the same run"
    home.end("work", signal=9)
    home.cycle(after_ms=1_000)
    home.begin("work")
    home.save("work", 80)
    assert home.state("work").saved_step == 80


def test_everyone_who_may_yield_on_a_node_is_considered() -> None:
    """However many nodes hold victims, those that are looked at are looked at whole."""
    names = [f"n{at:02d}" for at in range(40)]
    home = Home(fleet(*(node(name, cores=2) for name in names)))
    home.up(*(job(f"low-{name}", checkpoint=RESUMABLE) for name in names))
    home.up(*(job(f"mid-{name}", checkpoint=RESUMABLE, priority=5) for name in names))
    home.cycle(after_ms=5_000)
    plan = home.up(job("urgent", cores=2, priority=9))
    assert len([word for word in told(plan) if "preempted" in word]) == 2


def test_nodes_that_could_never_hold_the_need_are_passed_over() -> None:
    """Victims on forty small nodes do not hide the one on the node that has the device."""
    names = [f"n{at:02d}" for at in range(40)]
    home = Home(fleet(*(node(name, cores=1) for name in names), node("z", cores=2, devices=["A100"])))
    home.up(*(job(f"low-{name}", checkpoint=RESUMABLE) for name in names))
    home.up(job("holder", gpus=(("A100", 1),), cores=2, checkpoint=RESUMABLE))
    home.cycle(after_ms=5_000)
    plan = home.up(job("urgent", cores=2, gpus=(("A100", 1),), priority=9))
    assert "stop holder (preempted): preempted" in told(plan)


def test_declared_twice_in_one_batch_the_last_word_counts() -> None:
    home = Home(fleet(node("here")))
    plan = home.cycle(declared(job("work", cores=9)), declared(job("work", cores=1)))
    assert told(plan) == ["admit work: admitted", "start work: placed"]


def test_who_waits_for_a_forgotten_workload_is_told_so() -> None:
    """Its source is taken down: the reason recorded for waiting is that it is not declared any more."""
    home = Home(fleet(node("here")))
    home.up(job("train", cores=2, artifacts=["model"]), job("score", inputs=["train/model"]))
    assert home.facts("score")["phase"] == "declared"
    home.begin("train")
    home.down("train")
    home.end("train")
    home.settle()
    assert home.facts("score")["phase"] == "undeclared"


def test_the_fleet_has_the_name_that_was_declared() -> None:
    assert Home(fleet(node("here"))).snapshot.fleet_name == "fleet"


def test_room_kept_on_a_node_that_shrinks_or_leaves_is_let_go() -> None:
    """What was promised there cannot be kept; the need is worked out anew on the fleet as it is."""
    for changed in (fleet(node("a", cores=1), node("b", cores=2)), fleet(node("b", cores=2))):
        home = Home(fleet(node("a", cores=2), node("b", cores=2)))
        home.up(*(job(name, cores=2, checkpoint=RESUMABLE) for name in ("one", "two")))
        home.begin("one")
        home.begin("two")
        home.cycle(after_ms=5_000)
        home.up(job("urgent", cores=2, priority=9))
        assert home.state("urgent").reservations[0].node == "a"
        home.fold(changed)
        assert home.state("urgent").reservations == ()
        assert home.snapshot.nodes["a"].reserved_cpu_milli == 0
        home.cycle()
        assert home.state("urgent").reservations[0].node == "b"


def test_a_gang_finds_new_room_beside_what_was_kept_for_it() -> None:
    """One of its nodes goes dark: what is kept on the other counts at once when room is sought again."""
    home = Home(fleet(node("a", cores=1), node("b", cores=1), node("c", cores=1)))
    home.up(*(job(name, checkpoint=RESUMABLE) for name in ("one", "two")), job("three", checkpoint=RESUMABLE))
    for name in ("one", "two", "three"):
        home.begin(name)
    home.cycle(after_ms=5_000)
    home.up(job("gang", ranks=2, priority=9))
    kept = [item.node for item in home.state("gang").reservations]
    victims = [name for name in ("one", "two", "three") if home.run(name).state is RunState.STOPPING]
    home.cycle(NodeHealth(node=kept[0], health="unknown"))
    for name in victims:
        plan = home.end(name, code=75)
    left = {"a", "b", "c"} - {kept[0]}
    assert {item.node for item in home.state("gang").reservations} == left, told(plan)


def test_a_gang_takes_no_more_victims_than_its_last_rank_needs() -> None:
    """Three ranks over two nodes of two: both victims of the one yield, and one of the other."""
    home = Home(fleet(node("a"), node("b")))
    home.up(*(job(f"low-{at}", checkpoint=RESUMABLE) for at in range(4)))
    for at in range(4):
        home.begin(f"low-{at}")
    home.cycle(after_ms=10_000)
    plan = home.up(job("gang", ranks=3, priority=9))
    assert sum(line.startswith("stop low-") for line in told(plan)) == 3


def test_a_kind_that_was_asked_for_and_has_left_the_fleet_hinders_nobody() -> None:
    home = Home(fleet(node("old", devices=["A100"]), node("new", devices=["T4"])))
    home.up(*(job(f"a{at}", gpus=(("A100", 1),)) for at in range(12)))
    home.begin("a0")
    home.end("a0")
    home.cycle(fleet(node("new", devices=["T4"])))
    home.up(*(job(f"t{at}", gpus=(("T4", 1),)) for at in range(12)))
    assert home.phase("t0") is Phase.ACTIVE
    assert home.phase("a5") is Phase.QUEUED
