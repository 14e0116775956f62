"""What always holds where jobs take turns on accelerators, on random lives of a fleet in virtual time.

Theory: a life is a `World` whose jobs follow from a seed. The laws look at what was decided and keep accounts
of their own; where a law needs the worth of a job, it works it out of the job and of `order`, and not of the
index that the decider walks.
"""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace
from tests.properties import checkers
from tests.properties.counting import Turn, View
from tests.properties.fingerprint import plan_bytes
from tests.properties.queue_laws import history, queue
from tests.properties.turn_world import HOUR_MS, MINUTE_MS, SECOND_MS, STOP_MS, Task, World, task
from tests.scenarios.home import Cycle, Home

from steersman.decide import order
from steersman.decide.cycle import decide
from steersman.model.decisions import Reserve, Start, Stop
from steersman.model.events import Event
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase, Snapshot, WorkloadState
from steersman.sim.quotas import quotas_hold
from steersman.state import durations
from steersman.state.attained import attained_ms
from steersman.state.fold import fold

PERIOD_MS = 120_000
INDEX = Policy(order="gittins", order_period_ms=PERIOD_MS, preempt_run_ms_min=10_000, restart_ms_prior=20_000)
AGE = Policy(preempt_run_ms_min=10_000)
KINDS = (("sweep", 3 * MINUTE_MS), ("tune", 20 * MINUTE_MS), ("train", 9 * HOUR_MS))
NODES, GPUS = 2, 4


class Life(NamedTuple):
    """What happens follows from the seed."""

    seed: int
    jobs: int = 24


def tasks_of(chance: random.Random, jobs: int) -> list[Task]:
    """Jobs of three kinds, of which the names tell and the durations vary."""
    made, at_ms = [], 0
    for number in range(jobs):
        kind, typical_ms = chance.choice(KINDS)
        at_ms += round(chance.expovariate(1) * 4 * MINUTE_MS)
        gang = chance.choice((1, 1, 1, 2)) if chance.random() < 0.3 else 1
        made.append(
            task(
                f"{kind}-{number}",
                at_ms,
                max(round(typical_ms * chance.lognormvariate(0, 0.6)), SECOND_MS),
                gpus=chance.choice((0, 1, 1, 1, 2, 4)),
                ranks=gang,
                priority=chance.choice((0, 0, 0, 0, 5)),
                queue=chance.choice(("", "", "ash", "birch")),
                resumes=chance.random() < 0.8,
            )
        )
    return made


def opening_of(chance: random.Random) -> list[Event]:
    """In one life of two there are quotas: of one queue without lenders, or of two that lend one another."""
    if chance.random() < 0.5:
        return []
    cohort = chance.choice(("", "wood"))
    return [queue("ash", gpus=chance.choice((2, 4)), cohort=cohort), queue("birch", gpus=4, cohort=cohort)]


def world_of(life: Life, policy: Policy = INDEX) -> World:
    """The world before anything happens in it."""
    chance = random.Random(life.seed)
    tasks = tasks_of(chance, life.jobs)
    return World(tasks, policy, *opening_of(chance), nodes=NODES, gpus=GPUS)


def lived(life: Life, policy: Policy = INDEX) -> World:
    """The world after three days: who asks for more than a quota allows still waits."""
    return world_of(life, policy).live(72 * HOUR_MS)


def outranked(cycle: Cycle) -> list[Stop]:
    """Who is told to end in a cycle for the order's sake."""
    stops = (item for item in cycle.plan.decisions if isinstance(item, Stop))
    return [item for item in stops if item.reason.code is Code.OUT_RANKED]


def _winner(cycle: Cycle, stop: Stop) -> WorkloadState:
    return cycle.seen.workloads[str(dict(stop.reason.facts)["by"])]


