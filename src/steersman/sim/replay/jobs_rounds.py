"""A cluster of like GPUs on which gangs run in rounds: who runs is decided at the start of each.

Theory of operation. A gang holds all of its GPUs for the whole round or none. One that is preempted keeps
what it has attained; when it runs again it first loses `RESTART_S`, and that is one restart. A job ends in
the middle of a round when its duration is reached; its GPUs are free at the next. When nothing is there, time
goes on to the first round in which something is. In each round the policy is asked, also when all fits: so
what a decider learns, and when, is what it would learn live.

Who runs is a `Policy`, so that the policies people use today (in bench/) are replayed by the same rounds.
What is decided is held against the capacity here, whoever decided it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from steersman.decide import order
from steersman.model.durations import NOTHING_LEARNED
from steersman.sim.replay.bounds_jobs import Gang
from steersman.state import durations

ROUND_S = 300
RESTART_S = 60
TELLS = 50
"""How often progress is told in one cluster."""
PLACES = 9
"""Digits of a job's name for the decider: names sort as the jobs came."""


class Active:
    """A job that has come and not ended."""

    __slots__ = ("attained_s", "end_s", "gang", "left_s", "number", "running", "started")

    def __init__(self, number: int, gang: Gang) -> None:
        self.number = number
        self.gang = gang
        self.left_s = gang.duration_s
        self.attained_s = 0.0
        self.running = False
        self.started = False
        self.end_s = math.nan


class Policy(Protocol):
    """Who runs. It is told what happens; how long a gang takes is for oracles alone to look at."""

    def came(self, job: Active) -> None:
        """A job is there."""

    def choose(self, active: Mapping[int, Active], capacity: int, now_s: float) -> Sequence[int]:
        """The numbers of those that run in this round, of the jobs there are; served in this order."""

    def served(self, job: Active) -> None:
        """A job ran and goes on."""

    def paused(self, job: Active) -> None:
        """A job that ran runs no more."""

    def ended(self, job: Active) -> None:
        """A job ran to its end."""


class Outcome(NamedTuple):
    """When each job ended, in the order of the gangs, and how many restarts there were."""

    ends_s: tuple[float, ...]
    restarts: int


class Cluster:
    """One cluster in its rounds."""

    def __init__(self, gangs: Sequence[Gang], capacity: int, policy: Policy) -> None:
        assert all(gang.gpus <= capacity for gang in gangs)
        self._jobs = [Active(number, gang) for number, gang in enumerate(gangs)]
        self._capacity = capacity
        self._policy = policy
        self._active: dict[int, Active] = {}
        self._running: set[int] = set()
        self._coming = 0
        self._now_s = gangs[0].arrival_s
        self._restarts = 0

    def run(self, tell: Callable[[int], None]) -> Outcome:
        """Every job to its end. `tell` hears now and then how many have ended."""
        every = max(len(self._jobs) // TELLS, 1)
        told = 0
        while self._coming < len(self._jobs) or self._active:
            self._admit()
            chosen = self._decide()
            self._switch(chosen)
            for number in chosen:
                self._serve(self._active[number])
            self._now_s += ROUND_S
            ended = self._coming - len(self._active)
            if ended - told >= every:
                tell(ended)
                told = ended
        if told < len(self._jobs):
            tell(len(self._jobs))
        return Outcome(tuple(job.end_s for job in self._jobs), self._restarts)

    def _admit(self) -> None:
        if not self._active:
            ahead_s = self._jobs[self._coming].gang.arrival_s - self._now_s
            self._now_s += ROUND_S * max(math.ceil(ahead_s / ROUND_S), 0)
        while self._coming < len(self._jobs) and self._jobs[self._coming].gang.arrival_s <= self._now_s:
            job = self._jobs[self._coming]
            self._active[job.number] = job
            self._policy.came(job)
            self._coming += 1

    def _decide(self) -> Sequence[int]:
        chosen = self._policy.choose(self._active, self._capacity, self._now_s)
        assert chosen  # each job fits an empty cluster
        assert len(set(chosen)) == len(chosen)
        assert sum(self._active[number].gang.gpus for number in chosen) <= self._capacity
        return chosen

    def _switch(self, chosen: Iterable[int]) -> None:
        now = set(chosen)
        for number in sorted(self._running - now):
            job = self._active[number]
            job.running = False
            self._policy.paused(job)
        self._running = now

    def _serve(self, job: Active) -> None:
        lost_s = RESTART_S if job.started and not job.running else 0
        self._restarts += 1 if lost_s else 0
        job.running = job.started = True
        if job.left_s > ROUND_S - lost_s:
            job.left_s -= ROUND_S - lost_s
            job.attained_s += ROUND_S - lost_s
            self._policy.served(job)
            return
        job.end_s = self._now_s + lost_s + job.left_s
        job.attained_s += job.left_s
        job.left_s = 0.0
        del self._active[job.number]
        self._running.discard(job.number)
        self._policy.ended(job)


class Steersman:
    """The live decider in the rounds: stints are folded at the edges of buckets, at pauses and at ends."""

    def __init__(self, *, use_model: bool = True) -> None:
        self._use_model = use_model
        self._learned = self._used = NOTHING_LEARNED
        self._memo = order.Memo()
        self._groups: order.Groups = {}
        self._jobs: dict[int, order.Job] = {}
        self._folded_s: dict[int, int] = {}

    def came(self, job: Active) -> None:
        gang = job.gang
        size = f"gpus={gang.gpus}"
        finest = (f"{size} model={gang.model}",) if self._use_model and gang.model else ()
        known = order.Job(
            name=f"{job.number:0{PLACES}d}",
            queue="",
            classes=("all", size, *finest),
            devices=gang.gpus,
            arrival_s=int(gang.arrival_s),
            attained_s=0,
            stage=order.NEW,
        )
        self._jobs[job.number] = known
        self._folded_s[job.number] = 0
        order.add(self._groups, known)

    def choose(self, active: Mapping[int, Active], capacity: int, now_s: float) -> Sequence[int]:
        del active
        self._used = durations.refreshed(self._used, self._learned)
        indices = self._memo.indices(self._used, RESTART_S)
        return [int(name) for name in order.choose(self._groups, capacity, int(now_s), indices, {})]

    def served(self, job: Active) -> None:
        if durations.bucket(int(job.attained_s)) != durations.bucket(self._jobs[job.number].attained_s):
            self._fold(job, ended=False)
        self._move(job, order.RUNNING)

    def paused(self, job: Active) -> None:
        self._fold(job, ended=False)
        self._move(job, order.PREEMPTED)

    def ended(self, job: Active) -> None:
        self._fold(job, ended=True)
        order.remove(self._groups, self._jobs.pop(job.number))
        del self._folded_s[job.number]

    def _fold(self, job: Active, *, ended: bool) -> None:
        from_s, to_s = self._folded_s[job.number], int(job.attained_s)
        if ended or to_s > from_s:
            stint = durations.Stint(self._jobs[job.number].classes, from_s, to_s - from_s, ended)
            self._learned = durations.fold(self._learned, stint)
            self._folded_s[job.number] = to_s

    def _move(self, job: Active, stage: order.Stage) -> None:
        before = self._jobs[job.number]
        after = before._replace(attained_s=int(job.attained_s), stage=stage)
        self._jobs[job.number] = after
        if order.group_of(before) != order.group_of(after):
            order.remove(self._groups, before)
            order.add(self._groups, after)
