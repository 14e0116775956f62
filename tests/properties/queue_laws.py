"""Random lives of a home with queues, for the laws of quotas."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node

from steersman.model.events import Event, PolicySet, QueueDeclared, QueueRemoved
from steersman.model.ids import QueueName
from steersman.model.policy import Policy
from steersman.model.queue import Budget, Queue, Quota, Reclaim, Within
from steersman.model.snapshot import Phase, RunState
from steersman.model.workload import Workload
from steersman.sim.quotas import quotas_hold
from steersman.state.derive import rebuild

QUEUES = ("ash", "birch", "cedar")
GPU_MILLI = 1_000


class Life(NamedTuple):
    """What happens follows from the seed."""

    seed: int
    steps: int


def queue(
    name: str,
    *,
    cores: int | None = None,
    gpus: int | None = None,
    cohort: str = "wood",
    borrow: int | None = None,
    lend: int | None = None,
    weight: int = 1000,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    reclaim: Reclaim = "any",
    within: Within = "lower-priority",
) -> QueueDeclared:
    """A queue with a quota of cores, of devices, or of both; limits in the same units."""
    quotas = [
        Quota(
            resource=resource,
            nominal=amount * 1_000,
            borrowing_limit=None if borrow is None else borrow * 1_000,
            lending_limit=None if lend is None else lend * 1_000,
        )
        for resource, amount in (("cpus", cores), ("A100", gpus))
        if amount is not None
    ]
    spec = Queue(
        name=QueueName(name),
        cohort=cohort,
        quotas=tuple(quotas),
        weight_milli=weight,
        budget=budget,
        reclaim=reclaim,
        within=within,
    )
    return QueueDeclared(queue=spec)


def put_in(name: str, spec: Workload) -> Workload:
    """The workload, in that queue."""
    return replace(spec, queue=QueueName(name))


def _some_queue(chance: random.Random, name: str) -> Event:
    if chance.random() < 0.1:
        return QueueRemoved(queue=QueueName(name))
    limit = (None, None, 0, 1, 2)
    return queue(
        name,
        cores=chance.randrange(5),
        gpus=chance.choice((None, 0, 1, 2)),
        cohort=chance.choice(("wood", "wood", "wood", "")),
        borrow=chance.choice(limit),
        lend=chance.choice(limit),
        weight=chance.choice((500, 1000, 3000)),
        reclaim=chance.choice(("any", "lower-priority", "never")),
        within=chance.choice(("lower-priority", "never")),
    )


def _some_job(chance: random.Random, number: int) -> Workload:
    made = job(
        f"job-{number}",
        cores=chance.randrange(1, 3),
        gpus=chance.choice(((), (), (("A100", 1),))),
        ranks=chance.choice((1, 1, 2)),
        priority=chance.choice((0, 0, 10)),
    )
    if chance.random() < 0.7:
        made = replace(made, body=replace(made.body, checkpoint=RESUMABLE))
    return put_in(chance.choice((*QUEUES, "wild")), made)


def lived(life: Life) -> Home:
    """A home whose queues, jobs and ends follow from the seed."""
    chance = random.Random(life.seed)
    nodes = [node(name, cores=4, gib=64, devices=("A100",) * 2) for name in ("one", "two")]
    home = Home(fleet(*nodes), PolicySet(policy=Policy(preempt_run_ms_min=1_000, fair_half_life_ms=10_000)))
    home.cycle(*(_some_queue(chance, name) for name in QUEUES))
    for number in range(life.steps):
        events: list[Event] = []
        if chance.random() < 0.1:
            events.append(_some_queue(chance, chance.choice(QUEUES)))
        if chance.random() < 0.7:
            events.append(declared(_some_job(chance, number)))
        home.cycle(*events, after_ms=chance.choice((0, 500, 3_000)))
        for name, state in home.snapshot.workloads.sorted_items():
            if state.phase is Phase.ACTIVE and state.run is not None:
                run = home.snapshot.runs[state.run]
                if run.state is RunState.STARTING:
                    home.begin(name)
                elif run.state is RunState.STOPPING or (
                    run.state is RunState.RUNNING and chance.random() < 0.2
                ):
                    home.end(name, after_ms=chance.choice((0, 200)))
    return home


def history(home: Home) -> Sequence[tuple[int, Event]]:
    """The journal of a home."""
    return [(record.position, record.event) for record in home.log]


def quotas_are_never_exceeded(home: Home) -> None:
    """At every start, by accounts that share nothing with the decider's."""
    assert quotas_hold(history(home)) == []


def usage_equals_its_rebuild(home: Home) -> None:
    """What queues hold is what their live ranks hold."""
    for cycle in home.cycles:
        for snapshot in (cycle.seen, cycle.after):
            fresh = rebuild(snapshot)
            assert (snapshot.indexes.usage, snapshot.indexes.leaving) == (fresh.usage, fresh.leaving)


def borrowers_alone_yield_beyond_their_queue(home: Home) -> None:
    """Who is preempted for another declared queue's sake had borrowed, or had no quota."""
    for cycle in home.cycles:
        for decision in cycle.plan.decisions:
            facts = dict(decision.reason.facts)
            if "by_queue" in facts and str(facts["by_queue"]) in cycle.seen.queues:
                loser = cycle.seen.runs[cycle.seen.workloads[decision.workload].run or ""].queue
                if loser in cycle.seen.queues:
                    held = dict(cycle.seen.indexes.usage[loser])
                    assert any(
                        held.get(quota.resource, 0) > quota.nominal
                        for quota in cycle.seen.queues[loser].spec.quotas
                    ), (decision, held)


LAWS = (quotas_are_never_exceeded, usage_equals_its_rebuild, borrowers_alone_yield_beyond_their_queue)
