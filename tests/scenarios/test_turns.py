"""Jobs that share accelerators, one story at a time: who goes first, who yields its turn, what is said."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.properties.queue_laws import queue
from tests.properties.turn_world import HOUR_MS, MINUTE_MS, SECOND_MS, Task, World, task
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node, told

from steersman.explain.words import describe
from steersman.explain.workload import explain
from steersman.model.decisions import Stop
from steersman.model.events import PolicySet
from steersman.model.ids import QueueName
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase
from steersman.model.workload import Workload
from steersman.sim.quotas import quotas_hold

ENDED = 30
GITTINS = Policy(order="gittins", order_period_ms=60_000, preempt_run_ms_min=1_000)


def stream() -> list[Task]:
    """Six long jobs come first and hold everything there is; then short ones, one every two minutes."""
    long = [task(f"long-{number}", number * SECOND_MS, 20 * HOUR_MS) for number in range(6)]
    short = [task(f"short-{number}", (5 + 2 * number) * MINUTE_MS, 4 * MINUTE_MS) for number in range(120)]
    return [*long, *short]


def test_short_jobs_behind_long_ones_are_done_far_sooner_by_index_than_by_age() -> None:
    by_age = World(stream(), replace(GITTINS, order="age")).live()
    by_index = World(stream(), GITTINS).live()
    assert by_index.mean_completion_ms() * 5 < by_age.mean_completion_ms()
    last_by_age = max(end for name, end in by_age.ends_ms.items() if name.startswith("long"))
    last_by_index = max(end for name, end in by_index.ends_ms.items() if name.startswith("long"))
    assert last_by_index < 1.2 * last_by_age, "the long ones pay little"
    stops = [
        item for cycle in by_index.home.cycles for item in cycle.plan.decisions if isinstance(item, Stop)
    ]
    assert len(stops) <= len(stream()), "at no more than one restart for each job"


def busy(*specs: Workload, policy: Policy = GITTINS, gpus: int = 2, **known: int) -> Home:
    """A home whose jobs have all begun; `known` are durations in seconds of jobs that ended, by stem."""
    made = Home(PolicySet(policy=policy), fleet(node("n0", cores=32, gib=64, devices=("A100",) * gpus)))
    for stem, seconds in known.items():
        for number in range(ENDED):
            name = f"{stem}-{number}"
            made.up(gpu(name))
            made.begin(name)
            made.end(name, after_ms=seconds * 1_000)
    made.up(*specs)
    for spec in specs:
        made.begin(spec.name)
    return made


def gpu(name: str, gpus: int = 1, *, resumes: bool = True, priority: int = 0, **more: Any) -> Workload:
    spec = job(name, gpus=(("A100", gpus),), priority=priority, **more)
    return replace(spec, body=replace(spec.body, checkpoint=RESUMABLE)) if resumes else spec


def in_queue(name: str, spec: Workload) -> Workload:
    return replace(spec, queue=QueueName(name))


def stops(home: Home) -> list[str]:
    """Who was told to end for the order's sake."""
    return [
        item.workload
        for cycle in home.cycles
        for item in cycle.plan.decisions
        if isinstance(item, Stop) and item.reason.code is Code.OUT_RANKED
    ]


def turns(home: Home, minutes: int = 3) -> list[str]:
    """Who yielded its turn while so much time passed."""
    before = len(stops(home))
    for _ in range(minutes * 6):
        home.cycle(after_ms=10_000)
    return stops(home)[before:]


