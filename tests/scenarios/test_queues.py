"""Queues one story at a time: quotas, borrowing and reclaim, whose turn it is, budgets."""

from msgspec.structs import replace
from tests.properties.queue_laws import history, put_in, queue
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node, told

from steersman.explain.words import amount_words, describe, fix
from steersman.explain.workload import explain
from steersman.model.events import Event, PolicySet, QueueRemoved
from steersman.model.ids import QueueName
from steersman.model.policy import Policy
from steersman.model.queue import GPU_HOUR, Budget, QueueState
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase, RankEnd
from steersman.model.workload import Workload
from steersman.sim.quotas import quotas_hold
from steersman.state.usage import decay, settled, usage_of

SHORT = PolicySet(policy=Policy(preempt_run_ms_min=1_000))


def resumable(name: str, spec: Workload) -> Workload:
    return put_in(name, replace(spec, body=replace(spec.body, checkpoint=RESUMABLE)))


def home(*queues: Event, cores: int = 8) -> Home:
    made = Home(fleet(node("one", cores=cores, gib=64)), SHORT)
    made.cycle(*queues)
    return made


def test_without_a_cohort_the_nominal_quota_is_the_end() -> None:
    made = home(queue("ash", cores=2, cohort=""))
    made.up(*(put_in("ash", job(name)) for name in ("a", "b", "c")))
    assert [made.phase(name) for name in ("a", "b", "c")] == [Phase.ACTIVE, Phase.ACTIVE, Phase.QUEUED]
    assert made.code("c") is Code.OVER_QUOTA
    why = made.state("c").reason
    assert why is not None
    words = "queue ash holds 2 cores of its 2 cores and may hold 0 cores more now; this asks for 1 cores"
    assert describe(why) == words
    assert "raise nominal_quota" in str(fix(why))
    made.begin("a")
    assert told(made.end("a"))[-1] == "start c: placed"


def test_who_holds_the_quota_of_the_cohort_is_in_the_way() -> None:
    made = home(queue("ash", cores=2), queue("birch", cores=1), queue("alone", cores=1, cohort=""), cores=12)
    made.up(
        put_in("ash", job("a", cores=2)), put_in("birch", job("b")), put_in("alone", job("c")), job("free")
    )
    made.up(put_in("ash", job("wants")), put_in("alone", job("waits")))
    assert {one.workload for one in explain(made.snapshot, "wants", ()).rivals} == {"a", "b"}
    assert {one.workload for one in explain(made.snapshot, "waits", ()).rivals} == {"c"}


def test_more_than_a_queue_could_ever_hold_is_told_so() -> None:
    made = home(queue("ash", cores=2, cohort=""))
    made.up(put_in("ash", job("big", cores=3)))
    assert "ask for at most 2 cores" in str(explain(made.snapshot, "big", ()).fix)


def test_what_is_lent_is_borrowed_up_to_the_limits() -> None:
    made = home(queue("ash", cores=1, borrow=2), queue("birch", cores=4, lend=1))
    made.up(*(put_in("ash", job(name)) for name in ("a", "b", "c")))
    assert [made.phase(name) for name in ("a", "b", "c")] == [Phase.ACTIVE, Phase.ACTIVE, Phase.QUEUED]


def test_a_queue_gets_back_what_it_lent_and_nobody_borrows_meanwhile() -> None:
    made = home(queue("ash", cores=2), queue("birch", cores=2))
    made.up(*(resumable("ash", job(name)) for name in ("a", "b", "c", "d")))
    for name in ("a", "b", "c", "d"):
        made.begin(name)
    made.cycle(after_ms=5_000)
    plan = made.up(put_in("birch", job("mine", cores=2)), resumable("ash", job("e")))
    stops = [line for line in told(plan) if line.startswith("stop")]
    assert len(stops) == 2
    assert all("preempted" in line for line in stops)
    assert made.code("mine") is Code.WAITING_PREEMPTION
    assert made.phase("e") is Phase.QUEUED
    leaving = [name for name in ("a", "b", "c", "d") if made.code(name) is Code.PREEMPTED]
    assert dict(made.snapshot.indexes.leaving[QueueName("ash")])["cpus"] == 2_000
    made.end(leaving[0], code=75)
    assert made.phase(leaving[0]) is Phase.QUEUED, "what came free is not borrowed again"
    made.end(leaving[1], code=75)
    assert made.phase("mine") is Phase.ACTIVE
    assert quotas_hold(history(made)) == []


