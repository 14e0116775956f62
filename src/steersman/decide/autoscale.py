"""How many replicas a service should have: the reactive part.

Theory of operation. Each signal votes for a number, and the largest vote wins, so that a quiet signal never
lowers what another asks for. A signal that is unknown votes for what there is: hold.

    ongoing_milli    requests in flight and queued, mean over the look-back: ceil(ongoing / target). Below the
                     present number it counts only when the survivors, who would carry N/(N-1) of the load,
                     stay below the target with MARGIN_MILLI to spare
    queued_milli     those that wait: ceil(queued / target), and never a vote for less
    latency_p99_us   above the limit: in proportion to it, at most double; below it the present number, or one
                     less when even N/(N-1) of it would be below

What is desired must stay on one side of the target for the delay of that side before the target follows. The
side, and since when, are recorded by `Scale` decisions, for a decider has no memory. Going up takes what is
desired when the delay is over, going down the largest of what was desired meanwhile. From zero a waiting
request is enough, at once. To zero the last replica goes alone, after a delay of its own, and not at all when
a cold start, as measured, takes longer than a request may wait. Factors and delays are Ray Serve's.
"""

from typing import NamedTuple

from steersman.model.decisions import Scale
from steersman.model.reasons import Code, Reason, reason
from steersman.model.service import Scaling
from steersman.model.signals import LATENCY, ONGOING, QUEUED
from steersman.model.snapshot import ServiceState, Snapshot

MARGIN_MILLI = 100
"""A smaller number must carry this share more than the load there is: 10 %."""


class Vote(NamedTuple):
    """A number of replicas and why."""

    replicas: int
    reason: Reason


class Verdicts(NamedTuple):
    """The decisions in order of name, and when to look again."""

    decisions: tuple[Scale, ...]
    wake_at_ms: int | None


def autoscale(snapshot: Snapshot) -> Verdicts:
    """Every service whose number of replicas should change, or whose delays begin or end."""
    decisions: list[Scale] = []
    wakes: list[int] = []
    for _, state in snapshot.services.sorted_items():
        if state.removing or state.stop_requested:
            continue
        decision, wake_at_ms = _judge(state, snapshot.now_ms)
        decisions += [] if decision is None else [decision]
        wakes += [] if wake_at_ms is None else [wake_at_ms]
    return Verdicts(tuple(decisions), min(wakes, default=None))


def _judge(state: ServiceState, now_ms: int) -> tuple[Scale | None, int | None]:
    scaling = state.spec.scaling
    vote = desired(state)
    bounded = min(max(state.target, scaling.min_replicas), scaling.max_replicas)
    if bounded != state.target:
        why = reason(Code.SCALE_BOUNDS, least=scaling.min_replicas, most=scaling.max_replicas)
        return _scale(state, Vote(bounded, why), now_ms, bounded), now_ms
    side, before = _side(vote.replicas, state.target), _side(state.desired, state.target)
    if side == 0:
        settled = before == 0
        return (None if settled else _scale(state, vote, now_ms, state.target)), None
    since_ms, wanted = state.desired_ms, vote.replicas
    if side != before:
        since_ms = now_ms
    elif side < 0:
        wanted = max(wanted, state.desired)
        if wanted > state.desired:
            since_ms = now_ms
    due_ms = since_ms + delay_ms(scaling, state.target, wanted)
    if now_ms >= due_ms:
        return _scale(state, vote, now_ms, _step(scaling, state.target, wanted)), now_ms
    moved = side != before or (side < 0 and wanted != state.desired)
    if not moved:
        return None, due_ms
    return _scale(state, Vote(wanted, vote.reason), since_ms, state.target), due_ms


def _side(wanted: int, target: int) -> int:
    return (wanted > target) - (wanted < target)


def _scale(state: ServiceState, vote: Vote, since_ms: int, target: int) -> Scale:
    return Scale(
        workload=state.spec.name,
        desired=vote.replicas if target == state.target else target,
        since_ms=since_ms,
        target=target,
        reason=vote.reason,
    )


def delay_ms(scaling: Scaling, target: int, wanted: int) -> int:
    """How long a wish on one side of the target must last before the target follows."""
    if wanted > target:
        return 0 if target == 0 else scaling.upscale_delay_ms
    return scaling.downscale_to_zero_delay_ms if target == 1 else scaling.downscale_delay_ms


