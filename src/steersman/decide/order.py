"""Which gangs run now, when nobody knows how long they take: the order of jobs of unknown duration.

Theory of operation. A job is worth serving by its Gittins index: over all times at which one could stop and
think again, the best ratio of the chance that it ends to the service that this costs (Gittins 1979; optimal
for the mean flow time of M/G/1: Aalto, Ayesta, Righter 2009; Scully, Harchol-Balter 2018). Divided by the
size of the gang it is the index of a device-second (Tiresias, NSDI'19). The law of total service is not
given; it is learned from what ran (`state.durations`):

* There is one histogram of ends and exposure. The hazard is shrunk to a prior without scale (Pareto: the same
  in every log bucket). With no data at all the index falls with attained service from the first edge on (the
  bucket below is wider than its neighbours, and all of it is less than a restart): the order begins as
  least-attained-service.
* The index is constant in a bucket, so jobs stand in groups of like jobs, first come first served within. A
  cycle orders groups, not jobs: O(groups log groups + jobs started).
* A running job is preempted only by one `HYSTERESIS` times better; a preempted one has its restart in its
  cost; a job that has waited more than `AGE` times what it attained rises with the square of that ratio, so
  that nothing starves. A gang that does not fit is passed over whole.

The caller's rank of a queue (its fair share) comes first. Log-indices are whole micro-nats, and the last keys
are arrival and name: a total order. One call is for one pool of like devices; whether a gang also fits the
single nodes is not asked here. Two callers decide by it: the live cycle (`lineup` and `rotate`) and the
rounds of `steer replay jobs`. On what the constants were chosen, and what changing them does, is told in
docs/guides/replay.md.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Literal, NamedTuple

from steersman.model.durations import BUCKETS, NOTHING_LEARNED, Learned
from steersman.state.durations import EDGES_S, bucket, scale_bucket

PRIOR_HAZARD = 0.24
"""Ends a bucket of the prior: a Pareto tail of 0.7 (below 1: heavy) times the width of a bucket."""
PRIOR_ENDS = 4
"""Weight of the prior in each bucket, in ends."""
HYSTERESIS_MICRO = round(1e6 * math.log(3))
"""Micro-nats: a running job's index counts three times, so that jobs that are alike do not take turns."""
AGE = 40
"""Waits beyond this many times what was attained raise the index: twice the slowdown that may be seen."""
AGE_FLOOR_S = 600
"""A wait is held against at least this much service: a short job may wait for minutes, not for seconds."""
ALIVE_MIN = 1e-6
"""A job that lives on with less than this chance adds nothing to an index."""

Stage = Literal[0, 1, 2]
NEW: Literal[0] = 0
PREEMPTED: Literal[1] = 1
RUNNING: Literal[2] = 2


class Job(NamedTuple):
    """A gang: all of its devices or none. `classes` from coarse to fine; `attained_s` is per device."""

    name: str
    queue: str
    classes: tuple[str, ...]
    devices: int
    arrival_s: int
    attained_s: int
    stage: Stage


class Group(NamedTuple):
    """What jobs have in common that are ordered by arrival alone."""

    queue: str
    classes: tuple[str, ...]
    devices: int
    bucket: int
    stage: Stage


Groups = dict[Group, list[tuple[int, str]]]
"""Per group the arrivals and names of its jobs, sorted: the caller's index, kept with `add` and `remove`."""


def log_index(learned: Learned, place: int, scale: int, cost_s: int) -> int:
    """Micro-nats of the Gittins index of a job on one device that stands at the left edge of bucket `place`.

    `scale` is its scale bucket; `cost_s` is paid before any service. The index is in ends a second.
    """
    alive, time_s, best = 1.0, float(cost_s), 0.0
    for later in range(place, BUCKETS):
        at = later - scale + BUCKETS
        exposure = learned.exposed_milli[at] / 1000 + PRIOR_ENDS / PRIOR_HAZARD
        hazard = (learned.ends[at] + PRIOR_ENDS) / exposure
        stay = math.exp(-hazard)
        time_s += alive * (1 - stay) / hazard * (EDGES_S[later + 1] - EDGES_S[later])
        alive *= stay
        best = max(best, (1 - alive) / time_s)
        if alive < ALIVE_MIN:
            break
    return round(1e6 * math.log(best))


