"""The forecast of a service, live: what `capacity` makes of the ticks that the snapshot keeps.

Theory of operation. A decider has no memory. What the policy had learnt is recorded now and then by a `Learn`
decision, with the figures it sizes by from there on; the ticks that came since are in the snapshot. Both
together give its state now, whoever works it out. That takes up to LEARN_TICKS steps of the policy, so the
engine keeps a `Memo`: it spares the steps that were made already, may be thrown away at any time, and changes
no answer.

The longer the arrivals have not changed, the rarer one looks (`looked_ms`), and after SETTLED_MS not at all:
a steady load wakes nobody. Ticks that ended since the last look count when there is a reason for the next.

What a service is sized by stays what it is between two `Learn` decisions, and one is due when a figure has
moved. The cold start is the slowest of the last ones within a factor of two, for the evidence is of fleets
that pay it: when it is another, or the objective is, evidence is gathered anew. Without a measured capacity
and cold start there is no forecast.
"""

from typing import NamedTuple

import msgspec

from steersman.decide.backtest import Service, Tick
from steersman.decide.capacity import Capacity, State, decide, observe, start
from steersman.decide.forecast import Pace
from steersman.model.demand import TICK_MS, Demand, Learned, Sizing, Ticks
from steersman.model.ids import WorkloadName
from steersman.model.signals import ARRIVALS, CAPACITY
from steersman.model.snapshot import ServiceState

TICK_S = TICK_MS // 1_000
LEARN_TICKS, RESIZE_TICKS = 360, 12
"""What was learnt is recorded after so many ticks: half an hour; after a minute when a figure has moved."""
POLICY = 3
"""Raised whenever what `capacity.State` remembers changes its shape or meaning: evidence begins anew."""
SLO_S_MIN = 2 * TICK_S
"""What waits shorter than two ticks, ticks cannot tell; signals of load look after it."""
BUDGET_PPM = 10_000
"""One request in a hundred may wait longer: what the 99th percentile says."""
COLD_START_S_MAX = 3_600
SETTLED_MS = TICK_MS << 11
"""2.8 hours. Arrivals that have not changed for longer than any hold of a forecast give no other number with
time. A look falls on it."""
PATIENCE = 4
"""One looks about so many times while the time without a change doubles."""


class Foresight(NamedTuple):
    """The policy's state after all ticks before number `ticks`, under `sizing`."""

    state: State
    sizing: Sizing
    carry_milli: int
    ticks: int


class Kept(NamedTuple):
    """A foresight, and what the past was that it is of."""

    key: tuple[int, int, int]
    foresight: Foresight


class Memo:
    """What was worked out last for each service. A disposable copy: without it the answers are the same."""

    def __init__(self) -> None:
        self.known: dict[WorkloadName, Kept] = {}


def foresee(state: ServiceState, now_ms: int, memo: Memo | None = None) -> Foresight | None:
    """What is known of what will come; None: not enough is."""
    demand = state.demand
    if demand is None:
        return None
    until = _counted(demand, now_ms)
    learned, name = demand.learned, state.spec.name
    if learned is None or memo is None:
        begun = _begun(state, demand)
        return None if begun is None else _caught_up(begun, demand, until)
    # A later declaration, a later `Learn`, or ticks that were dropped: what is known is of another past.
    key, known = (state.declared_at, learned.ticks, demand.first), memo.known.get(name)
    usable = known is not None and known.key == key and known.foresight.ticks <= until
    begun = known.foresight if known is not None and usable else _remembered(state, learned)
    found = _caught_up(begun, demand, until)
    memo.known[name] = Kept(key, found)
    return found


def capacity_of(foresight: Foresight) -> Capacity:
    """The number of replicas that the forecast asks for, and why."""
    return decide(foresight.state, _service(foresight.sizing))


def due(state: ServiceState, foresight: Foresight) -> Learned | None:
    """What is to be recorded now, if anything is."""
    demand, sizing = state.demand, sizing_of(state, foresight.sizing)
    assert demand is not None, state.spec.name
    assert sizing is not None, state.spec.name  # what was measured once stays known
    if demand.learned is not None:
        wait = LEARN_TICKS if sizing == foresight.sizing else RESIZE_TICKS
        if foresight.ticks - demand.learned.ticks < wait:
            return None
    if _service(sizing).pace != _service(foresight.sizing).pace:
        foresight = foresight._replace(state=start(_service(sizing), state.target))
    evidence = msgspec.json.encode(foresight.state).decode()
    return Learned(
        policy=POLICY,
        sizing=sizing,
        evidence=evidence,
        carry_milli=foresight.carry_milli,
        ticks=foresight.ticks,
    )


