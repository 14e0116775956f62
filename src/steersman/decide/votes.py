"""What each signal and each declared metric asks for, in replicas. A part of `autoscale`.

    ongoing_milli    requests in flight and queued, mean over the look-back: ceil(ongoing / target). Below the
                     present number it counts only when the survivors, who would carry N/(N-1) of the load,
                     stay below the target with MARGIN_MILLI to spare
    queued_milli     those that wait: ceil(queued / target), and never a vote for less
    latency_p99_us   above the limit: in proportion to it, at most double; below it the present number, or one
                     less when even N/(N-1) of it would be below
    metrics          ceil(value / target); what is told of one replica counts as often as there are replicas
                     and, as Kubernetes does it, not at all within MARGIN_MILLI of the target

A signal that is unknown votes for what there is: hold. Metrics know nothing of an empty service whose figure
is of its replicas: from zero they ask for nothing.
"""

from typing import NamedTuple

from steersman.model.reasons import Code, Reason, reason
from steersman.model.service import Metric, Scaling
from steersman.model.signals import LATENCY, ONGOING, QUEUED, SERVED, prometheus
from steersman.model.snapshot import ServiceState, Snapshot

MARGIN_MILLI = 100
"""A smaller number must carry this share more than the load there is: 10 %."""

Known = dict[str, int | None]


class Vote(NamedTuple):
    """A number of replicas and why."""

    replicas: int
    reason: Reason


def votes(snapshot: Snapshot, state: ServiceState) -> tuple[Vote, ...]:
    """What each signal asks for, before the declared bounds."""
    scaling, target = state.spec.scaling, state.target
    known = {signal.name: signal.value for signal in state.signals}
    if target == 0:
        found = [_from_zero(known)]
    else:
        found = [_of_load(known.get(ONGOING), scaling, target)]
        if scaling.queued_requests_milli is not None:
            found.append(_of_queue(known.get(QUEUED), scaling.queued_requests_milli, target))
        if scaling.latency_p99_ms is not None:
            found.append(_of_latency(known, scaling.latency_p99_ms, target))
    figures = (_figure(snapshot, known, at, metric) for at, metric in enumerate(scaling.metrics))
    found += [
        of_metric(metric, value, target) for metric, value in zip(scaling.metrics, figures, strict=True)
    ]
    return tuple(found)


def of_metric(metric: Metric, value: int | None, target: int) -> Vote:
    """What one metric asks for."""
    name = metric_name(metric)
    if value is None:
        return unknown(name, target)
    why = reason(Code.SCALE_METRIC, metric=name, value_milli=value, target_milli=metric.target_milli)
    if metric.per == "total":
        return Vote(-(-value // metric.target_milli), why)
    near = abs(value - metric.target_milli) * 1_000 <= MARGIN_MILLI * metric.target_milli
    return Vote(target if near else -(-target * value // metric.target_milli), why)


def metric_name(metric: Metric) -> str:
    """What people call it."""
    return metric.name or metric.query or ""


def unknown(name: str, target: int) -> Vote:
    """A vote for what there is."""
    return Vote(target, reason(Code.SCALE_UNKNOWN, signal=name))


def _figure(snapshot: Snapshot, known: Known, at: int, metric: Metric) -> int | None:
    """The value of a metric in thousandths; None: unknown."""
    match metric.name:
        case "queued_jobs":
            return 1_000 * _queued_jobs(snapshot, metric)
        case "backlog":
            queued, served = known.get(QUEUED), known.get(SERVED)
            if queued is None or served is None:
                return None
            return 0 if queued == 0 else queued * 1_000 // served if served else None
        case _:
            return known.get(prometheus(at))


def _queued_jobs(snapshot: Snapshot, metric: Metric) -> int:
    """Jobs, not replicas, that wait for room in its queue."""
    waiting = (entry[2] for queue in snapshot.indexes.pending.values() for entry in queue)
    jobs = (snapshot.workloads[name] for name in waiting)
    return sum(job.spec.queue == metric.queue and job.spec.body.program == "command" for job in jobs)


def _from_zero(known: Known) -> Vote:
    figures = [value for value in (known.get(ONGOING), known.get(QUEUED)) if value is not None]
    if not figures:
        return unknown(ONGOING, 0)
    waiting = max(figures)
    return Vote(1 if waiting > 0 else 0, reason(Code.SCALE_DEMAND, ongoing_milli=waiting))


def _of_load(ongoing: int | None, scaling: Scaling, target: int) -> Vote:
    if ongoing is None:
        return unknown(ONGOING, target)
    each = scaling.target_ongoing_requests_milli
    wanted = -(-ongoing // each)
    if wanted < target:  # the survivors carry all of it
        wanted = min(-(-ongoing * (1000 + MARGIN_MILLI) // (each * 1000)), target)
    return Vote(wanted, reason(Code.SCALE_LOAD, ongoing_milli=ongoing, target_milli=each))


def _of_queue(queued: int | None, each: int, target: int) -> Vote:
    if queued is None:
        return unknown(QUEUED, target)
    why = reason(Code.SCALE_QUEUE, queued_milli=queued, target_milli=each)
    return Vote(-(-queued // each) if queued > each * target else 0, why)


def _of_latency(known: Known, limit_ms: int, target: int) -> Vote:
    latency = known.get(LATENCY)
    if latency is None and known.get(ONGOING) == 0:
        return Vote(0, reason(Code.SCALE_LOAD, ongoing_milli=0))  # nobody asked: there is no latency
    if latency is None:
        return unknown(LATENCY, target)
    limit = limit_ms * 1000
    why = reason(Code.SCALE_LATENCY, p99_us=latency, limit_us=limit)
    if latency > limit:
        return Vote(min(-(-target * latency // limit), 2 * target), why)
    fewer_hold = target > 1 and latency * target < limit * (target - 1)
    return Vote(target - 1 if fewer_hold or target == 1 else target, why)
