"""What a workload runs on, case by case: pools that could hold it, prices, rules, and when to look again."""

import pytest
from msgspec.structs import replace
from tests.properties.choice_laws import a_node
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, told

from steersman.decide.choose import TABLES_MAX, SpotMemo, basis_of, choose, hazard_of, offers_of, view
from steersman.decide.spot import Prices
from steersman.engine.validate import still_valid
from steersman.model.decisions import Choose
from steersman.model.events import InterruptionNotice, NodeHealth, PriceObserved, RankExited
from steersman.model.fleet import Node
from steersman.model.ids import DeviceId, NodeId
from steersman.model.reasons import Code
from steersman.model.resources import Device
from steersman.model.snapshot import Phase
from steersman.model.workload import Retry, SpotPolicy, Workload

HOUR_MS = 3_600_000
DEAR, CHEAP = 3_060_000, 900_000


def a_job(
    policy: SpotPolicy = "auto",
    *,
    deadline_h: int | None = 5,
    most: int | None = None,
    gpus: tuple[tuple[str, int], ...] = (),
    saves: bool = True,
    cores: int = 2,
) -> Workload:
    """An hour of work on a whole node."""
    plain = job("train", cores=cores, gpus=gpus)
    body = replace(
        plain.body,
        checkpoint=RESUMABLE if saves else plain.body.checkpoint,
        spot_policy=policy,
        deadline_ms=None if deadline_h is None else deadline_h * HOUR_MS,
        work_ms=HOUR_MS,
        price_usd_micro_per_hour_max=most,
    )
    return replace(plain, body=body)


def a_home(*nodes: Node) -> Home:
    """A home whose fleet was declared at its time, not at the beginning of all time."""
    home = Home()
    home.cycle(fleet(*nodes))
    return home


def dear(price: int | None = DEAR) -> Node:
    return a_node("dear-0", "dear", price)


def cheap(pool: str = "spot-a", price: int | None = CHEAP, number: int = 0) -> Node:
    return a_node(f"{pool}-{number}", pool, price)


def chosen(home: Home) -> tuple[str, tuple[str, ...], Code]:
    choice = home.state("train").choice
    assert choice is not None
    return choice.capacity, choice.pools, choice.reason.code