def test_a_job_of_a_short_kind_gets_the_device_of_one_that_runs_long() -> None:
    home = busy(gpu("epic-99"), gpu("epic-98"), epic=40_000, quick=200)
    home.cycle(after_ms=4 * HOUR_MS)
    home.up(gpu("quick-97"))
    assert home.phase("quick-97") is Phase.QUEUED
    assert len(turns(home)) == 1
    (loser,) = stops(home)
    why = home.state(loser).reason
    assert why is not None
    facts = dict(why.facts)
    assert facts["by"] == "quick-97"
    assert int(facts["by_typical_ms"]) < int(facts["typical_ms"])
    assert int(facts["attained_ms"]) >= 4 * HOUR_MS
    assert describe(why).startswith(
        "yields its turn to quick-97 of the same priority, which is likelier to end"
    )
    waits = home.state("quick-97").reason
    assert waits is not None
    assert describe(waits).startswith("waits for 1 out-ranked run(s) to save and yield, the first epic")
    home.end(loser, code=75)
    assert home.phase("quick-97") is Phase.ACTIVE
    assert home.state(loser).preemptions == 1
    assert turns(home) == [], "the short one is left alone"


def test_by_age_nobody_takes_turns() -> None:
    home = busy(gpu("epic-99"), gpu("epic-98"), policy=replace(GITTINS, order="age"), epic=40_000, quick=200)
    home.cycle(after_ms=4 * HOUR_MS)
    home.up(gpu("quick-97"))
    assert turns(home, 10) == []
    assert home.cycles[-1].plan.wake_at_ms is None
    assert explain(home.snapshot, "quick-97", ()).facts == ("nothing saved yet",)


def test_a_turn_is_waited_for_and_asks_to_be_woken() -> None:
    home = busy(gpu("epic-99"), gpu("epic-98"), epic=40_000, quick=200)
    home.cycle(after_ms=4 * HOUR_MS)
    home.up(gpu("quick-97"))
    home.cycle(after_ms=0)
    home.cycle(after_ms=0)
    assert len(stops(home)) == 1
    home.end(stops(home)[0], code=75)
    home.up(gpu("quick-98"), gpu("quick-99"))
    plan = home.cycle(after_ms=0)
    assert len(stops(home)) == 1, "once a period"
    assert plan.wake_at_ms is not None
    left_ms = plan.wake_at_ms - home.now_ms
    assert 0 < left_ms <= 60_000
    home.cycle(after_ms=left_ms - 1)
    assert len(stops(home)) == 1
    home.cycle(after_ms=1)
    assert len(stops(home)) == 2


def test_one_that_cannot_resume_or_has_only_begun_or_is_more_urgent_keeps_its_device() -> None:
    for spec in (gpu("epic-99", 2, resumes=False), gpu("epic-99", 2, priority=5)):
        home = busy(spec, epic=40_000, quick=200)
        home.cycle(after_ms=4 * HOUR_MS)
        home.up(gpu("quick-97"))
        assert turns(home) == []
    home = busy(
        gpu("epic-99", 2), policy=replace(GITTINS, preempt_run_ms_min=10 * HOUR_MS), epic=40_000, quick=200
    )
    home.cycle(after_ms=4 * HOUR_MS)
    home.up(gpu("quick-97"))
    assert turns(home) == []


def test_likes_do_not_take_turns() -> None:
    home = busy(gpu("epic-99"), gpu("epic-98"), epic=40_000)
    home.up(gpu("epic-97"))
    assert turns(home) == []


def test_a_gang_has_as_many_yield_as_it_needs_and_no_more() -> None:
    home = busy(*(gpu(f"epic-{number}") for number in (97, 98, 99)), gpus=4, epic=40_000, quick=100)
    home.cycle(after_ms=10 * HOUR_MS)
    home.up(gpu("quick-97", 3, ranks=1))
    assert home.phase("quick-97") is Phase.QUEUED
    assert len(turns(home)) == 2, "one device was free"


def test_ranks_that_must_be_together_displace_nobody_where_they_would_be_apart() -> None:
    def scene(topology: Any) -> Home:
        nodes = [node(name, cores=32, gib=64, devices=("A100",)) for name in ("n0", "n1")]
        home = Home(PolicySet(policy=GITTINS), fleet(*nodes))
        home.up(gpu("epic-1"), gpu("epic-2"))
        home.begin("epic-1")
        home.begin("epic-2")
        home.cycle(after_ms=20 * HOUR_MS)
        gang = gpu("new", ranks=2)
        home.up(replace(gang, body=replace(gang.body, topology=topology)))
        return home

    assert turns(scene("node")) == []
    assert len(turns(scene(""))) == 2
    assert len(turns(scene("zone"))) == 2


