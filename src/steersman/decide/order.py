"""Which gangs run now, when nobody knows how long they take: the order of jobs of unknown duration.

Theory of operation. A job is worth serving by its Gittins index: over all times at which one could stop and
think again, the best ratio of the chance that it ends to the service that this costs (Gittins 1979; optimal
for the mean flow time of M/G/1: Aalto, Ayesta, Righter 2009; Scully, Harchol-Balter 2018). Divided by the
size of the gang it is the index of a device-second (Tiresias, NSDI'19). The law of total service is not
given; it is learned from what ran:

* Attained service falls in log-spaced buckets. Each class that a job belongs to (coarse to fine, all known
  when it is submitted) keeps a count and a sum of log durations. A job's scale is the mean, shrunk down that
  chain: a class of which little is known speaks like its parent.
* There is one histogram, over attained bucket less scale bucket: ends, and exposure. A job that still runs
  adds exposure and no end, so that censoring is exact (a hazard constant in each piece). The hazard is
  shrunk to a prior without scale (Pareto: the same in every log bucket). With no data at all the index falls
  with attained service from the first edge on (the bucket below is wider than its neighbours, and all of it
  is less than a restart): the order begins as least-attained-service.
* The index is constant in a bucket, so jobs stand in groups of like jobs, first come first served within. A
  cycle orders groups, not jobs: O(groups log groups + jobs started).
* A running job is preempted only by one `HYSTERESIS` times better; a preempted one has its restart in its
  cost; a job that has waited more than `AGE` times what it attained rises with the square of that ratio, so
  that nothing starves. A gang that does not fit is passed over whole.

The caller's rank of a queue (its fair share) comes first. Log-indices are whole micro-nats, and the last keys
are arrival and name: a total order. One call is for one pool of like devices; whether a gang also fits the
single nodes is not asked here. What must be folded to decide the same again is `Learned`, and that version
of it which the `Indices` in use were made of. On what the constants were chosen, and what changing them
does, is told in docs/guides/replay.md.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Literal, NamedTuple

from steersman.model.table import Table

BUCKETS = 48
"""64 s times 2 ** 23.5 is 24 years: nothing takes longer."""
FIRST_EDGE_S = 64
"""About one restart: below it, durations do not differ in effect."""
STEP_NATS = math.log(2) / 2
"""Width of a bucket: a factor of the square root of 2, in which a heavy-tailed hazard hardly moves."""
EDGES_S = (0, *(round(FIRST_EDGE_S * 2 ** (k / 2)) for k in range(BUCKETS)))
SHORTEST_S = 60
"""A job that ended sooner counts as this long in the scale of its classes, for the same reason."""
PRIOR_LOG_MILLI = 9_000
"""Milli-nats of the typical duration when nothing has ended: 2.25 h."""
PRIOR_HAZARD = 0.24
"""Ends a bucket of the prior: a Pareto tail of 0.7 (below 1: heavy) times the width of a bucket."""
PRIOR_ENDS = 4
"""Weight of the prior in each bucket, in ends."""
SHRINK = (1, 3, 3, 3)
"""Weight of the parent's mean at each level of the chain of classes, in jobs; deeper levels as the last."""
HYSTERESIS_MICRO = round(1e6 * math.log(3))
"""Micro-nats: a running job's index counts three times, so that jobs that are alike do not take turns."""
AGE = 40
"""Waits beyond this many times what was attained raise the index: twice the slowdown that may be seen."""
AGE_FLOOR_S = 600
"""A wait is held against at least this much service: a short job may wait for minutes, not for seconds."""
REFRESH_SHARE = 50
"""Indices are made anew when one fiftieth more was learned: 2 % more data moves no index by much."""
ALIVE_MIN = 1e-6
"""A job that lives on with less than this chance adds nothing to an index."""

Stage = Literal[0, 1, 2]
NEW: Literal[0] = 0
PREEMPTED: Literal[1] = 1
RUNNING: Literal[2] = 2


class Tally(NamedTuple):
    """Of the jobs of a class that ended: how many, and the sum of their log durations in milli-nats."""

    ended: int
    log_milli: int


class Learned(NamedTuple):
    """What was learned of durations: whole numbers, folded from stints."""

    classes: Table[Tally]
    ends: tuple[int, ...]
    """By attained bucket less scale bucket, plus `BUCKETS`."""
    exposed_milli: tuple[int, ...]
    """Thousandths of a bucket that were served there."""
    stints: int


NOTHING_LEARNED = Learned(Table(), (0,) * (2 * BUCKETS), (0,) * (2 * BUCKETS), 0)


class Stint(NamedTuple):
    """A piece of a job's service: after what it had attained, how long, and whether the job ended with it."""

    classes: tuple[str, ...]
    attained_s: int
    ran_s: int
    ended: bool


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


def bucket(seconds: int) -> int:
    """The bucket in which so much attained service falls; what is beyond the last edge falls in the last."""
    return min(bisect_right(EDGES_S, seconds), BUCKETS) - 1


def scale_bucket(learned: Learned, classes: tuple[str, ...]) -> int:
    """The bucket of the expected log duration: means of the classes, each shrunk to its parent's."""
    mean = float(PRIOR_LOG_MILLI)
    for level, name in enumerate(classes):
        tally = learned.classes.get(name)
        if tally is not None:
            weight = SHRINK[min(level, len(SHRINK) - 1)]
            mean = (tally.log_milli + weight * mean) / (tally.ended + weight)
    place = round((mean / 1000 - math.log(FIRST_EDGE_S)) / STEP_NATS) + 1
    return min(max(place, 0), BUCKETS - 1)


def fold(learned: Learned, stint: Stint) -> Learned:
    """What is known after one stint: its exposure and, if it ended the job, one end."""
    begin_s, end_s = stint.attained_s, stint.attained_s + stint.ran_s
    shift = BUCKETS - scale_bucket(learned, stint.classes)
    first, last = bucket(begin_s), bucket(max(end_s - 1, begin_s))
    exposed = list(learned.exposed_milli)
    for place in range(first, last + 1):
        low_s, high_s = EDGES_S[place], EDGES_S[place + 1]
        until_s = end_s if place == last else high_s
        exposed[place + shift] += round(1000 * (until_s - max(begin_s, low_s)) / (high_s - low_s))
    ends, classes = learned.ends, learned.classes
    if stint.ended:
        at = last + shift
        ends = (*ends[:at], ends[at] + 1, *ends[at + 1 :])
        classes = _counted(classes, stint.classes, round(1000 * math.log(max(end_s, SHORTEST_S))))
    return Learned(classes, ends, tuple(exposed), learned.stints + 1)


def _counted(classes: Table[Tally], names: tuple[str, ...], log_milli: int) -> Table[Tally]:
    editor = classes.edit()
    for name in names:
        before = editor.get(name) or Tally(0, 0)
        editor[name] = Tally(before.ended + 1, before.log_milli + log_milli)
    return editor.freeze()


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

    def refreshed(self, learned: Learned) -> "Indices":
        """Indices of `learned` when it holds noticeably more, else these: between, the order stays put."""
        old = self.learned.stints
        return Indices(learned, self.restart_s) if learned.stints > old + old // REFRESH_SHARE else self


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
