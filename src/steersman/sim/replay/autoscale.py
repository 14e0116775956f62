"""Problem `autoscale`: the replicas of one service over recorded arrivals, decided by `decide.capacity`.

Theory of operation. A fluid queue in steps of one second: the work of the second arrives, the ready replicas
serve it first in, first out, and at the end of every tick the policy sees what came and what waits, and sets
the number of replicas. A replica is paid from its launch and serves from a cold start after it; the youngest
goes first. A request violates when its work is done more than the SLO after the second of its arrival; what
the end of the trace cuts off counts as waiting.

The replay knows two things that a service would be told: the replicas at the beginning are what the first
minute needs at 70 %, and there are at most four times (and four) what the busiest minute needs.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from steersman.decide.backtest import Service, Tick
from steersman.decide.capacity import decide, observe, start, tick_of
from steersman.decide.forecast import Pace
from steersman.model.errors import TraceError
from steersman.sim.replay.arrivals import Arrivals, read_arrivals
from steersman.sim.replay.bounds_autoscale import level_schedule
from steersman.sim.replay.result import Progress, Replay

PROBLEM = "autoscale"
MILLI = 1_000
SLO_S_MAX = 3_600.0
COLD_START_S_MAX = 3_600.0
CAPACITY_MAX = 1e9
REPLICAS_MAX = 1_000_000
BUDGET_LEAST = 1e-6
FIRST_S, FIRST_SHARE = 60, 0.7
"""The replicas of the beginning: what the first minute needs when it keeps them busy to this share."""
ROOM = 4
"""At most so many times what the busiest minute needs, and so many more."""
ALWAYS_S = -1e12
"""A launch so long ago that it is ready."""
LATE = 1e-9
"""Work: so much less than all of it is all of it."""
TOLD = 100
"""Progress is told so many times."""

Decider = Callable[["Second"], int | None]
"""Called after each second; None: the number stays."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`capacity`: work a second that a replica does; times in seconds; `budget`: share that may violate."""

    requests: Path
    capacity: float
    slo_s: float
    cold_start_s: float
    min_replicas: int = 1
    budget: float = 0.001
    from_: str | None = None
    to: str | None = None
    seed: int = 1


class Second(NamedTuple):
    """What is known after a second: work that came and was served since the beginning, and the replicas."""

    second: int
    arrived: float
    served: float
    ready: int
    replicas: int


class Run(NamedTuple):
    """Replica-seconds, and work served by the end of each second."""

    replica_s: int
    served: Sequence[float]


class _Fleet:
    """Launches, oldest first. Those of the beginning are ready."""

    def __init__(self, replicas: int, cold_start_s: float) -> None:
        self.born: list[float] = [ALWAYS_S] * replicas
        self._cold_start_s = cold_start_s
        self._ready = replicas

    def ready(self, second: int) -> int:
        while self._ready < len(self.born) and second - self.born[self._ready] >= self._cold_start_s:
            self._ready += 1
        return self._ready

    def resize(self, replicas: int, second: int) -> None:
        del self.born[replicas:]
        self._ready = min(self._ready, replicas)
        self.born += [second] * (replicas - len(self.born))


def check(asked: Asked) -> None:
    """Refuse what makes no sense. Raises TraceError."""
    bounds = (
        ("--capacity", asked.capacity, 1 / MILLI, CAPACITY_MAX),
        ("--slo-s", asked.slo_s, 1.0, SLO_S_MAX),
        ("--cold-start-s", asked.cold_start_s, 0.0, COLD_START_S_MAX),
        ("--min-replicas", asked.min_replicas, 0, REPLICAS_MAX),
        ("--budget", asked.budget, BUDGET_LEAST, 1.0),
        ("--seed", asked.seed, 0, math.inf),
    )
    for flag, value, least, most in bounds:
        if not least <= value <= most:
            raise TraceError(f"{flag} is {value:g}", hint=f"from {least:g} to {most:g}")


def service_of(asked: Asked, arrivals: Arrivals) -> Service:
    """The service that is asked for. Raises TraceError when it needs too many replicas."""
    peak = peak_replicas(arrivals.work, asked.capacity)
    if peak > REPLICAS_MAX:
        raise TraceError(
            f"the busiest minute needs {peak:,} replicas",
            hint="--capacity is the work a second of one replica",
        )
    slo_s = int(asked.slo_s)
    pace = Pace(slo_s=slo_s, cold_start_s=math.ceil(asked.cold_start_s), tick_s=tick_of(slo_s))
    return Service(
        pace=pace,
        capacity_milli=round(MILLI * asked.capacity),
        min_replicas=asked.min_replicas,
        max_replicas=max(ROOM * peak + ROOM, asked.min_replicas),
        budget_ppm=round(1e6 * asked.budget),
    )