@pytest.mark.parametrize(
    ("nodes", "spec", "expected"),
    [
        ((dear(), cheap()), a_job(), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
        ((dear(), cheap()), a_job("spot"), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
        ((dear(), cheap()), a_job(deadline_h=None), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
        ((dear(), cheap(price=None)), a_job(), ("on-demand", (), Code.NO_PRICE)),
        ((dear(None), cheap()), a_job(), ("on-demand", (), Code.NO_PRICE)),
        ((dear(), cheap(price=None)), a_job(deadline_h=None), ("on-demand", (), Code.NO_PRICE)),
        ((dear(), cheap(price=None)), a_job("spot"), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
        ((dear(),), a_job(), ("on-demand", (), Code.NO_SPOT_POOL)),
        ((dear(),), a_job("spot"), ("on-demand", (), Code.NO_SPOT_POOL)),
        ((a_node("mine", "", None),), a_job(most=1), ("on-demand", ("",), Code.NO_SPOT_POOL)),
        ((dear(), cheap()), a_job("on-demand", most=DEAR), ("on-demand", ("dear",), Code.CHOSE_ON_DEMAND)),
        ((dear(), cheap()), a_job("on-demand", most=CHEAP), ("wait", (), Code.NO_PRICE)),
        ((dear(), cheap()), a_job("spot", most=1), ("wait", (), Code.NO_PRICE)),
        ((cheap(),), a_job(), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
        ((dear(), cheap()), a_job(deadline_h=1), ("on-demand", (), Code.DEADLINE_AT_RISK)),
        ((dear(), cheap()), a_job(saves=False), ("spot", ("spot-a",), Code.CHOSE_SPOT)),
    ],
)
def test_what_is_chosen(
    nodes: tuple[Node, ...], spec: Workload, expected: tuple[str, tuple[str, ...], Code]
) -> None:
    home = a_home(*nodes)
    home.up(spec)
    home.settle()
    assert chosen(home) == expected
    assert home.phase("train") is (Phase.QUEUED if expected[0] == "wait" else Phase.ACTIVE)


def test_a_pool_must_be_able_to_hold_it() -> None:
    big = replace(
        cheap("spot-b"), devices=tuple(Device(id=DeviceId(f"b/{at}"), kind="H100") for at in range(2))
    )
    home = a_home(dear(), cheap(), big)
    for gpus, names in (
        ((), ("spot-a", "spot-b")),
        ((("H100", 2),), ("spot-b",)),
        ((("A100|H100", 1),), ("spot-b",)),
        ((("any", 2),), ("spot-b",)),
        ((("H100", 3),), ()),
    ):
        offers = offers_of(home.snapshot, a_job(gpus=gpus))
        assert tuple(pool.name for pool in offers.spot) == names
    assert ("spot-a", "too small") in offers.refused
    spec = a_job(gpus=(("H100", 2),))
    assert [pool.name for pool in offers_of(home.snapshot, spec).on_demand] == []
    small = replace(a_job(), resources=replace(a_job().resources, cpu_milli=0, memory_bytes=0))
    assert len(offers_of(home.snapshot, small).spot) == 2


def test_a_pool_in_which_a_period_was_spent_in_the_queue_is_passed_over_once() -> None:
    home = a_home(dear(), cheap(), cheap("spot-b", CHEAP + 1))
    other = replace(job("other", cores=2, priority=9), body=replace(a_job("spot").body, checkpoint=RESUMABLE))
    home.up(other)
    home.settle()
    home.begin("other")
    home.up(a_job(deadline_h=40))
    home.settle()
    first = chosen(home)[1]
    home.cycle(PriceObserved(pool="spot-b", at_ms=home.now_ms, price_usd_micro_per_hour=CHEAP + 2))
    assert chosen(home)[1] == first, "a period is not over yet"
    home.cycle(after_ms=home.snapshot.policy.spot_period_ms)
    home.settle()
    assert home.phase("train") is Phase.ACTIVE
    assert first == ("spot-a",)
    assert chosen(home)[1] == ("spot-b",)


def test_a_job_that_may_not_be_on_spot_any_more_leaves_it() -> None:
    home = a_home(dear(), cheap())
    home.up(a_job())
    home.settle()
    home.begin("train")
    plan = home.cycle(declared(a_job("on-demand"), restarts=False))
    assert told(plan) == ["choose train: chose-on-demand", "stop train (moved): moved"]
    assert home.state("train").choice is None
    home.end("train", code=75)
    home.settle()
    assert home.run("train").pool == "dear"
    assert home.state("train").attempts == 0


def test_a_price_that_moves_is_news_to_who_waits() -> None:
    home = a_home(cheap())
    home.up(a_job("spot", most=1))
    home.settle()
    assert chosen(home)[0] == "wait"
    home.cycle(PriceObserved(pool="spot-a", at_ms=home.now_ms, price_usd_micro_per_hour=1))
    home.settle()
    assert home.phase("train") is Phase.ACTIVE


def test_a_node_that_is_gone_when_it_is_asked_for_is_no_failure_of_the_job() -> None:
    home = a_home(dear(), cheap())
    home.up(a_job())
    home.settle()
    run = home.run("train")
    plan = home.cycle(RankExited(run=run.id, rank=0, at_ms=home.now_ms, cause="start-failed"))
    assert told(plan) == ["requeue train: retry-interrupted"]
    assert home.phase("train") is Phase.BACKOFF
    home.cycle(NodeHealth(node=NodeId("spot-a-0"), health="dead"), after_ms=60_000)
    home.settle()
    assert home.state("train").attempts == 0


def test_a_memo_keeps_few_tables_and_solves_the_same() -> None:
    home = a_home(dear(), cheap())
    spec = a_job()
    home.cycle(declared(spec))
    state = home.state("train")
    memo, job_view = SpotMemo(), view(home.snapshot, state, None)
    bases = [
        basis_of(home.snapshot, state, job_view, Prices(on_demand=DEAR, spot=(("spot-a", CHEAP + at),)))
        for at in range(TABLES_MAX + 2)
    ]
    tables = [memo.table(basis) for basis in bases]
    assert memo.table(bases[-1]) is tables[-1]
    assert memo.table(bases[0]) is not tables[0]
    assert memo.table(bases[0]) == tables[0]
    assert isinstance(choose(home.snapshot, state, None, memo), Choose)


def test_evidence_without_a_change_counts_by_whole_rungs() -> None:
    home = a_home(dear(), cheap())
    home.cycle(declared(a_job()))
    prices = Prices(on_demand=DEAR, spot=())

    def basis_after(hours: float):  # type: ignore[no-untyped-def]  # a basis
        state = home.state("train")
        at_ms = home.snapshot.now_ms + round(hours * HOUR_MS)
        later = replace(home.snapshot, now_ms=at_ms)
        return basis_of(later, state, view(later, state, None), replace(prices, spot=(("spot-a", CHEAP),)))

    assert basis_after(0.1) == basis_after(0.9)
    assert basis_after(0.9) != basis_after(1.1)
    assert basis_after(1.05) == basis_after(1.2)


def test_the_hazard_of_a_pool_of_which_nothing_was_seen_is_not_known() -> None:
    home = a_home(dear(), cheap())
    assert hazard_of(home.snapshot, "spot-a") == 0.0
    assert hazard_of(home.snapshot, "ghost") == 0.0
    home.cycle(after_ms=HOUR_MS)
    assert hazard_of(home.snapshot, "spot-a") > 0


def test_a_choice_holds_while_its_run_goes_on_or_its_workload_is_queued() -> None:
    home = a_home(dear(), cheap())
    home.up(a_job())
    home.settle()
    choice = home.state("train").choice
    assert choice is not None
    assert still_valid(home.snapshot, [choice]) == (choice,)
    home.stop("train")
    assert still_valid(home.snapshot, [choice]) == ()
    home.cycle(declared(a_job("spot", most=1)))
    home.end("train", code=75)
    home.settle()
    assert still_valid(home.snapshot, [choice]) == (choice,)


def test_a_notice_that_says_nothing_new_changes_nothing() -> None:
    home = a_home(dear(), cheap())
    notice = InterruptionNotice(node=NodeId("spot-a-0"), at_ms=home.now_ms, ends_ms=home.now_ms + 9_000)
    home.cycle(notice)
    noticed = home.snapshot.nodes["spot-a-0"]
    assert (noticed.health, noticed.goes_ms) == ("draining", notice.ends_ms)
    home.cycle(notice, replace(notice, node=NodeId("ghost")))
    assert home.snapshot.nodes["spot-a-0"] == noticed
    home.cycle(NodeHealth(node=NodeId("spot-a-0"), health="dead"), notice)
    assert home.snapshot.nodes["spot-a-0"].health == "dead"
    home.cycle(NodeHealth(node=NodeId("spot-a-0"), health="alive"))
    assert home.snapshot.nodes["spot-a-0"].goes_ms is None


def test_who_asked_for_no_second_try_gets_none() -> None:
    spec = a_job()
    home = a_home(dear(), cheap())
    home.up(replace(spec, body=replace(spec.body, retry=Retry(on_events=()))))
    home.settle()
    home.begin("train")
    home.cycle(NodeHealth(node=NodeId("spot-a-0"), health="dead"))
    home.settle()
    assert (home.phase("train"), home.code("train")) == (Phase.FAILED, Code.EVENT_NOT_RETRIED)


def test_a_program_that_fails_on_spot_is_a_failure() -> None:
    home = a_home(dear(), cheap())
    home.up(a_job())
    home.settle()
    home.begin("train")
    home.end("train", code=3)
    home.settle()
    assert (home.phase("train"), home.code("train")) == (Phase.FAILED, Code.EVENT_NOT_RETRIED)
