"""What always holds of the order of jobs, as checks of one made-up world each.

Theory: a world is a pool, jobs in all stages, and what was learned from made-up stints. Whoever gives the
chance (Hypothesis, or a seed in the planted bugs) gives the world. A broken law raises AssertionError.
"""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from steersman.decide import order
from steersman.model.durations import BUCKETS, NOTHING_LEARNED, Learned
from steersman.sim.replay import bounds_jobs
from steersman.sim.replay.bounds_jobs import Gang
from steersman.sim.replay.jobs_rounds import Cluster, Outcome, Steersman
from steersman.state import durations

RESTART_S = 60
CLASSES = (("all",), ("all", "small"), ("all", "large"), ("all", "large", "red"), ("all", "a", "b", "c", "d"))
QUEUES = ("", "night", "day")
STAGES: tuple[order.Stage, ...] = (order.NEW, order.PREEMPTED, order.RUNNING)


class World(NamedTuple):
    """One pool at one time. `chance` is for the law's own use."""

    jobs: tuple[order.Job, ...]
    capacity: int
    now_s: int
    learned: Learned
    ranks: dict[str, int]
    chance: random.Random


def world_of(chance: random.Random) -> World:
    """A world of up to a dozen jobs."""
    now_s = chance.choice((0, 5_000, 400_000, 5_000_000))
    jobs = tuple(
        order.Job(
            name=f"j{number:02d}",
            queue=chance.choice(QUEUES),
            classes=chance.choice(CLASSES),
            devices=chance.choice((1, 1, 2, 4, 8)),
            arrival_s=chance.randint(0, now_s),
            attained_s=chance.choice((0, 0, 63, 64, 3_000, 40_000, 10**10)),
            stage=chance.choice(STAGES),
        )
        for number in range(chance.randint(0, 12))
    )
    ranks = {"night": 1} if chance.randint(0, 1) else {}
    return World(jobs, chance.randint(0, 16), now_s, learned_of(chance), ranks, chance)


def stint_of(chance: random.Random) -> durations.Stint:
    """A stint of any length."""
    ran_s = chance.choice((0, 1, 64, 500, 10_000, 3_000_000))
    return durations.Stint(
        chance.choice(CLASSES), chance.choice((0, 60, 64, 7_000)), ran_s, bool(chance.randint(0, 1))
    )


def learned_of(chance: random.Random) -> Learned:
    """What up to forty stints told."""
    learned = NOTHING_LEARNED
    for _ in range(chance.choice((0, 3, 40))):
        learned = durations.fold(learned, stint_of(chance))
    return learned


def groups_of(jobs: tuple[order.Job, ...]) -> order.Groups:
    """The index, made from nothing."""
    groups: order.Groups = {}
    for job in jobs:
        order.add(groups, job)
    return groups


def chosen_in(world: World, jobs: tuple[order.Job, ...] | None = None) -> tuple[str, ...]:
    """Who runs."""
    groups = groups_of(world.jobs if jobs is None else jobs)
    indices = order.Indices(world.learned, RESTART_S)
    return order.choose(groups, world.capacity, world.now_s, indices, world.ranks)


def capacity_is_kept(world: World) -> None:
    """Whole gangs, each at most once, on no more devices than there are."""
    devices = {job.name: job.devices for job in world.jobs}
    chosen = chosen_in(world)
    assert len(set(chosen)) == len(chosen)
    assert sum(devices[name] for name in chosen) <= world.capacity


def nothing_idles_that_would_fit(world: World) -> None:
    """No job is left out that what is free could hold."""
    chosen = set(chosen_in(world))
    free = world.capacity - sum(job.devices for job in world.jobs if job.name in chosen)
    assert all(job.name in chosen or job.devices > free for job in world.jobs)


def order_is_total(world: World) -> None:
    """It does not matter in which order the jobs became known."""
    shuffled = list(world.jobs)
    world.chance.shuffle(shuffled)
    assert chosen_in(world) == chosen_in(world, tuple(shuffled))


