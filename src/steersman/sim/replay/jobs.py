"""Gang jobs of unknown duration, virtual cluster by virtual cluster: the order that `decide.order` gives.

Theory of operation. Each virtual cluster of the trace is replayed on its own, on like GPUs, as many as make
the work offered over the span of its arrivals `load` times what they can do; never fewer than its largest
gang holds. (Jobs that all come at one moment have no such span: their cluster is as large as the largest of
them.) How it runs is told in `jobs_rounds`. The decider sees of a job what was known when it was submitted
and what it has attained, never its duration.

    jct_over_bound     mean completion time over the bound of `bounds_jobs`
    p99_slowdown       99th percentile of completion time over max(duration, SLOWDOWN_FLOOR_S)
    restarts_per_job   how often a job goes on after it was preempted
    avg_jct_h          mean completion time, hours

Each is the mean over the virtual clusters, and stands in a table by virtual cluster. Those of few jobs say
little and would count as much as the others: they are left out and counted, unless there are no larger ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from steersman.model.errors import TraceError
from steersman.sim.replay.bounds_jobs import Gang, mean_jct_bound_s
from steersman.sim.replay.jobs_rounds import Cluster, Policy, Steersman
from steersman.sim.replay.result import Progress, Replay
from steersman.sim.replay.tables import (
    Read,
    amount,
    check_new,
    check_order,
    head_of,
    read_table,
    whole,
    word,
)

LOAD_MIN, LOAD_MAX = 0.01, 100.0
VC_JOBS_MIN = 500
"""Virtual clusters of fewer jobs are left out of the mean."""
DURATION_S_MIN = 1.0
"""Shorter jobs count as this long."""
DURATION_S_MAX = 10 * 365 * 86_400
"""Ten years: a longer job is a wrong unit."""
SLOWDOWN_FLOOR_S = 600
"""Slowdown is over at least this duration: nobody minds that a job of a second waits for a minute."""
HOUR_S = 3600
MEANS = ("jct_over_bound", "p99_slowdown", "restarts_per_job", "avg_jct_h")

Row = dict[str, float]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The trace, the load to size each cluster by, and the one virtual cluster that is wanted."""

    jobs: Path
    load: float = 0.8
    vc: str | None = None


class Trace(NamedTuple):
    """The gangs of each virtual cluster by arrival, its first at 0; what was dropped, by reason."""

    vcs: Mapping[str, Sequence[Gang]]
    dropped: Mapping[str, int]


def replay(asked: Asked, progress: Progress) -> Replay:
    """The order of jobs, over a trace. Raises TraceError."""
    check_load(asked.load)
    trace = wanted(asked, read(asked.jobs))
    metrics = measure(trace.vcs, asked.load, Steersman, progress)
    return Replay(
        problem="jobs",
        files=(str(asked.jobs),),
        dropped=trace.dropped,
        policies={"steersman": metrics},
    )


def check_load(load: float) -> None:
    """Refuse a load by which no cluster can be sized. Raises TraceError."""
    if not LOAD_MIN <= load <= LOAD_MAX:
        raise TraceError(
            f"load is {load:g}",
            hint=f"give {LOAD_MIN:g} to {LOAD_MAX:g}; 1 is as much work as the GPUs can do",
        )


def read(path: Path) -> Trace:
    """Every job of the trace. Raises TraceError."""
    columns: dict[str, Read] = {
        "vc": word,
        "job": word,
        "arrival_s": amount,
        "num_gpus": whole,
        "duration_s": amount,
    }
    if "model" in head_of(path):
        columns |= {"model": str}
    vcs: dict[str, list[Gang]] = {}
    seen: dict[str, set[str]] = {}
    last_s: dict[str, float] = {}
    without = 0
    for line, (vc, job, arrival_s, gpus, duration_s, *model) in read_table(path, columns):
        check_new(path, line, job, seen.setdefault(vc, set()))
        check_order(path, line, last_s.get(vc, 0.0), arrival_s, f"arrival_s of vc {vc}")
        last_s[vc] = arrival_s
        if duration_s > DURATION_S_MAX:
            message = f"{path.name}:{line}: duration_s is {duration_s:g}, more than ten years"
            raise TraceError(message, hint="durations are in seconds")
        if not gpus:
            without += 1
            continue
        family = model[0].partition(" (")[0] if model else ""  # "VGG-16 (batch size 64)" is a VGG-16
        vcs.setdefault(vc, []).append(Gang(arrival_s, gpus, max(duration_s, DURATION_S_MIN), family))
    if not vcs:
        raise TraceError(
            f"{path.name}: there is no job that holds a GPU", hint="a trace has a row for each job"
        )
    return Trace(
        {vc: _from_zero(gangs) for vc, gangs in sorted(vcs.items())}, {"jobs without a GPU": without}
    )