class Indices:
    """The log-indices of one version of what was learned, each worked out when it is first asked for.

    What it answers depends on `learned` and `restart_s` alone, never on what was asked before.
    """

    __slots__ = ("_rows", "_scales", "learned", "restart_s")

    def __init__(self, learned: Learned, restart_s: int) -> None:
        self.learned = learned
        self.restart_s = restart_s
        self._scales: dict[tuple[str, ...], int] = {}
        self._rows: dict[tuple[int, bool], tuple[int, ...]] = {}

    def of(self, group: Group) -> int:
        """Micro-nats of the index of the group's jobs, as if on one device."""
        scale = self._scales.get(group.classes)
        if scale is None:
            scale = self._scales[group.classes] = scale_bucket(self.learned, group.classes)
        key = (scale, group.stage == PREEMPTED)
        row = self._rows.get(key)
        if row is None:
            cost_s = self.restart_s if group.stage == PREEMPTED else 0
            row = tuple(log_index(self.learned, place, scale, cost_s) for place in range(BUCKETS))
            self._rows[key] = row
        return row[group.bucket]


class Memo:
    """The indices that were used last. What they are follows from what they are asked for alone."""

    def __init__(self) -> None:
        self._indices = Indices(NOTHING_LEARNED, 0)

    def indices(self, learned: Learned, restart_s: int) -> Indices:
        """The indices of a version of what was learned, with what was worked out of that very version."""
        if self._indices.learned is not learned or self._indices.restart_s != restart_s:
            self._indices = Indices(learned, restart_s)
        return self._indices


def group_of(job: Job) -> Group:
    """Where a job stands in the index."""
    return Group(job.queue, job.classes, job.devices, bucket(job.attained_s), job.stage)


def add(groups: Groups, job: Job) -> None:
    """Put a job into the index."""
    insort(groups.setdefault(group_of(job), []), (job.arrival_s, job.name))


def remove(groups: Groups, job: Job) -> None:
    """Take a job out of the index, as it was when it was added; it must be there."""
    group, place = group_of(job), (job.arrival_s, job.name)
    jobs = groups[group]
    at = bisect_left(jobs, place)
    assert jobs[at] == place
    del jobs[at]
    if not jobs:
        del groups[group]


def age_bonus(now_s: int, arrival_s: int, place: int) -> int:
    """Micro-nats: twice the log of the slowdown so far over `AGE`, and none below it.

    By bucket and not by service, so that within a group the order is that of arrival.
    """
    ratio = (now_s - arrival_s) / (AGE * max(EDGES_S[place + 1], AGE_FLOOR_S))
    return round(2e6 * math.log(ratio)) if ratio > 1 else 0


def base_priority(group: Group, indices: Indices) -> int:
    """Micro-nats, larger first: the index of a device-second and what running counts for; without age."""
    kept = HYSTERESIS_MICRO if group.stage == RUNNING else 0
    return indices.of(group) - round(1e6 * math.log(group.devices)) + kept


def choose(
    groups: Groups, capacity: int, now_s: int, indices: Indices, ranks: Mapping[str, int]
) -> tuple[str, ...]:
    """The names of the jobs that run now on `capacity` devices, best first. Who runs and is not named yields.

    `ranks`: of the queues, lower first; a queue that is not named has rank 0.
    """
    free = capacity
    heap: list[tuple[int, int, int, str, int, Group, int]] = []
    chosen: list[str] = []

    def push(group: Group, at: int, base: int) -> None:
        arrival_s, name = groups[group][at]
        priority = base + age_bonus(now_s, arrival_s, group.bucket)
        heappush(heap, (ranks.get(group.queue, 0), -priority, arrival_s, name, at, group, base))

    for group in groups:
        if group.devices <= free:
            push(group, 0, base_priority(group, indices))
    while heap and free:
        _, _, _, name, at, group, base = heappop(heap)
        if group.devices > free:
            continue  # the rest of the group is as large, and what is free only shrinks
        chosen.append(name)
        free -= group.devices
        if at + 1 < len(groups[group]):
            push(group, at + 1, base)
    return tuple(chosen)
