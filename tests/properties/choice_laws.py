"""Homes in which jobs choose what they run on, and the laws of their choices.

Theory: as in `strategies`, a story is a seed and a length; here the fleet has spot pools that lose and regain
nodes, notices, prices that come and go, and jobs of every spot policy. Every cycle is looked at.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hypothesis import strategies as st
from msgspec.structs import replace
from tests.properties.checkers import SNAPSHOT_LAWS, only_the_dead_are_judged
from tests.properties.counting import Turn, View
from tests.properties.fingerprint import plan_bytes
from tests.scenarios.home import Cycle, Home, declared, fleet, job, node

from steersman.decide import cycle as cycles
from steersman.decide.cycle import Memo
from steersman.model.decisions import Choose, Requeue, Start, Stop
from steersman.model.events import (
    CheckpointSaved,
    Event,
    InterruptionNotice,
    NodeHealth,
    PriceObserved,
    RankExited,
    RankStarted,
    RemoveRequested,
    StopRequested,
)
from steersman.model.fleet import Node
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.model.workload import CheckpointPolicy, Workload

NAMES = ("a", "b", "c", "d")
SPOT = ("spot-a", "spot-b")
HOUR_MS = 3_600_000
PRICES = (None, 500_000, 973_100, 3_060_000, 700_000_000)
AFTER_MS = (0, 1_000, 60_000, 600_000, 3_600_000)
CYCLES_MAX = 40


class Story(NamedTuple):
    """A home, and for how many cycles."""

    seed: int
    length: int


def stories() -> st.SearchStrategy[Story]:
    """Any."""
    return st.builds(Story, st.integers(0, 1 << 32), st.integers(1, CYCLES_MAX))


def a_node(name: str, pool: str, price: int | None) -> Node:
    """A machine of a pool; spot when the pool is called so."""
    market = "spot" if pool in SPOT else "on-demand"
    return replace(node(name, cores=2), pool=pool, zone=pool, market=market, price_usd_micro_per_hour=price)


def a_fleet(rng: random.Random) -> Event:
    """One or two machines of each pool; sometimes one kind is not there at all."""
    price = rng.choice((3_060_000, 3_060_000, 3_060_000, None))
    nodes = [a_node(f"dear-{at}", rng.choice(("dear", "")), price) for at in range(rng.choice((0, 2, 2, 3)))]
    for pool in SPOT[: rng.choice((0, 1, 2, 2, 2))]:
        cost = rng.choice((500_000, 973_100, None, 3_060_000))
        nodes += [a_node(f"{pool}-{at}", pool, cost) for at in range(rng.choice((1, 2)))]
    return fleet(*(nodes or [a_node("dear-0", "", None)]))


def a_job(rng: random.Random) -> Workload:
    """Small, mostly able to resume, of any policy."""
    checkpoint = rng.choice((CheckpointPolicy(), *(CheckpointPolicy(enabled=True),) * 3))
    spec = job(
        rng.choice(NAMES), cores=rng.choice((1, 1, 2, 40)), checkpoint=checkpoint, priority=rng.choice((0, 5))
    )
    deadline_h = rng.choice((None, 1, 2, 5, 10))
    body = replace(
        spec.body,
        spot_policy=rng.choice(("auto", "auto", "auto", "spot", "on-demand")),
        deadline_ms=None if deadline_h is None else deadline_h * HOUR_MS,
        work_ms=rng.choice((HOUR_MS, 2 * HOUR_MS)),
        price_usd_micro_per_hour_max=rng.choice((None, None, 1_000_000)),
    )
    return replace(spec, body=body)


def _live(home: Home) -> list[Run]:
    return [home.snapshot.runs[entry[0]] for entry in home.snapshot.indexes.live]


def _nodes(home: Home) -> list[NodeId]:
    return [NodeId(key) for key, _ in home.snapshot.nodes.sorted_items()]


def _of_a_run(rng: random.Random, home: Home) -> list[Event]:
    live = _live(home)
    if not live:
        return []
    run = rng.choice(live)
    match rng.choice(("started", "saved", "saved", "exited", "told")):
        case "started":
            return [RankStarted(run=run.id, rank=0, pid=1, at_ms=home.now_ms)]
        case "saved":
            step = (run.saved_step or 0) + rng.randrange(50)
            return [
                CheckpointSaved(
                    run=run.id, step=step, at_ms=home.now_ms, save_ms=rng.choice((10, 9_000)), digest="d"
                )
            ]
        case "exited":
            code, cause = rng.choice(((0, "exited"), (1, "exited"), (None, "lost"), (None, "start-failed")))
            return [RankExited(run=run.id, rank=0, at_ms=home.now_ms, exit_code=code, cause=cause)]  # type: ignore[arg-type]  # one of the three
        case _:
            return [
                RankExited(run=one.id, rank=0, at_ms=home.now_ms, exit_code=75, stop_delivered=True)
                for one in live
                if one.state is RunState.STOPPING
            ]


def _up(rng: random.Random, home: Home) -> list[Event]:
    return [declared(a_job(rng))]


def _edit(rng: random.Random, home: Home) -> list[Event]:
    spec = a_job(rng)
    old = home.snapshot.workloads.get(spec.name)
    if old is None:
        return [declared(spec)]
    body = replace(old.spec.body, spot_policy=spec.body.spot_policy)
    return [declared(replace(old.spec, body=body), restarts=False)]


def _health(rng: random.Random, home: Home) -> list[Event]:
    return [
        NodeHealth(node=rng.choice(_nodes(home)), health=rng.choice(("alive", "alive", "dead", "unknown")))
    ]


def _notice(rng: random.Random, home: Home) -> list[Event]:
    name, left_ms = rng.choice((*_nodes(home), NodeId("ghost"))), rng.choice((0, 30_000, 120_000))
    return [InterruptionNotice(node=name, at_ms=home.now_ms, ends_ms=home.now_ms + left_ms)]


def _price(rng: random.Random, home: Home) -> list[Event]:
    pool, price = rng.choice((*SPOT, "dear", "ghost")), rng.choice(PRICES)
    return [PriceObserved(pool=pool, at_ms=home.now_ms, price_usd_micro_per_hour=price)]


def _fleet(rng: random.Random, home: Home) -> list[Event]:
    return [a_fleet(rng)]


def _stop(rng: random.Random, home: Home) -> list[Event]:
    return [StopRequested(workload=WorkloadName(rng.choice(NAMES)))]


def _down(rng: random.Random, home: Home) -> list[Event]:
    return [RemoveRequested(workload=WorkloadName(rng.choice(NAMES)))]


_STEPS = (*(_of_a_run,) * 12, *(_up, _edit, _notice, _price, _stop, _down) * 3, *(_health,) * 6, _fleet)


def play(story: Story) -> Home:
    """The whole life of one home."""
    rng = random.Random(story.seed)
    home = Home(a_fleet(rng))
    home.cycle(*(declared(a_job(rng)) for _ in range(3)))
    for _ in range(story.length):
        home.cycle(*rng.choice(_STEPS)(rng, home), after_ms=rng.choice(AFTER_MS))
        if rng.random() < 0.5:
            home.settle()
    return home


def _after(cycle: Cycle, ordinal: int) -> Snapshot:
    """What a decision was taken on: the state with the earlier ones of its plan."""
    return cycles._with(cycle.seen, cycle.plan.decisions[:ordinal], 0)


def the_books_are_right(cycle: Cycle) -> None:
    """Leases, reservations, indexes: every law of any state, and no double lease while jobs move."""
    for law in SNAPSHOT_LAWS:
        law(View(cycle.after))


def spot_takes_only_who_chose_it(cycle: Cycle) -> None:
    """A start on a spot node names the pool of its choice; on another it chose that."""
    for ordinal, one in enumerate(cycle.plan.decisions):
        if isinstance(one, Start):
            before = _after(cycle, ordinal)
            choice = before.workloads[one.workload].choice
            for placement in one.placements:
                at = before.nodes[placement.node].node
                if at.market == "spot":
                    assert choice is not None
                    assert (choice.capacity, choice.pools) == ("spot", (at.pool,))
                else:
                    assert choice is None or choice.capacity == "on-demand"


def nothing_is_placed_where_a_notice_was_given(cycle: Cycle) -> None:
    """Not on a node that is about to go, nor on one that is not alive."""
    for one in cycle.plan.decisions:
        for placement in one.placements if isinstance(one, Start) else ():
            assert cycle.seen.nodes[placement.node].health == "alive"


def who_was_noticed_is_told_to_save_in_time(cycle: Cycle) -> None:
    """In the very cycle, with no more grace than there is; unless it ends for another reason."""
    stops = {one.run: one for one in cycle.plan.decisions if isinstance(one, Stop)}
    for (run_id,) in cycle.seen.indexes.live:
        run = cycle.seen.runs[run_id]
        if run.goes_ms is None or run.state is RunState.STOPPING:
            continue
        assert run.id in stops, run.id
        stop = stops[run.id]
        if stop.cause == "interrupted":
            assert stop.grace_ms <= max(run.goes_ms - cycle.seen.now_ms, 0)


def a_move_is_no_try(cycle: Cycle) -> None:
    """What was told to move or to leave its node, and did, is queued again at once, uncounted."""
    for one in cycle.plan.decisions:
        if isinstance(one, Requeue):
            state = cycle.seen.workloads[one.workload]
            run = cycle.seen.runs[state.run] if state.run is not None else None
            assert run is not None
            obeyed = all(rank.end is not None and rank.end.exit_code == 75 for rank in run.ranks)
            if run.stop in ("moved", "interrupted") and obeyed:
                assert not one.counted
                assert one.not_before_ms <= cycle.seen.now_ms


def only_what_is_there_and_has_a_price_is_chosen(cycle: Cycle) -> None:
    """A spot pool that is chosen is up; `auto` takes it at a price below on-demand alone."""
    for one in cycle.plan.decisions:
        if not isinstance(one, Choose) or one.capacity != "spot":
            continue
        pools = {pool.name: pool for pool in cycle.seen.pools}
        chosen = pools[one.pools[0]]
        assert chosen.up > 0, one
        body = cycle.seen.workloads[one.workload].spec.body
        price, most = chosen.price_usd_micro_per_hour, body.price_usd_micro_per_hour_max
        dear = [
            pool.price_usd_micro_per_hour
            for pool in cycle.seen.pools
            if pool.market != "spot" and pool.price_usd_micro_per_hour is not None
        ]
        if body.spot_policy == "auto" and dear:
            assert price is not None
            assert price < max(dear)
        if most is not None and price is not None:
            assert price <= most


def who_runs_on_spot_is_judged_again(cycle: Cycle) -> None:
    """Every live run on spot that is not on its way out has a time at which it is judged, within a period."""
    for (run_id,) in cycle.after.indexes.live:
        run = cycle.after.runs[run_id]
        state = cycle.after.workloads[run.workload]
        if run.market == "spot" and run.state is not RunState.STOPPING and not state.choose_due:
            choice = state.choice
            assert choice is not None
            assert choice.until_ms is not None
            assert choice.until_ms <= cycle.after.now_ms + cycle.after.policy.spot_period_ms


LAWS: Mapping[str, Callable[[Cycle], None]] = {
    law.__name__: law
    for law in (
        the_books_are_right,
        spot_takes_only_who_chose_it,
        nothing_is_placed_where_a_notice_was_given,
        who_was_noticed_is_told_to_save_in_time,
        a_move_is_no_try,
        only_what_is_there_and_has_a_price_is_chosen,
        who_runs_on_spot_is_judged_again,
    )
}


def check(home: Home) -> None:
    """All laws of all cycles."""
    for cycle in home.cycles:
        for law in LAWS.values():
            law(cycle)
        only_the_dead_are_judged(_turn(cycle))


def _turn(cycle: Cycle) -> Turn:
    return Turn(cycle, View(cycle.before))


def broken(home: Home) -> Iterator[str]:
    """Names of the laws that a life breaks."""
    for name, law in LAWS.items():
        for cycle in home.cycles:
            try:
                law(cycle)
            except AssertionError:
                yield name
                break


def with_memo(home: Home) -> Iterator[tuple[bytes, bytes]]:
    """Every plan as bytes, decided anew without a memo and with one that was kept all along."""
    memo = Memo()
    for cycle in home.cycles:
        yield plan_bytes(cycles.decide(cycle.seen)), plan_bytes(cycles.decide(cycle.seen, memo))
