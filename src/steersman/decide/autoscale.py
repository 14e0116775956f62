"""How many replicas a service should have: the largest of what signals, forecast and schedule ask for.

Theory of operation. Each signal and metric votes for a number (`votes`), the forecast of what is to come for
another (`foresight`), and the largest vote wins, so that nothing that is quiet lowers what another asks for.
The forecast is thus a lower bound: it has replicas ready when the load comes, and never takes one away that
the load of now needs. A schedule raises the declared least while its time lasts. What is unknown holds.

What is desired must stay on one side of the target for the delay of that side before the target follows. The
side, and since when, are recorded by `Scale` decisions, for a decider has no memory. Going up takes what is
desired when the delay is over, going down the largest of what was desired meanwhile. From zero a waiting
request is enough, at once. To zero the last replica goes alone, after a delay of its own, and not at all when
a cold start, as measured, takes longer than a request may wait. Factors and delays are Ray Serve's.
"""

from typing import NamedTuple

from msgspec.structs import replace

from steersman.decide.foresight import Foresight, Memo, capacity_of, due, foresee, is_known, look_at_ms
from steersman.decide.votes import Vote, unknown, votes
from steersman.model.cron import last_ms, next_ms, parse_cron
from steersman.model.decisions import Learn, Scale
from steersman.model.reasons import Code, reason
from steersman.model.service import Scaling, Window
from steersman.model.signals import ARRIVALS
from steersman.model.snapshot import ServiceState, Snapshot


class Ballot(NamedTuple):
    """Every vote, and what the one of the forecast is made of."""

    votes: tuple[Vote, ...]
    foresight: Foresight | None


class Verdicts(NamedTuple):
    """The decisions in order of name, and when to look again."""

    decisions: tuple[Scale | Learn, ...]
    wake_at_ms: int | None


def autoscale(snapshot: Snapshot, memo: Memo | None = None) -> Verdicts:
    """Every service whose number of replicas should change, or whose delays begin or end."""
    decisions: list[Scale | Learn] = []
    wakes: list[int | None] = []
    for _, declared in snapshot.services.sorted_items():
        if declared.removing or declared.stop_requested:
            continue
        state = in_force(declared, snapshot.now_ms)
        found = ballot(snapshot, state, memo)
        decision, wake_at_ms = _judge(state, _chosen(state, found.votes), snapshot.now_ms)
        decisions += [] if decision is None else [decision]
        wakes += [wake_at_ms, _window_ends_ms(declared, snapshot.now_ms)]
        if found.foresight is not None:
            decisions += _learn(declared, found.foresight)
        wakes.append(look_at_ms(declared, snapshot.now_ms))
    return Verdicts(tuple(decisions), min((at for at in wakes if at is not None), default=None))


def ballot(snapshot: Snapshot, state: ServiceState, memo: Memo | None = None) -> Ballot:
    """What everything asks for, before the bounds that are in force."""
    found = votes(snapshot, state)
    foresight = foresee(state, snapshot.now_ms, memo)
    if foresight is None:
        return Ballot(found, None)
    return Ballot((*found, _of_forecast(state, foresight)), foresight)


def _of_forecast(state: ServiceState, foresight: Foresight) -> Vote:
    if not is_known(state):
        return unknown(ARRIVALS, state.target)
    target, code, facts = capacity_of(foresight)
    figures = dict(facts)
    return Vote(
        target,
        reason(
            Code.SCALE_FORECAST,
            state=code,
            expected_milli=max(figures["forecast_milli"], figures["held_milli"]),
            headroom_milli=figures["headroom_milli"],
            capacity_milli=foresight.sizing.capacity_milli,
        ),
    )


def _learn(state: ServiceState, foresight: Foresight) -> list[Learn]:
    learned = due(state, foresight)
    if learned is None:
        return []
    why = reason(
        Code.FORECAST_LEARNED,
        capacity_milli=learned.sizing.capacity_milli,
        cold_start_s=learned.sizing.cold_start_s,
    )
    return [Learn(workload=state.spec.name, learned=learned, reason=why)]


# The schedule.


def in_force(state: ServiceState, now_ms: int) -> ServiceState:
    """The service with the least number of replicas that its schedule asks for now."""
    scaling = state.spec.scaling
    least = max((window.min_replicas for window in _open(scaling, now_ms)), default=0)
    if least <= scaling.min_replicas:
        return state
    raised = replace(scaling, min_replicas=least, max_replicas=max(scaling.max_replicas, least))
    return replace(state, spec=replace(state.spec, scaling=raised))


def _open(scaling: Scaling, now_ms: int) -> list[Window]:
    return [window for window in scaling.schedule if now_ms < _end_ms(window, now_ms)]


def _end_ms(window: Window, now_ms: int) -> int:
    """When the window that began last ends, or did."""
    return last_ms(parse_cron(window.cron), now_ms, window.offset_minutes) + window.duration_ms


def _window_ends_ms(state: ServiceState, now_ms: int) -> int | None:
    """When the next window of the schedule begins or ends."""
    found = []
    for window in state.spec.scaling.schedule:
        end_ms = _end_ms(window, now_ms)
        begins_ms = next_ms(parse_cron(window.cron), now_ms, window.offset_minutes)
        found.append(end_ms if now_ms < end_ms else begins_ms)
    return min(found, default=None)


# Delays and steps.


def _judge(state: ServiceState, vote: Vote, now_ms: int) -> tuple[Scale | None, int | None]:
    scaling = state.spec.scaling
    bounded = min(max(state.target, scaling.min_replicas), scaling.max_replicas)
    if bounded != state.target:
        code = Code.SCALE_SCHEDULE if _open(scaling, now_ms) and bounded > state.target else Code.SCALE_BOUNDS
        why = reason(code, least=scaling.min_replicas, most=scaling.max_replicas)
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


def desired(snapshot: Snapshot, declared: ServiceState) -> Vote:
    """What is asked for now, within the bounds that are in force."""
    state = in_force(declared, snapshot.now_ms)
    return _chosen(state, ballot(snapshot, state).votes)


def _chosen(state: ServiceState, found: tuple[Vote, ...]) -> Vote:
    """The largest vote, within the bounds; of equals the first."""
    scaling = state.spec.scaling
    if scaling.min_replicas == scaling.max_replicas:
        return Vote(scaling.min_replicas, reason(Code.SCALE_BOUNDS, replicas=scaling.min_replicas))
    best = max(found, key=lambda vote: vote.replicas)
    bounded = min(max(best.replicas, scaling.min_replicas), scaling.max_replicas)
    if bounded == 0 and state.target > 0 and _too_slow_from_zero(state):
        facts = {"cold_start_ms": state.cold_start_ms or 0, "timeout_ms": state.spec.limits.timeout_ms}
        return Vote(1, reason(Code.SCALE_COLD_START, **facts))
    return Vote(bounded, best.reason)


def _too_slow_from_zero(state: ServiceState) -> bool:
    return state.cold_start_ms is not None and state.cold_start_ms >= state.spec.limits.timeout_ms
