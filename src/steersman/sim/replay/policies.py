"""One's own recorded history under several policies, side by side.

Metrics of a column; a mean or percentile of nothing is None, and what nobody can know is None too:

    jobs_ended            jobs that ended by themselves in the record and ended here, by success or failure
    jobs_failed           those of them that failed
    jobs_unfinished       those that ended in the record and not here, within the limit of simulated time
    wait_s_mean, _p50, _p99     from a job's declaration to the begin of its program
    completion_s_mean     from its declaration to its end
    slowdown_p99          99th percentile of completion over what it needed by itself (at least
                          SLOWDOWN_FLOOR_MS)
    makespan_s            from the first declaration of a job to the last end
    core_utilisation      leased core time over the capacity of nodes that were there, in that time
    device_utilisation    the same of devices
    evictions             runs that had to yield
    restarts              tries that were followed by another
    lost_core_h, lost_device_h  what restarted jobs did after their last save
    cost_usd              nodes at their price, for the time in which they held work, up to the last end
    service_short_share   time of services with fewer ready replicas than their target, over all of it
    slo_missed_share      time of services with a latency above their objective; of the record only

Percentiles lie between ranks, in a straight line.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from steersman.model.policy import Policy
from steersman.ports.journal import Record
from steersman.sim.replay.books import Amounts, Books, Job, JobKey
from steersman.sim.replay.history import History, read_history
from steersman.sim.replay.result import Progress
from steersman.sim.replay.simulate import SensorOf, simulate
from steersman.sim.replay.work import Work

SLOWDOWN_FLOOR_MS = 10_000
HOUR_MS = 3_600_000
RECORDED = "recorded"
"""The column of what happened, and with SIMULATED what the recorded policy makes of the same history."""
SIMULATED = "as it was"
WAITS_SHOWN_MAX = 200

Metric = int | float | None


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. `cores`: (seconds after the begin, leased cores). `waits_s`: quantiles, the least first.

    `policy` None: this is what happened.
    """

    name: str
    policy: Policy | None
    metrics: Mapping[str, Metric]
    cores: tuple[tuple[float, float], ...]
    waits_s: tuple[float, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A history and its columns. `dropped`: what could not be replayed, counted by reason."""

    events: int
    span_s: float
    jobs: int
    columns: tuple[Column, ...]
    dropped: Mapping[str, int]


def compare(
    records: Iterable[Record],
    total: int,
    policies: Sequence[tuple[str, Policy]],
    sensor: SensorOf,
    progress: Progress,
) -> Comparison:
    """A journal of `total` records: what happened, what its own policy makes of it, and what others would.

    Raises JournalCorrupt or JournalNewer when the journal cannot be read.
    """
    steps = 2 + len(policies)

    def part(step: int, name: str) -> Progress:
        return lambda share, words: progress((step + share) / steps, f"{name}: {words}")

    history, recorded = read_history(records, total, part(0, RECORDED))
    dropped = dict(history.dropped)
    columns = [_column(RECORDED, None, history, recorded)]
    runs: list[tuple[str, Policy | None]] = [(SIMULATED, None), *policies]
    for step, (name, policy) in enumerate(runs, start=1):
        found = simulate(history, policy, sensor, part(step, name))
        columns.append(_column(name, policy or history.policy, history, found.books))
        if found.unmet:
            dropped[f"losses of a process that met none on their node, under {name!r}"] = found.unmet
    return Comparison(
        events=history.events,
        span_s=(history.end_ms - history.begin_ms) / 1000,
        jobs=sum(work.counts for work in history.works.values()),
        columns=tuple(columns),
        dropped=dropped,
    )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Of sorted values, between ranks, in a straight line; None of nothing."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _column(name: str, policy: Policy | None, history: History, books: Books) -> Column:
    jobs = [(books.jobs[key], work) for key, work in _counted(history) if key in books.jobs]
    waits = sorted(_waits(jobs, books.now_ms))
    ended = [(job, work) for job, work in jobs if job.outcome in ("succeeded", "failed")]
    completions = [(job.ended_ms or 0) - job.declared_ms for job, _ in ended]
    slowdowns = sorted(
        took / max(work.needs_ms, SLOWDOWN_FLOOR_MS)
        for took, (_, work) in zip(completions, ended, strict=True)
        if work.needs_ms is not None
    )
    metrics: dict[str, Metric] = {
        "jobs_ended": len(ended),
        "jobs_failed": sum(job.outcome == "failed" for job, _ in ended),
        "jobs_unfinished": sum(work.counts for work in history.works.values()) - len(ended),
        "wait_s_mean": _mean(waits),
        "wait_s_p50": percentile(waits, 50),
        "wait_s_p99": percentile(waits, 99),
        "completion_s_mean": _mean([took / 1000 for took in completions]),
        "slowdown_p99": percentile(slowdowns, 99),
        **_amounts(books),
        "evictions": books.evictions,
        "restarts": books.restarts,
        "lost_core_h": books.lost_core_ms / 1000 / HOUR_MS,
        "lost_device_h": books.lost_device_milli_ms / 1000 / HOUR_MS,
        "service_short_share": _share(books.short_ms, books.service_ms),
        "slo_missed_share": _share(books.missed_ms, books.judged_ms) if policy is None else None,
    }
    return Column(
        name=name,
        policy=policy,
        metrics={
            key: round(value, 6) if isinstance(value, float) else value for key, value in metrics.items()
        },
        cores=tuple((at_ms / 1000, rate / 1000) for at_ms, rate in books.cores.points()),
        waits_s=_quantiles(waits),
    )


def _counted(history: History) -> list[tuple[JobKey, Work]]:
    return sorted(
        ((key, work) for key, work in history.works.items() if work.counts), key=lambda item: item[0]
    )


def _waits(jobs: Iterable[tuple[Job, Work]], now_ms: int) -> Iterable[float]:
    """Seconds. One that never began has waited until now; one that ended without a begin is left out."""
    for job, _ in jobs:
        if job.started_ms is not None:
            yield (job.started_ms - job.declared_ms) / 1000
        elif job.ended_ms is None:
            yield (now_ms - job.declared_ms) / 1000


def _amounts(books: Books) -> dict[str, Metric]:
    sums: Amounts = books.amounts if books.last_end_ms is None else books.at_last_end
    begin_ms, end_ms = books.first_declared_ms, books.last_end_ms
    return {
        "makespan_s": None if begin_ms is None or end_ms is None else (end_ms - begin_ms) / 1000,
        "core_utilisation": _share(sums.core_ms, sums.core_capacity_ms),
        "device_utilisation": _share(sums.device_milli_ms, sums.device_capacity_milli_ms),
        "cost_usd": None if sums.cost is None else sums.cost / HOUR_MS / 1_000_000,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quantiles(ordered: Sequence[float]) -> tuple[float, ...]:
    if len(ordered) <= WAITS_SHOWN_MAX:
        return tuple(ordered)
    steps = range(WAITS_SHOWN_MAX)
    return tuple(percentile(ordered, 100 * step / (WAITS_SHOWN_MAX - 1)) or 0.0 for step in steps)