def test_within_a_full_quota_the_queue_takes_turns_with_itself() -> None:
    home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=32, gib=64, devices=("A100",) * 4)))
    home.cycle(queue("ash", gpus=2, cohort=""), queue("birch", gpus=2, cohort=""))
    home.up(*(in_queue("ash", gpu(f"epic-{number}")) for number in range(2)))
    for number in range(2):
        home.begin(f"epic-{number}")
    home.cycle(after_ms=20 * HOUR_MS)
    home.up(in_queue("ash", gpu("new")), in_queue("birch", gpu("other")))
    assert home.code("new") is Code.OVER_QUOTA
    home.begin("other")
    turns(home)
    (loser,) = stops(home)
    assert home.state("new").reservations, "it is kept until the quota is given back"
    home.end(loser, code=75)
    assert home.phase("new") is Phase.ACTIVE
    assert quotas_hold([(record.position, record.event) for record in home.log]) == []


def test_no_queue_yields_to_another_for_the_order_s_sake() -> None:
    home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=32, gib=64, devices=("A100",) * 2)))
    home.cycle(queue("ash", gpus=2, cohort=""), queue("birch", gpus=2, cohort=""))
    home.up(in_queue("ash", gpu("epic", 2)))
    home.begin("epic")
    home.cycle(after_ms=40 * HOUR_MS)
    home.up(in_queue("birch", gpu("new")))
    assert turns(home, 10) == []


def test_a_quota_that_could_never_be_had_makes_nobody_yield() -> None:
    home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=32, gib=64, devices=("A100",) * 4)))
    home.cycle(queue("ash", gpus=2, cohort=""))
    home.up(in_queue("ash", gpu("epic", 2)))
    home.begin("epic")
    home.cycle(after_ms=40 * HOUR_MS)
    home.up(in_queue("ash", gpu("vast", 3)))
    assert turns(home, 10) == []


def test_room_is_not_made_past_somebody_more_urgent_who_needs_no_more() -> None:
    """In a queue in which nobody yields to priority, the urgent one waits; what is freed would be its."""
    for gpus, yielded in ((1, 0), (2, 1)):
        home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=32, gib=64, devices=("A100",) * 2)))
        home.cycle(queue("ash", gpus=2, cohort="", within="never"))
        home.up(*(in_queue("ash", gpu(f"epic-{number}")) for number in range(2)))
        for number in range(2):
            home.begin(f"epic-{number}")
        home.cycle(after_ms=20 * HOUR_MS)
        home.up(in_queue("ash", gpu("urgent", gpus, priority=5)), in_queue("ash", gpu("new")))
        turns(home)
        assert len(stops(home)) == yielded


def test_a_job_that_may_take_either_kind_has_one_turn() -> None:
    nodes = [node(kind.lower(), cores=8, gib=32, devices=(kind,)) for kind in ("A100", "H100")]
    home = Home(PolicySet(policy=GITTINS), fleet(*nodes))
    either = replace(gpu("new"), resources=replace(gpu("x").resources, accelerators=(("A100|H100", 1),)))
    home.up(gpu("epic-1"), replace(gpu("epic-2"), resources=job("x", gpus=(("H100", 1),)).resources))
    home.up(replace(job("on-cores"), body=replace(job("x").body, checkpoint=RESUMABLE)))
    for name in ("epic-1", "epic-2", "on-cores"):
        home.begin(name)
    home.cycle(after_ms=20 * HOUR_MS)
    home.up(either)
    turns(home)
    assert len(stops(home)) == 1
    home.up(gpu("other"))
    assert explain(home.snapshot, "other", ()).facts[0].startswith("number 2 of 2")
    home.up(replace(gpu("third"), resources=job("x", gpus=(("H100", 1),)).resources))
    assert explain(home.snapshot, "other", ()).facts[0].startswith("number 2 of 2")


