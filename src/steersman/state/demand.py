"""Arrivals added up into ticks: how time passes for the services that have a forecast.

Theory of operation. See `model.demand`. A service is touched when a tick of it ends, or when its arrivals
change, and at no other time. What a tick is told of queue and replicas is what is known at its end.
"""

from msgspec.structs import replace

from steersman.model.decisions import Learn
from steersman.model.demand import TICK_MS, TICKS_KEPT_MAX, Demand, Ticks
from steersman.model.ids import WorkloadName
from steersman.model.signals import ARRIVALS, QUEUED
from steersman.model.snapshot import RunState, ServiceState, SignalValue
from steersman.state.draft import Draft

PER_MILLI = 1_000
"""Thousandths of a request a second, times milliseconds, in a thousandth of a request."""


def pass_time(draft: Draft) -> None:
    """End the ticks that are over by now."""
    for entry in draft.foreseen.since(()):
        state = draft.services[entry[0]]
        after = _passed(draft, state)
        if after is not state.demand:
            draft.services[entry[0]] = replace(state, demand=after)


def _passed(draft: Draft, state: ServiceState) -> Demand | None:
    demand, now_ms = state.demand, draft.now_ms
    if demand is None or _known(state.signals, ARRIVALS) is None:
        return demand
    if demand.open_ms is None:
        return replace(demand, open_ms=now_ms, at_ms=now_ms, came=0, moved_ms=now_ms)
    return _ended(draft, state, demand, demand.open_ms) if now_ms - demand.open_ms >= TICK_MS else demand


def hear(before: ServiceState, after: ServiceState, now_ms: int) -> ServiceState:
    """The service after news of its signals: what came at the old rate is counted, the new one holds."""
    old, new = _known(before.signals, ARRIVALS), _known(after.signals, ARRIVALS)
    demand = after.demand
    if old == new or demand is None:
        return after
    if new is None:
        return replace(after, demand=replace(demand, open_ms=None, moved_ms=now_ms))
    if demand.open_ms is None:
        return replace(after, demand=replace(demand, open_ms=now_ms, at_ms=now_ms, came=0, moved_ms=now_ms))
    came = demand.came + (old or 0) * (now_ms - demand.at_ms)
    return replace(after, demand=replace(demand, at_ms=now_ms, came=came, moved_ms=now_ms))


def stand_still(draft: Draft) -> None:
    """Nobody has looked since the last event: open ticks are dropped, and begin anew with the next look."""
    for entry in draft.foreseen.since(()):
        state = draft.services[entry[0]]
        if state.demand is not None and state.demand.open_ms is not None:
            draft.services[entry[0]] = replace(state, demand=replace(state.demand, open_ms=None))


def learn(draft: Draft, decision: Learn) -> None:
    """What has been learnt of is not kept any longer."""
    state = draft.services[decision.workload]
    demand = state.demand
    assert demand is not None, decision.workload
    over = decision.learned.ticks - demand.first
    kept = _without(demand.ticks, over)
    after = replace(demand, first=demand.first + over, ticks=kept, learned=decision.learned)
    draft.services[decision.workload] = replace(state, demand=after)


def _known(signals: tuple[SignalValue, ...], name: str) -> int | None:
    return next((signal.value for signal in signals if signal.name == name), None)


def _ended(draft: Draft, state: ServiceState, demand: Demand, open_ms: int) -> Demand:
    """The first tick ends with what came before in it; the others, if more time has passed, are all alike."""
    rate = _known(state.signals, ARRIVALS) or 0
    count = (draft.now_ms - open_ms) // TICK_MS
    work, rest = divmod(demand.came + rate * (open_ms + TICK_MS - demand.at_ms), PER_MILLI)
    ready, replicas = _replicas(draft, state)
    first = Ticks(
        count=1,
        work_milli=work,
        backlog_milli=_known(state.signals, QUEUED) or 0,
        ready=ready,
        replicas=replicas,
    )
    ticks = _joined(demand.ticks, first)
    if count > 1:
        alike = replace(first, count=count - 1, work_milli=rate * TICK_MS // PER_MILLI)
        ticks = _joined(ticks, alike)
    began_ms = open_ms + count * TICK_MS
    over = max(sum(run.count for run in ticks) - TICKS_KEPT_MAX, 0)
    return replace(
        demand,
        open_ms=began_ms,
        at_ms=began_ms,
        came=rest,
        first=demand.first + over,
        ticks=_without(ticks, over),
    )


def _joined(ticks: tuple[Ticks, ...], run: Ticks) -> tuple[Ticks, ...]:
    if ticks and replace(ticks[-1], count=run.count) == run:
        return (*ticks[:-1], replace(run, count=ticks[-1].count + run.count))
    return (*ticks, run)


def _without(ticks: tuple[Ticks, ...], count: int) -> tuple[Ticks, ...]:
    """All but the first so many ticks."""
    at = 0
    while count > 0 and ticks[at].count <= count:
        count -= ticks[at].count
        at += 1
    if not count:
        return ticks[at:]
    return (replace(ticks[at], count=ticks[at].count - count), *ticks[at + 1 :])


def _replicas(draft: Draft, state: ServiceState) -> tuple[int, int]:
    """How many answer, and how many there are, without those that go."""
    names: list[WorkloadName] = [ref.name for ref in state.replicas if not ref.retiring]
    runs = [draft.run_of(draft.workloads[name]) for name in names]
    ready = [run for run in runs if run is not None and run.ready_ms is not None]
    return sum(run.state is RunState.RUNNING for run in ready), len(names)