def looked_ms(demand: Demand, now_ms: int) -> int:
    """How long after their last change the arrivals were last looked at; tick by tick, then ever rarer."""
    still_ms = min(now_ms - demand.moved_ms, SETTLED_MS)
    return still_ms // _step_ms(still_ms) * _step_ms(still_ms)


def look_at_ms(state: ServiceState, now_ms: int) -> int | None:
    """When to look again though nothing was heard. None: not before something is."""
    demand = state.demand
    if demand is None or demand.open_ms is None or now_ms - demand.moved_ms >= SETTLED_MS:
        return None
    if demand.learned is None and sizing_of(state, None) is None:
        return None
    return demand.moved_ms + looked_ms(demand, now_ms) + _step_ms(now_ms - demand.moved_ms)


def _step_ms(still_ms: int) -> int:
    """The time between two looks. Each is a multiple of the shorter ones: no look is ever taken back."""
    step_ms = TICK_MS
    while step_ms * 2 * PATIENCE <= still_ms:
        step_ms *= 2
    return step_ms


def sizing_of(state: ServiceState, before: Sizing | None) -> Sizing | None:
    """What the service is to be sized by, given what it was. None: it has not been measured."""
    known = {signal.name: signal.value for signal in state.signals}
    capacity_milli = known.get(CAPACITY) or (None if before is None else before.capacity_milli)
    if capacity_milli is None or state.cold_start_ms is None:
        return None
    scaling = state.spec.scaling
    return Sizing(
        capacity_milli=capacity_milli,
        slo_s=max(SLO_S_MIN, -(-(scaling.latency_p99_ms or 0) // 1_000)),
        cold_start_s=_cold_start_s(state.cold_start_ms, before),
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        budget_ppm=BUDGET_PPM,
    )


def is_known(state: ServiceState) -> bool:
    """Whether it is known now what comes."""
    return any(signal.name == ARRIVALS and signal.value is not None for signal in state.signals)


def _cold_start_s(measured_ms: int, before: Sizing | None) -> int:
    measured_s = min(max(-(-measured_ms // 1_000), 1), COLD_START_S_MAX)
    kept_s = measured_s if before is None else before.cold_start_s
    return kept_s if measured_s <= kept_s <= 2 * measured_s else measured_s


def _begun(state: ServiceState, demand: Demand) -> Foresight | None:
    """Where to go on from: what was recorded, or the first tick that is kept."""
    if demand.learned is not None:
        return _remembered(state, demand.learned)
    sizing = sizing_of(state, None)
    if sizing is None or not demand.ticks:
        return None
    return Foresight(start(_service(sizing), demand.ticks[0].replicas), sizing, 0, demand.first)


def _remembered(state: ServiceState, learned: Learned) -> Foresight:
    if learned.policy == POLICY:
        known = msgspec.json.decode(learned.evidence, type=State)
    else:  # another build's policy remembers otherwise
        known = start(_service(learned.sizing), state.target)
    return Foresight(known, learned.sizing, learned.carry_milli, learned.ticks)


def _counted(demand: Demand, now_ms: int) -> int:
    """The number of the first tick that had not ended when one looked last."""
    if demand.open_ms is None:
        return demand.end
    since_ms = demand.open_ms - (demand.moved_ms + looked_ms(demand, now_ms))
    return demand.end - max(-(-since_ms // TICK_MS), 0)


def _caught_up(foresight: Foresight, demand: Demand, until: int) -> Foresight:
    """After all ticks before that number."""
    service, (state, sizing, carry_milli, ticks) = _service(foresight.sizing), foresight
    begin = demand.first
    for run in demand.ticks:
        end = min(begin + run.count, until)
        ticks = max(ticks, begin)
        while ticks < end:
            requests, carry_milli = divmod(carry_milli + run.work_milli, 1_000)
            state = observe(state, service, _tick(run, requests))
            ticks += 1
        begin += run.count
    return Foresight(state, sizing, carry_milli, ticks)


def _tick(run: Ticks, requests: int) -> Tick:
    return Tick(
        work_milli=run.work_milli,
        requests=requests,
        backlog_milli=run.backlog_milli,
        ready=run.ready,
        replicas=run.replicas,
    )


def _service(sizing: Sizing) -> Service:
    return Service(
        pace=Pace(slo_s=sizing.slo_s, cold_start_s=sizing.cold_start_s, tick_s=TICK_S),
        capacity_milli=sizing.capacity_milli,
        min_replicas=sizing.min_replicas,
        max_replicas=sizing.max_replicas,
        budget_ppm=sizing.budget_ppm,
    )