def test_what_was_lent_comes_back_from_who_borrowed_only_once_they_may_be_asked() -> None:
    """Birch's own run is left alone, though it could resume; ash's are asked once ten seconds old."""
    made = home(queue("ash", cores=2), queue("birch", cores=2, gpus=1))
    made.cycle(PolicySet(policy=Policy(preempt_run_ms_min=10_000)))
    made.up(resumable("birch", job("own")))
    made.begin("own")
    made.cycle(after_ms=20_000)
    made.up(*(resumable("ash", job(name)) for name in ("a", "b", "c")))
    for name in ("a", "b", "c"):
        made.begin(name)
    plan = made.up(put_in("birch", job("mine")))
    assert [line for line in told(plan) if line.startswith("stop")] == []
    assert (made.phase("mine"), made.code("mine")) == (Phase.QUEUED, Code.OVER_QUOTA)
    assert plan.wake_at_ms is not None
    stops = [
        line for line in told(made.cycle(after_ms=plan.wake_at_ms - made.now_ms)) if line.startswith("stop")
    ]
    assert len(stops) == 1
    assert made.code("own") is not Code.PREEMPTED


def test_nobody_is_asked_for_what_comes_back_anyway() -> None:
    made = home(queue("ash", cores=2), queue("birch", cores=2))
    made.up(*(resumable("ash", job(name)) for name in ("a", "b", "c", "d")))
    for name in ("a", "b", "c", "d"):
        made.begin(name)
    made.cycle(after_ms=5_000)
    made.down("a")
    plan = made.up(put_in("birch", job("mine")))
    assert [line for line in told(plan) if line.startswith("stop")] == []
    assert (made.phase("mine"), made.code("mine")) == (Phase.QUEUED, Code.OVER_QUOTA)
    made.end("a", code=143)
    assert made.phase("mine") is Phase.ACTIVE


def test_a_queue_that_lends_for_good_takes_nothing_back() -> None:
    made = home(queue("ash", cores=2), queue("birch", cores=2, reclaim="never"))
    made.up(*(resumable("ash", job(name)) for name in ("a", "b", "c", "d")))
    made.cycle(after_ms=5_000)
    made.up(put_in("birch", job("mine", cores=2)))
    assert made.code("mine") is Code.OVER_QUOTA


def test_a_run_within_its_quota_does_not_yield_to_another_queue() -> None:
    made = home(queue("ash", cores=8, cohort=""), queue("birch", cores=8, cohort=""))
    made.up(resumable("ash", job("holder", cores=8)))
    made.begin("holder")
    made.cycle(after_ms=5_000)
    made.up(put_in("birch", job("urgent", cores=8, priority=500)))
    assert made.code("urgent") is Code.NO_CORES
    found = explain(made.snapshot, "urgent", ())
    assert found.rivals[0].why_not == "is within what queue ash may keep"


def test_what_is_within_its_quota_stays_though_a_part_of_the_queue_is_borrowed() -> None:
    """One of birch's five is borrowed; two would have to go."""
    made = home(queue("ash", cores=6), queue("birch", cores=4))
    made.up(put_in("ash", job("mine", cores=2)), *(resumable("birch", job(f"b{at}")) for at in range(5)))
    for name in ("mine", *(f"b{at}" for at in range(5))):
        made.begin(name)
    made.cycle(after_ms=5_000)
    plan = made.up(put_in("ash", job("more", cores=3, priority=500)))
    assert [line for line in told(plan) if line.startswith("stop")] == []
    assert made.phase("more") is Phase.QUEUED


def test_what_was_lent_comes_back_from_each_that_borrowed() -> None:
    made = home(queue("ash", cores=2), queue("birch", cores=2), queue("cedar", cores=2), cores=6)
    names = [f"{name[0]}{at}" for name in ("ash", "cedar") for at in range(3)]
    made.up(*(resumable({"a": "ash", "c": "cedar"}[name[0]], job(name)) for name in names))
    for name in names:
        made.begin(name)
    made.cycle(after_ms=5_000)
    plan = made.up(put_in("birch", job("mine", cores=2)))
    assert sorted(line.split()[1][0] for line in told(plan) if line.startswith("stop")) == ["a", "c"]


def test_nobody_yields_within_a_queue_that_says_so() -> None:
    made = home(queue("ash", cores=8, cohort="", within="never"))
    made.up(resumable("ash", job("holder", cores=8)))
    made.begin("holder")
    made.cycle(after_ms=5_000)
    made.up(put_in("ash", job("urgent", cores=8, priority=500)))
    assert [line for line in told(made.cycle()) if line.startswith("stop")] == []
    assert explain(made.snapshot, "urgent", ()).rivals[0].why_not == "nobody yields within queue ash"