def _step(scaling: Scaling, target: int, wanted: int) -> int:
    """Where the target goes: the factor's share of the way, rounded up; to zero from one only."""
    if target == 0:
        return wanted
    factor = scaling.upscaling_factor_milli if wanted > target else scaling.downscaling_factor_milli
    way = -(-abs(wanted - target) * factor // 1000)
    stepped = target + way if wanted > target else max(target - way, 1 if target > 1 else 0)
    return min(max(stepped, scaling.min_replicas), scaling.max_replicas)


def desired(state: ServiceState) -> Vote:
    """What the signals ask for, within the declared bounds."""
    scaling, target = state.spec.scaling, state.target
    if scaling.min_replicas == scaling.max_replicas:
        return Vote(scaling.min_replicas, reason(Code.SCALE_BOUNDS, replicas=scaling.min_replicas))
    known = {signal.name: signal.value for signal in state.signals}
    if target == 0:
        return _from_zero(known)
    best = max(votes(state), key=lambda vote: vote.replicas)  # of equals the first: load, queue, latency
    bounded = min(max(best.replicas, scaling.min_replicas), scaling.max_replicas)
    if bounded == 0 and _too_slow_from_zero(state):
        facts = {"cold_start_ms": state.cold_start_ms or 0, "timeout_ms": state.spec.limits.timeout_ms}
        return Vote(1, reason(Code.SCALE_COLD_START, **facts))
    return Vote(bounded, best.reason)


def votes(state: ServiceState) -> tuple[Vote, ...]:
    """What each signal asks for, before the declared bounds; from a target of at least one."""
    scaling, target = state.spec.scaling, state.target
    known = {signal.name: signal.value for signal in state.signals}
    found = [_of_load(known.get(ONGOING), scaling, target)]
    if scaling.queued_requests_milli is not None:
        found.append(_of_queue(known.get(QUEUED), scaling.queued_requests_milli, target))
    if scaling.latency_p99_ms is not None:
        found.append(_of_latency(known, scaling.latency_p99_ms, target))
    return tuple(found)


def _too_slow_from_zero(state: ServiceState) -> bool:
    return state.cold_start_ms is not None and state.cold_start_ms >= state.spec.limits.timeout_ms


def _from_zero(known: dict[str, int | None]) -> Vote:
    figures = [value for value in (known.get(ONGOING), known.get(QUEUED)) if value is not None]
    if not figures:
        return _unknown(ONGOING, 0)
    waiting = max(figures)
    return Vote(1 if waiting > 0 else 0, reason(Code.SCALE_DEMAND, ongoing_milli=waiting))


def _unknown(name: str, target: int) -> Vote:
    return Vote(target, reason(Code.SCALE_UNKNOWN, signal=name))


def _of_load(ongoing: int | None, scaling: Scaling, target: int) -> Vote:
    if ongoing is None:
        return _unknown(ONGOING, target)
    each = scaling.target_ongoing_requests_milli
    wanted = -(-ongoing // each)
    if wanted < target:  # the survivors carry all of it
        wanted = min(-(-ongoing * (1000 + MARGIN_MILLI) // (each * 1000)), target)
    return Vote(wanted, reason(Code.SCALE_LOAD, ongoing_milli=ongoing, target_milli=each))


def _of_queue(queued: int | None, each: int, target: int) -> Vote:
    if queued is None:
        return _unknown(QUEUED, target)
    why = reason(Code.SCALE_QUEUE, queued_milli=queued, target_milli=each)
    return Vote(-(-queued // each) if queued > each * target else 0, why)


def _of_latency(known: dict[str, int | None], limit_ms: int, target: int) -> Vote:
    latency = known.get(LATENCY)
    if latency is None and known.get(ONGOING) == 0:
        return Vote(0, reason(Code.SCALE_LOAD, ongoing_milli=0))  # nobody asked: there is no latency
    if latency is None:
        return _unknown(LATENCY, target)
    limit = limit_ms * 1000
    why = reason(Code.SCALE_LATENCY, p99_us=latency, limit_us=limit)
    if latency > limit:
        return Vote(min(-(-target * latency // limit), 2 * target), why)
    fewer_hold = target > 1 and latency * target < limit * (target - 1)
    return Vote(target - 1 if fewer_hold or target == 1 else target, why)