def peak_replicas(work: Sequence[float], capacity: float) -> int:
    """What the busiest minute needs."""
    total = [0.0, *accumulate(work)]
    window = min(FIRST_S, len(work))
    busiest = max(total[end] - total[end - window] for end in range(window, len(total)))
    return math.ceil(busiest / FIRST_S / capacity)


def first_replicas(asked: Asked, work: Sequence[float]) -> int:
    """What there is at the beginning."""
    first = work[:FIRST_S]
    return max(asked.min_replicas, 1, math.ceil(sum(first) / len(first) / asked.capacity / FIRST_SHARE))


def simulate(asked: Asked, work: Sequence[float], replicas: int, decider: Decider) -> Run:
    """The queue under any policy."""
    fleet, served = _Fleet(replicas, asked.cold_start_s), []
    done, paid = 0.0, 0
    for second, arrived in enumerate(accumulate(work)):
        ready = fleet.ready(second)
        paid += len(fleet.born)
        done = min(arrived, done + ready * asked.capacity)
        served.append(done)
        target = decider(Second(second, arrived, done, ready, len(fleet.born)))
        if target is not None:
            fleet.resize(target, second)
    return Run(paid, served)


def violating(arrivals: Arrivals, served: Sequence[float], slo_s: float) -> float:
    """Requests that wait longer than the SLO."""
    done, late = 0, 0.0
    for second, arrived in enumerate(accumulate(arrivals.work)):
        while done < len(served) and served[done] < arrived - LATE:
            done += 1
        if done - second > slo_s:
            late += arrivals.requests[second]
    return late


def steersman(service: Service, requests: Sequence[float], replicas: int) -> Decider:
    """`decide.capacity` as a decider: the folded state, one tick after another."""
    state = start(service, replicas)
    tick_s, came, before = service.pace.tick_s, 0.0, 0

    def look(seen: Second) -> int | None:
        nonlocal state, came, before
        came += requests[seen.second]
        if (seen.second + 1) % tick_s:
            return None
        arrived = round(MILLI * seen.arrived)
        tick = Tick(
            work_milli=arrived - before,
            requests=round(came),
            backlog_milli=round(MILLI * (seen.arrived - seen.served)),
            ready=seen.ready,
            replicas=seen.replicas,
        )
        before, came = arrived, 0.0
        state = observe(state, service, tick)
        return decide(state, service).target

    return look


def replay(asked: Asked, progress: Progress) -> Replay:
    """The service over its trace. Raises TraceError."""
    check(asked)
    progress(0.0, "reading")
    arrivals = read_arrivals(asked.requests, asked.from_, asked.to, asked.seed)
    service, replicas = service_of(asked, arrivals), first_replicas(asked, arrivals.work)
    decider = _told(steersman(service, arrivals.requests, replicas), len(arrivals.work), progress)
    run = simulate(asked, arrivals.work, replicas, decider)
    progress(1.0, "done")
    return Replay(
        problem=PROBLEM,
        files=(str(asked.requests),),
        dropped=dict(arrivals.dropped),
        policies={"steersman": metrics(asked, arrivals, run)},
    )


def metrics(asked: Asked, arrivals: Arrivals, run: Run) -> dict[str, Any]:
    """What a run comes to, with the figures behind each ratio."""
    late, requests = violating(arrivals, run.served, asked.slo_s), sum(arrivals.requests)
    found: dict[str, Any] = {
        "violation_share": late / requests,
        "violations": round(late),
        "requests": round(requests),
        "replica_h": run.replica_s / 3_600,
        "hours": len(arrivals.work) / 3_600,
    }
    if asked.min_replicas == 0:
        least = level_schedule(arrivals.work, asked.capacity, asked.cold_start_s, asked.slo_s)
        found |= {"cost_over_oracle": run.replica_s / least, "oracle_replica_h": least / 3_600}
    return found


def _told(decider: Decider, seconds: int, progress: Progress) -> Decider:
    every = max(1, seconds // TOLD)

    def look(seen: Second) -> int | None:
        if seen.second % every == 0:
            progress(
                seen.second / seconds, f"second {seen.second:,} of {seconds:,}, {seen.replicas:,} replicas"
            )
        return decider(seen)

    return look