def test_the_queue_that_used_less_goes_first() -> None:
    made = home(queue("ash", cohort=""), queue("birch", cohort=""), cores=4)
    made.up(*(put_in("ash", job(f"a{at}")) for at in range(4)))
    for at in range(4):
        made.begin(f"a{at}")
    specs = [put_in("ash", job("old", priority=500)), put_in("birch", job("new"))]
    made.cycle(*map(declared, specs), after_ms=3_600_000)
    made.end("a0")
    assert (made.phase("old"), made.phase("new")) == (Phase.QUEUED, Phase.ACTIVE)


def test_a_queue_that_is_removed_limits_nothing() -> None:
    made = home(queue("ash", cores=0, cohort=""))
    made.up(put_in("ash", job("a")))
    assert made.code("a") is Code.OVER_QUOTA
    made.cycle(QueueRemoved(queue=QueueName("ash")), QueueRemoved(queue=QueueName("never")))
    assert made.phase("a") is Phase.ACTIVE


def gpu_home(budget: Budget) -> Home:
    made = Home(fleet(node("one", cores=8, gib=64, devices=("A100",) * 4)), SHORT)
    made.cycle(queue("ash", cohort="", budget=budget))
    return made


def test_a_budget_of_device_time_ends_what_runs_and_begins_anew() -> None:
    """Two devices for half an hour of a budget of one GPU-hour, then wait for the period's end."""
    made = gpu_home(Budget(device_ms=GPU_HOUR, period_ms=7_200_000))
    plan = made.up(resumable("ash", job("a", gpus=(("A100", 2),))), job("other"))
    began_ms = made.now_ms
    made.begin("a")
    plan = made.cycle(after_ms=60_000)
    assert plan.wake_at_ms == began_ms + 1_800_000
    plan = made.cycle(after_ms=1_800_000 - 60_000)
    assert told(plan) == ["stop a (preempted): budget-exhausted"]
    made.end("a", code=75, after_ms=0)
    assert made.code("a") is Code.BUDGET_EXHAUSTED
    why = made.state("a").reason
    assert why is not None
    assert "1 GPU-hours, is used up; the next period begins in" in describe(why)
    plan = made.cycle(after_ms=1_000)
    assert plan.wake_at_ms is not None
    made.cycle(after_ms=plan.wake_at_ms - made.now_ms)
    assert made.phase("a") is Phase.ACTIVE


def test_a_budget_of_money_counts_the_largest_part_of_a_node() -> None:
    priced = replace(node("one", cores=8, gib=64), price_usd_micro_per_hour=4_000_000)
    made = Home(fleet(priced), SHORT)
    made.cycle(queue("ash", cohort="", budget=Budget(usd_micro=1_000_000)))
    made.up(put_in("ash", job("half", cores=4)))
    began_ms = made.now_ms
    made.begin("half")
    assert made.cycle(after_ms=1_000).wake_at_ms == began_ms + 1_800_000, "2 USD an hour"
    made.cycle(after_ms=3_600_000)
    made.end("half", code=75)
    why = made.state("half").reason
    assert why is not None
    assert describe(why) == "the budget of queue ash, 1.00 USD, is used up"
    assert fix(why) == "raise budget of queue ash and declare it again"


def test_without_a_price_no_money_is_spent() -> None:
    made = home(queue("ash", cohort="", budget=Budget(usd_micro=1)))
    made.up(put_in("ash", job("a")))
    made.begin("a")
    made.cycle(after_ms=10 * 3_600_000)
    assert made.phase("a") is Phase.ACTIVE


def test_what_is_settled_stays_so_when_no_time_passed() -> None:
    state = QueueState(spec=queue("ash").queue, declared_ms=1, settled_ms=7)
    assert settled(state, (("cpus", 1),), 7, 1_000) is state


def test_amounts_of_quotas_in_words() -> None:
    assert [amount_words(*one) for one in (("cpus", 2_500), ("memory", 8 << 30), ("A100", 3_500))] == [
        "2.5 cores",
        "8 GiB",
        "3.5 x A100",
    ]


def test_usage_is_forgotten_by_halves_and_in_the_end_wholly() -> None:
    assert decay(1_000, 1_000) * 2 == decay(0, 1_000)
    assert decay(64_000, 1_000) == 0


def test_a_run_whose_ranks_have_all_ended_holds_nothing() -> None:
    made = home(queue("ash", cores=2))
    made.up(put_in("ash", job("a")))
    made.begin("a")
    run = made.run("a")
    assert dict(usage_of(run))["cpus"] == 1_000
    ended = replace(run.ranks[0], end=RankEnd(exit_code=0))
    assert usage_of(replace(run, ranks=(ended,))) == ()