def _from_zero(gangs: Sequence[Gang]) -> Sequence[Gang]:
    return [gang._replace(arrival_s=gang.arrival_s - gangs[0].arrival_s) for gang in gangs]


def wanted(asked: Asked, trace: Trace) -> Trace:
    """The virtual clusters to replay: the one asked for, else those with jobs enough. Raises TraceError."""
    if asked.vc is not None:
        if asked.vc not in trace.vcs:
            names = ", ".join(trace.vcs)
            message = f"{asked.jobs.name}: there is no job of virtual cluster {asked.vc!r}"
            raise TraceError(message, hint=f"there are {names[:200]}")
        kept, why = {asked.vc}, "jobs of other virtual clusters"
    else:
        kept = {vc for vc, gangs in trace.vcs.items() if len(gangs) >= VC_JOBS_MIN} or set(trace.vcs)
        why = f"jobs of virtual clusters with fewer than {VC_JOBS_MIN}"
    left = sum(len(gangs) for vc, gangs in trace.vcs.items() if vc not in kept)
    chosen = {vc: gangs for vc, gangs in trace.vcs.items() if vc in kept}
    return Trace(chosen, {**trace.dropped, why: left})


def measure(
    vcs: Mapping[str, Sequence[Gang]], load: float, policy: Callable[[], Policy], progress: Progress
) -> dict[str, Any]:
    """The metrics of a policy: means over the virtual clusters, and `vcs`, the table by virtual cluster."""
    total = sum(len(gangs) for gangs in vcs.values())
    done = 0
    table: dict[str, Row] = {}
    for vc, gangs in vcs.items():

        def tell(ended: int, vc: str = vc, before: int = done) -> None:
            progress((before + ended) / total, f"{before + ended:,} of {total:,} jobs, virtual cluster {vc}")

        table[vc] = metrics_of(gangs, capacity_of(gangs, load), policy(), tell)
        done += len(gangs)
    means = {name: sum(row[name] for row in table.values()) / len(table) for name in MEANS}
    return {**means, "jobs": total, "vcs": table}


def capacity_of(gangs: Sequence[Gang], load: float) -> int:
    """GPUs that the work offered loads by so much; at least those of the largest gang."""
    largest = max(gang.gpus for gang in gangs)
    span_s = gangs[-1].arrival_s - gangs[0].arrival_s
    if not span_s:
        return largest
    service = sum(gang.gpus * gang.duration_s for gang in gangs)
    return max(math.ceil(service / span_s / load), largest)


def metrics_of(gangs: Sequence[Gang], capacity: int, policy: Policy, tell: Callable[[int], None]) -> Row:
    """The metrics of one virtual cluster, and what they come from."""
    outcome = Cluster(gangs, capacity, policy).run(tell)
    jct_s = [end_s - gang.arrival_s for end_s, gang in zip(outcome.ends_s, gangs, strict=True)]
    slowdowns = [
        taken_s / max(gang.duration_s, SLOWDOWN_FLOOR_S) for taken_s, gang in zip(jct_s, gangs, strict=True)
    ]
    mean_s = sum(jct_s) / len(gangs)
    bound_s = mean_jct_bound_s(gangs, capacity)
    return {
        "jct_over_bound": mean_s / bound_s,
        "p99_slowdown": percentile(slowdowns, 99),
        "restarts_per_job": outcome.restarts / len(gangs),
        "avg_jct_h": mean_s / HOUR_S,
        "bound_jct_h": bound_s / HOUR_S,
        "restarts": outcome.restarts,
        "jobs": len(gangs),
        "gpus": capacity,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Between ranks, in a straight line."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