def test_room_that_is_kept_is_taken_though_one_of_its_kind_is_more_urgent() -> None:
    home = busy(gpu("epic-99", 2), epic=40_000)
    home.cycle(after_ms=20 * HOUR_MS)
    home.up(gpu("new", 2))
    home.cycle(after_ms=0)
    assert stops(home) == ["epic-99"]
    home.up(gpu("urgent", 2, priority=5))
    home.end("epic-99", code=75)
    assert home.phase("new") is Phase.ACTIVE, "else what was given back would lie idle"


def test_what_does_not_end_by_itself_stands_by_its_age() -> None:
    home = busy(gpu("hold", 2, resumes=False), epic=40_000, quick=200)
    home.up(gpu("epic-97"))
    lasting = gpu("lasting")
    home.up(replace(lasting, body=replace(lasting.body, program="gateway")))
    home.up(gpu("quick-97"))
    plan = home.end("hold")
    started = [line.split(":")[0] for line in told(plan) if line.startswith("start")]
    assert started == ["start quick-97", "start epic-97"], "the oldest of those that are ordered came first"
    home.begin("quick-97")
    assert "start lasting: placed" in told(home.end("quick-97"))


def test_what_comes_free_goes_to_the_short_kind_though_it_is_younger() -> None:
    home = busy(gpu("hold", 2, resumes=False), epic=40_000, quick=200)
    home.up(gpu("epic-97"))
    home.up(gpu("epic-98"))
    home.up(gpu("quick-97"))
    plan = home.end("hold")
    started = [line.split(":")[0] for line in told(plan) if line.startswith("start")]
    assert started == ["start quick-97", "start epic-97"], "and within a kind the oldest"


def test_priority_comes_before_any_index() -> None:
    home = busy(gpu("hold", 2, resumes=False), epic=40_000, quick=200)
    home.up(gpu("quick-97"))
    home.up(gpu("quick-98"))
    home.up(gpu("epic-97", 2, priority=1))
    plan = home.end("hold")
    assert [line for line in told(plan) if line.startswith("start")] == ["start epic-97: placed"]


def test_who_is_not_ordered_stands_by_age_among_those_who_are() -> None:
    """One job on cores came between two on devices; what it waits for is cores."""
    home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=2, gib=64, devices=("A100",) * 2)))
    home.up(job("hold", cores=2))
    home.begin("hold")
    home.up(gpu("first"))
    home.up(job("cores"))
    home.up(gpu("second"))
    plan = home.end("hold")
    assert [line for line in told(plan) if line.startswith("start")] == [
        "start first: placed",
        "start second: placed",
    ]
    home.begin("first")
    plan = home.end("first")
    assert "start cores: placed" in told(plan)


def test_what_is_known_grows_with_what_ends_and_survives_the_name() -> None:
    home = busy(gpu("hold", 2, resumes=False), quick=200)
    home.up(gpu("quick-97"), gpu("other"))
    facts = explain(home.snapshot, "quick-97", ()).facts
    assert facts[0].startswith("number 1 of 2 that wait for A100 in its queue")
    assert "learned of 30 that ended, jobs of devices=1 queue=default owner= name=quick" in facts[1]
    assert "it has had 0s" in facts[1]
    other = explain(home.snapshot, "other", ()).facts
    assert other[0].startswith("number 2 of 2")
    assert "learned of 30 that ended, jobs of devices=1 queue=default owner=)" in other[1]


def test_with_nothing_known_it_says_so() -> None:
    home = busy(gpu("hold", 2))
    home.up(gpu("new"))
    assert "jobs like it typically take 2h15m (nothing has ended yet: a guess)" in "".join(
        explain(home.snapshot, "new", ()).facts
    )