def groups_order_as_jobs_would(world: World) -> None:
    """Choosing from groups is choosing from all jobs one by one, by queue, priority, arrival and name."""
    indices = order.Indices(world.learned, RESTART_S)

    def key(job: order.Job) -> tuple[int, int, int, str]:
        place = durations.bucket(job.attained_s)
        waited = (world.now_s - job.arrival_s) / (40 * max(durations.EDGES_S[place + 1], 600))
        priority = (
            indices.of(order.group_of(job))
            - round(1e6 * math.log(job.devices))
            + (round(1e6 * math.log(3)) if job.stage == order.RUNNING else 0)
            + (round(2e6 * math.log(waited)) if waited > 1 else 0)
        )
        return world.ranks.get(job.queue, 0), -priority, job.arrival_s, job.name

    free, expected = world.capacity, []
    for job in sorted(world.jobs, key=key):
        if job.devices <= free:
            expected.append(job.name)
            free -= job.devices
    assert chosen_in(world) == tuple(expected)


def index_equals_rebuild(world: World) -> None:
    """Jobs that come, move and go leave the index as it would be made from nothing."""
    groups = groups_of(world.jobs)
    left = list(world.jobs)
    world.chance.shuffle(left)
    for _ in range(len(left) // 2):
        job = left.pop()
        order.remove(groups, job)
        if world.chance.randint(0, 1):
            moved = job._replace(attained_s=job.attained_s + 900, stage=order.RUNNING)
            order.add(groups, moved)
            left.insert(0, moved)
    assert groups == groups_of(tuple(left))


def like_jobs_do_not_take_turns(world: World) -> None:
    """Of two jobs that are alike the one that runs goes on, although the other has waited longer."""
    for job in world.jobs[:3]:
        running = job._replace(name="runs", stage=order.RUNNING, arrival_s=world.now_s)
        preempted = job._replace(name="waits", stage=order.PREEMPTED, arrival_s=max(world.now_s - 9_000, 0))
        pool = world._replace(capacity=job.devices)
        assert chosen_in(pool, (running, preempted)) == ("runs",)


def first_come_first_served_among_alike(world: World) -> None:
    """A job that is alike in all and came later does not overtake."""
    for job in world.jobs[:3]:
        later = job._replace(name="a", arrival_s=job.arrival_s + 1)
        assert chosen_in(world._replace(capacity=job.devices), (later, job)) == (job.name,)


def queues_of_better_rank_come_first(world: World) -> None:
    """A job alone in its rank runs whenever the pool can hold it."""
    for job in world.jobs[:3]:
        others = tuple(each for each in world.jobs if each.name != job.name)
        first = world._replace(capacity=max(world.capacity, job.devices), ranks={"first": -1, **world.ranks})
        assert job.name in chosen_in(first, (*others, job._replace(queue="first")))


def stints_are_counted_whole(world: World) -> None:
    """A stint adds its exposure, in shares of buckets, and one end when it ended the job; nothing else."""
    stint = stint_of(world.chance)
    after = durations.fold(world.learned, stint)
    assert sum(after.ends) - sum(world.learned.ends) == stint.ended
    assert after.stints == world.learned.stints + 1
    begin_s, end_s = stint.attained_s, stint.attained_s + stint.ran_s
    shares = sum(
        max(min(end_s, high_s) - max(begin_s, low_s), 0) / (high_s - low_s)
        for low_s, high_s in zip(durations.EDGES_S, durations.EDGES_S[1:], strict=False)
    )
    exposed = sum(after.exposed_milli) - sum(world.learned.exposed_milli)
    assert abs(exposed - 1000 * shares) <= BUCKETS / 2


def stints_may_be_cut_anywhere(world: World) -> None:
    """A stint in two pieces teaches what it teaches whole, but for the rounding of the cut."""
    stint = stint_of(world.chance)
    cut_s = world.chance.randint(0, stint.ran_s)
    first = stint._replace(ran_s=cut_s, ended=False)
    second = stint._replace(attained_s=stint.attained_s + cut_s, ran_s=stint.ran_s - cut_s)
    whole = durations.fold(world.learned, stint)
    pieces = durations.fold(durations.fold(world.learned, first), second)
    assert pieces.classes == whole.classes
    assert pieces.ends == whole.ends or cut_s == stint.ran_s  # an end that stands on an edge may fall beyond
    gaps = [abs(a - b) for a, b in zip(pieces.exposed_milli, whole.exposed_milli, strict=True)]
    assert max(gaps) <= 1


def ends_raise_and_costs_lower(world: World) -> None:
    """One more end seen never lowers an index, one more exposure never raises it, a cost always lowers it."""
    place, scale = world.chance.randrange(BUCKETS), world.chance.randrange(BUCKETS)
    at = min(place + world.chance.randint(0, 2), BUCKETS - 1) - scale + BUCKETS
    ends, exposed = list(world.learned.ends), list(world.learned.exposed_milli)
    ends[at] += 1
    exposed[at] += 1000
    before = order.log_index(world.learned, place, scale, 0)
    assert order.log_index(world.learned._replace(ends=tuple(ends)), place, scale, 0) >= before - 1
    more = world.learned._replace(exposed_milli=tuple(exposed))
    assert order.log_index(more, place, scale, 0) <= before + 1
    assert order.log_index(world.learned, place, scale, durations.EDGES_S[-1]) < before


def ignorance_serves_the_least_attained(world: World) -> None:
    """With nothing learned the index only falls with what was attained, from the first edge on."""
    del world
    row = [order.log_index(NOTHING_LEARNED, place, 20, 0) for place in range(1, BUCKETS)]
    assert row == sorted(row, reverse=True)


def gangs_of(chance: random.Random) -> tuple[list[Gang], int]:
    """Up to twenty gangs by arrival, and a cluster that can hold each."""
    now_s, gangs = 0.0, []
    for _ in range(chance.randint(1, 20)):
        duration_s = chance.choice((1.0, 299.5, 300.0, 2_000.0)) * chance.choice((1, 3))
        gangs.append(Gang(now_s, chance.choice((1, 1, 2, 4)), duration_s, chance.choice(("", "red"))))
        now_s += chance.choice((0, 1, 250.5, 3_000, 50_000))
    return gangs, chance.randint(4, 8)


def outcome_of(gangs: list[Gang], capacity: int) -> Outcome:
    """The decider over these gangs."""
    return Cluster(gangs, capacity, Steersman()).run(lambda _ended: None)


def no_order_beats_the_bound(world: World) -> None:
    """Every job ends, none before its duration is over, and their mean is no less than the bound."""
    gangs, capacity = gangs_of(world.chance)
    outcome = outcome_of(gangs, capacity)
    taken_s = [end_s - gang.arrival_s for end_s, gang in zip(outcome.ends_s, gangs, strict=True)]
    assert all(taken >= gang.duration_s - 1e-3 for taken, gang in zip(taken_s, gangs, strict=True))
    assert sum(taken_s) / len(gangs) >= bounds_jobs.mean_jct_bound_s(gangs, capacity) - 1e-3
    assert outcome == outcome_of(gangs, capacity)


def a_large_gang_does_not_starve(world: World) -> None:
    """A gang that needs all of a busy cluster runs long before the stream of small jobs ends."""
    del world
    capacity, every_s, small_s = 4, 300.0, 1_150.0
    gangs = [Gang(every_s * number, 1, small_s, "small") for number in range(2_000)]
    gangs.insert(5, Gang(every_s * 4, capacity, 900.0, "large"))
    ended_s = outcome_of(gangs, capacity).ends_s[5]
    assert ended_s < every_s * 1_000


Law = Callable[[World], None]
LAWS: tuple[Law, ...] = (
    capacity_is_kept,
    nothing_idles_that_would_fit,
    order_is_total,
    groups_order_as_jobs_would,
    index_equals_rebuild,
    like_jobs_do_not_take_turns,
    first_come_first_served_among_alike,
    queues_of_better_rank_come_first,
    stints_are_counted_whole,
    stints_may_be_cut_anywhere,
    ends_raise_and_costs_lower,
    no_order_beats_the_bound,
)
FIXED_LAWS: tuple[Law, ...] = (ignorance_serves_the_least_attained, a_large_gang_does_not_starve)