def worth(snapshot: Snapshot, state: WorkloadState) -> int:
    """Micro-nats of a job's index, of what runs counted three times, with what age adds."""
    spec = state.spec
    run = None if state.run is None else snapshot.runs[state.run]
    attained_s = attained_ms(state, run, snapshot.now_ms) // 1000
    stage = order.RUNNING if run else order.PREEMPTED if state.attained_ms else order.NEW
    job = order.Job(spec.name, "", durations.classes_of(spec), 1000 * _devices(state), 0, attained_s, stage)
    indices = order.Indices(snapshot.durations.used, snapshot.policy.restart_ms_prior // 1000)
    place = durations.bucket(attained_s)
    bonus = order.age_bonus(snapshot.now_ms // 1000, state.declared_ms // 1000, place)
    return order.base_priority(order.group_of(job), indices) + bonus


# ---- the laws -------------------------------------------------------------------------------------------


def everybody_is_done(world: World) -> None:
    """Nobody starves: whoever the quotas and the fleet let run at all has ended."""
    left = [
        state
        for _, state in world.home.snapshot.workloads.sorted_items()
        if state.phase is not Phase.SUCCEEDED
    ]
    never = [state for state in left if _asks_too_much(state)]
    for state in left:  # only the first of a shape is told why it waits
        assert any(_asks_alike(state, other) for other in never), (state.spec.name, state.reason)


def _asks_too_much(state: WorkloadState) -> bool:
    if state.reason is None:
        return False
    facts = dict(state.reason.facts)
    too_much = state.reason.code is Code.OVER_QUOTA and int(facts["asked"]) > int(facts["most"])
    return too_much or state.reason.code is Code.REFUSED_TOO_LARGE


def priority_is_never_inverted(world: World) -> None:
    """Who yields its turn yields to its own priority and, where queues are declared, to its own queue."""
    for cycle in world.home.cycles:
        for stop in outranked(cycle):
            loser, winner = cycle.seen.workloads[stop.workload], _winner(cycle, stop)
            assert loser.spec.priority == winner.spec.priority, stop
            declared = {name for name in (loser.spec.queue, winner.spec.queue) if name in cycle.seen.queues}
            assert len(declared) <= (loser.spec.queue == winner.spec.queue), stop
            assert not _more_urgent(cycle, winner), stop


def _more_urgent(cycle: Cycle, winner: WorkloadState) -> list[str]:
    """Who waits on, of the same queue and a higher priority, and asks for no more."""
    return [
        name
        for name, state in cycle.after.workloads.sorted_items()
        if state.phase is Phase.QUEUED
        and not state.reservations
        and state.spec.priority > winner.spec.priority
        and state.spec.queue == winner.spec.queue
        and 0 < _devices(state) <= _devices(winner)
    ]


def _devices(state: WorkloadState) -> int:
    return sum(count for _, count in state.spec.resources.accelerators) * state.spec.body.num_nodes


def who_yields_is_outranked(world: World) -> None:
    """What runs is worth less than who it yields to, though its own worth counts three times."""
    for cycle in world.home.cycles:
        for stop in outranked(cycle):
            loser, winner = cycle.seen.workloads[stop.workload], _winner(cycle, stop)
            assert worth(cycle.seen, loser) < worth(cycle.seen, winner), stop


def best_goes_first_among_alike(world: World) -> None:
    """Of those that ask for the same in the same queue nobody starts before one of a higher priority, or of
    the same and worth more; who started on what was kept for it had its turn before."""
    for cycle in world.home.cycles:
        started = {item.workload for item in cycle.plan.decisions if isinstance(item, Start)}
        seen = cycle.seen.workloads
        waits = [
            state
            for name, state in cycle.after.workloads.sorted_items()
            if state.phase is Phase.QUEUED and name in seen and seen[name].phase is Phase.QUEUED
        ]
        for name in sorted(started):
            first = seen[name]
            if first.phase is not Phase.QUEUED or first.reservations or not first.spec.resources.accelerators:
                continue
            for other in waits:
                if _asks_alike(first, other):
                    mine, others = (
                        (state.spec.priority, worth(cycle.seen, state)) for state in (first, other)
                    )
                    assert mine >= others, (name, other.spec.name)


def _asks_alike(one: WorkloadState, other: WorkloadState) -> bool:
    mine, others = one.spec, other.spec
    return (mine.resources, mine.body.num_nodes, mine.queue) == (
        others.resources,
        others.body.num_nodes,
        others.queue,
    )


def turns_are_a_period_apart(world: World) -> None:
    """Whoever yields its turn does so at one time, and not again before a period is over."""
    times = sorted({cycle.seen.now_ms for cycle in world.home.cycles if outranked(cycle)})
    assert all(later - sooner >= PERIOD_MS for sooner, later in pairwise(times)), times


def no_work_is_lost(world: World) -> None:
    """Who yields its turn can resume, has run for the least time, and is given its grace."""
    for cycle in world.home.cycles:
        for stop in outranked(cycle):
            run, body = cycle.seen.runs[stop.run], cycle.seen.workloads[stop.workload].spec.body
            assert body.checkpoint.enabled, stop
            assert stop.grace_ms == body.stop_grace_ms, stop
            begun_ms = run.decided_ms if run.started_ms is None else run.started_ms
            assert cycle.seen.now_ms - begun_ms >= cycle.seen.policy.preempt_run_ms_min, stop


def who_is_yielded_to_starts(world: World) -> None:
    """Who others yielded to starts as soon as they are gone, on what was kept for it."""
    due: dict[str, int] = {}
    for cycle in world.home.cycles:
        now_ms = cycle.seen.now_ms
        for item in cycle.plan.decisions:
            if isinstance(item, Start):
                due.pop(item.workload, None)
        late = [name for name, at_ms in due.items() if at_ms < now_ms]
        assert not late, f"{late} were yielded to and have not started"
        for stop in outranked(cycle):
            winner = _winner(cycle, stop).spec.name
            kept = [item for item in cycle.plan.decisions if isinstance(item, Reserve) and item.reservations]
            assert winner in {item.workload for item in kept}, stop
            due[winner] = now_ms + STOP_MS


def plans_follow_from_the_state_alone(world: World) -> None:
    """Without anything remembered, and from the events alone, the plans are the same to the byte."""
    state, at = Snapshot(), 0
    log = world.home.log
    for cycle in world.home.cycles[:: max(len(world.home.cycles) // 40, 1)]:
        until = cycle.seen.position
        state = fold(state, [(record.position, record.event) for record in log[at:until]])
        at = until
        assert plan_bytes(decide(state)) == plan_bytes(cycle.plan)
        assert plan_bytes(decide(checkers.reordered(cycle.seen))) == plan_bytes(cycle.plan)


def quotas_are_never_exceeded(world: World) -> None:
    """At every start, by accounts that share nothing with the decider's."""
    assert quotas_hold(history(world.home)) == []


def nobody_yields_twice_for_one_need(world: World) -> None:
    """While room is kept for a job nobody else is asked to yield for it."""
    checkers.nobody_yields_twice_for_one_need(world.home)


def books_are_kept(world: World) -> None:
    """Leases, reservations, gangs and indexes: what always holds of a home holds here."""
    before = View(Snapshot())
    for cycle in world.home.cycles[:: max(len(world.home.cycles) // 40, 1)]:
        turn = Turn(cycle, before)
        for law in checkers.SNAPSHOT_LAWS:
            law(turn.seen)
            law(turn.after)
        checkers.nothing_is_over_committed(turn)
        checkers.gangs_start_whole(turn)
        before = turn.after


Law = Callable[[World], None]
LAWS: tuple[Law, ...] = (
    everybody_is_done,
    priority_is_never_inverted,
    who_yields_is_outranked,
    best_goes_first_among_alike,
    turns_are_a_period_apart,
    no_work_is_lost,
    who_is_yielded_to_starts,
    plans_follow_from_the_state_alone,
    quotas_are_never_exceeded,
    nobody_yields_twice_for_one_need,
    books_are_kept,
)


def age_is_left_as_it_was(life: Life) -> None:
    """By age nobody takes turns, and neither what was learned nor any of the order's numbers moves a plan."""
    plain = [plan_bytes(cycle.plan) for cycle in lived(life, AGE).home.cycles]
    other = Policy(preempt_run_ms_min=10_000, order_period_ms=1, restart_ms_prior=7)
    world = lived(life, other)
    assert [plan_bytes(cycle.plan) for cycle in world.home.cycles] == plain
    for cycle in world.home.cycles:
        assert not outranked(cycle)
        forgetful = _without_durations(cycle.seen)
        assert plan_bytes(decide(forgetful)) == plan_bytes(cycle.plan)
        assert [item.workload for item in _starts(cycle)] == sorted(
            (item.workload for item in _starts(cycle)), key=lambda name: _by_age(cycle, name)
        ) or cycle.seen.queues


def _without_durations(snapshot: Snapshot) -> Snapshot:
    return type(snapshot)(
        **{name: getattr(snapshot, name) for name in snapshot.__struct_fields__ if name != "durations"}
    )


def _starts(cycle: Cycle) -> Iterator[Start]:
    return (item for item in cycle.plan.decisions if isinstance(item, Start))


def _by_age(cycle: Cycle, name: str) -> tuple[int, int]:
    state = cycle.after.workloads[name]
    return -state.spec.priority, state.declared_at


def who_was_out_ranked_comes_back() -> None:
    """A job that was out-ranked after an hour gets another turn, though short ones come without end that need
    all there is: once it has waited so much longer than what it attained."""
    every_ms = 25 * MINUTE_MS
    stream = [task(f"short-{number}", HOUR_MS + number * every_ms, every_ms) for number in range(240)]
    policy = replace(INDEX, order_period_ms=10 * MINUTE_MS)
    long = task("long", 0, 8 * HOUR_MS)
    home = World([*stream, long], policy, nodes=1, gpus=1).live(100 * HOUR_MS).home
    assert home.state("long").preemptions >= 1, "it was out-ranked"
    assert home.state("long").runs >= 2, "it starves"


def stories_of_home(home: Home) -> None:
    """Every law of any home but those of who yields, in a home that orders by index."""
    before = View(Snapshot())
    for cycle in home.cycles:
        turn = Turn(cycle, before)
        for law in checkers.SNAPSHOT_LAWS:
            law(turn.seen)
            law(turn.after)
        for cycle_law in checkers.CYCLE_LAWS:
            if cycle_law not in (checkers.only_the_right_runs_yield, checkers.the_cheapest_yield):
                cycle_law(turn)
        before = turn.after
    for home_law in checkers.HOME_LAWS:
        home_law(home)