def test_a_declaration_in_words_of_alternatives_stands_with_those_it_competes_with() -> None:
    home = busy(gpu("hold", 2))
    either = replace(gpu("either"), resources=replace(gpu("x").resources, accelerators=(("A100|H100", 1),)))
    anyone = replace(gpu("anyone"), resources=replace(gpu("x").resources, accelerators=(("any", 1),)))
    home.up(either, anyone, gpu("plain"))
    assert explain(home.snapshot, "plain", ()).facts[0].startswith("number 3 of 3")
    assert explain(home.snapshot, "anyone", ()).facts[0].startswith("number 2 of 3")
    assert explain(home.snapshot, "either", ()).facts[0].startswith("number 1 of 3")
    home.cycle(after_ms=40 * HOUR_MS)
    assert stops(home) == ["hold"], "and any of them may have a turn"


def test_stints_are_learned_whole_whatever_they_end_with() -> None:
    home = Home(fleet(node("n0", cores=32, gib=64, devices=("A100",) * 2)))
    home.up(gpu("a-1"))
    home.begin("a-1")
    home.end("a-1", code=1, after_ms=100_000)
    learned = home.snapshot.durations.learned
    assert (learned.stints, sum(learned.ends), sum(learned.exposed_milli) > 0) == (1, 0, True)
    home.up(gpu("a-2"))
    home.begin("a-2")
    home.end("a-2", after_ms=100_000)
    learned = home.snapshot.durations.learned
    assert (learned.stints, sum(learned.ends), learned.classes["all"].ended) == (2, 1, 1)
    home.up(gpu("a-3"))
    home.begin("a-3")
    home.down("a-3")
    home.end("a-3", code=75, after_ms=100_000)
    assert "a-3" not in home.snapshot.workloads
    assert home.snapshot.durations.learned.stints == 3, "what was removed ran, too"
    home.up(job("cores"))
    home.begin("cores")
    home.end("cores")
    assert home.snapshot.durations.learned.stints == 3, "only what holds accelerators is learned"


def test_what_was_attained_is_kept_as_long_as_what_was_saved() -> None:
    home = Home(PolicySet(policy=GITTINS), fleet(node("n0", cores=32, gib=64, devices=("A100",))))
    home.up(gpu("a"))
    home.begin("a")
    home.save("a", 1)
    home.stop("a")
    home.end("a", code=75, after_ms=100_000)
    attained_ms = home.state("a").attained_ms
    assert attained_ms > 100_000
    home.up(gpu("a"))
    assert home.state("a").attained_ms == attained_ms, "it goes on from what it saved"
    home.begin("a")
    home.cycle(declared(replace(gpu("a"), owner="me")))
    home.end("a", code=75)
    assert home.state("a").attained_ms > attained_ms
    home.begin("a")
    home.end("a", completed=True)
    home.up(gpu("a"))
    assert home.state("a").attained_ms == 0, "a job that was done begins anew"


def test_what_runs_on_is_counted_at_each_turn_and_never_twice() -> None:
    home = busy(gpu("long", 2))
    home.up(gpu("wait"))
    home.cycle(after_ms=1_000)
    before = home.snapshot.durations.learned.stints
    home.cycle(after_ms=1_000_000)
    assert home.snapshot.durations.learned.stints == before + 1
    assert home.state("long").counted_ms == home.now_ms - (home.run("long").started_ms or 0)
    counted_s = home.state("long").counted_ms // 1_000
    exposed = sum(home.snapshot.durations.learned.exposed_milli)
    if home.run("long").stop is None:
        home.end("long", code=75, after_ms=0)
    else:
        home.end("long", code=75, after_ms=0)
    assert home.state("long").attained_ms // 1_000 == counted_s
    assert sum(home.snapshot.durations.learned.exposed_milli) == exposed


@pytest.mark.parametrize("order", ["age", "gittins"])
def test_a_job_that_waits_for_a_pool_has_no_place(order: Any) -> None:
    home = Home(PolicySet(policy=replace(GITTINS, order=order)), fleet(node("n0", devices=("A100",))))
    spec = gpu("picky")
    home.up(replace(spec, body=replace(spec.body, spot_policy="spot")))
    assert home.phase("picky") is Phase.QUEUED
    assert not any(fact.startswith("number") for fact in explain(home.snapshot, "picky", ()).facts)
