"""How many replicas a service needs: follow the best of many small policies, each tried on its own past.

Theory of operation. `forecast` says what may come, `backtest` how each candidate (forecast x hold x headroom,
or a hold by level) would have done so far and which one leads. The target is the leader's number, and around
it:

    backlog    a queue that waits longer than half of the SLO is drained beside the new arrivals
    lasting    a smaller target must have lasted most of a cold start: the leader may change while the queue
               is that of its predecessor
    unseen     a load that is higher than ever is no load on which a candidate was tried: it may rise faster
    warm-up    for two cold starts nothing is scaled in, and there is a margin over the last minute at which
               the prior of `backtest` believes the budget to be kept; not in a service that may go to zero

Every decision is a function of the state and what was seen: `observe` folds one tick into a state that is
frozen and bounded, `decide` reads it. All counts are integers; work is in thousandths of a unit.
"""

from math import ceil, log
from typing import NamedTuple

from steersman.decide.backtest import (
    BY_RATE,
    HEADROOMS,
    PRIOR,
    PRIOR_SCALE,
    TIGHT,
    Fleets,
    Leader,
    Service,
    Tick,
    choice,
    drained,
    fleets_of,
    is_long,
    is_warming,
    lead,
    run,
    stand,
)
from steersman.decide.forecast import MEANS_S, MINUTE_S, NOTHING, WINDOWS_S, Past, come, hold_ticks
from steersman.decide.levels import LEVELS

TICK_S_MAX = 5
"""A service is looked at this often; twice as often changes no cost by more than 0.02."""
LASTING = 0.75
"""Share of a cold start that a smaller target must have lasted. With a half, variations of one hour of bursts
violated half as much again; the whole costs them 0.01 more."""


HISTORY_S = 3_600
"""With less history nothing is told by a load that is higher than ever."""
UNSEEN_RISE = 0.05
"""Share by which a load that is higher than ever may rise in a minute, until a replica that is begun now is
ready. What is known of loads that were there before is in `backtest`."""


class State(NamedTuple):
    """All that is remembered of a service."""

    past: Past
    fleets: Fleets
    wanted: tuple[int, ...]  # numbers wanted in the last part of a cold start, oldest first
    leader: Leader
    target: int


class Capacity(NamedTuple):
    """A number of replicas, and why: `warm-up`, `unseen`, `held` or `forecast`, with the figures behind it.

    `_milli` facts are rates in thousandths of a unit a second, or shares in thousandths.
    """

    target: int
    code: str
    facts: tuple[tuple[str, int], ...]


def tick_of(slo_s: int) -> int:
    """Seconds between looks: TICK_S_MAX, or half of the SLO if that is less."""
    return max(1, min(TICK_S_MAX, slo_s // 2))


def start(service: Service, replicas: int) -> State:
    """Before the first tick, with the replicas that there are."""
    return State(NOTHING, fleets_of(service, replicas), (), Leader(0, 0.0, 0.0), replicas)


def observe(state: State, service: Service, tick: Tick) -> State:
    """The state after one more tick, with the target in it."""
    past = come(state.past, service.pace, tick.work_milli)
    fleets = run(state.fleets, past, service, tick)
    leader = lead(fleets, past, service, state.leader)
    warm = is_warming(past, service)
    wanted = _wanted(fleets, past, service, tick, leader)
    target = max(wanted, min(max(state.wanted, default=0), tick.replicas))
    if warm and service.min_replicas > 0:
        target = max(tick.replicas, target, _unknown(past, service))
    elif is_unseen(past, service):
        target = max(target, _rising(past, service))
    target = min(max(target, service.min_replicas), service.max_replicas)
    kept = lasting_ticks(service)
    tried = stand(fleets, target, tick.backlog_milli) if warm else fleets
    return State(past, tried, (*state.wanted, wanted)[-kept:], leader, target)


def decide(state: State, service: Service) -> Capacity:
    """The target and its reasons."""
    facts = (
        *_followed(state, service),
        ("cold_start_s", service.pace.cold_start_s),
        ("cost_over_work_milli", round(1_000 * state.leader.cost_ratio)),
        ("violations_ppm", round(1_000_000 * state.leader.share)),
    )
    return Capacity(state.target, _code(state, service), facts)


def lasting_ticks(service: Service) -> int:
    """Ticks that a smaller target must have been wanted."""
    return max(1, int(LASTING * service.pace.cold_start_s) // service.pace.tick_s)


def _followed(state: State, service: Service) -> tuple[tuple[str, int], ...]:
    """What the leader goes by."""
    past, candidate = state.past, state.leader.candidate
    if candidate >= BY_RATE:
        level = LEVELS[candidate - BY_RATE]
        held = state.fleets.replicas[-1][candidate] - level.spare
        return (
            ("forecast_milli", round(past.minute)),
            ("held_milli", max(0, held) * service.capacity_milli),
            ("headroom_milli", 1_000 * level.spare // max(1, held)),
            ("window_s", MEANS_S[-1]),
            ("hold_s", level.hold_s),
        )
    forecast, hold, headroom = choice(candidate)
    return (
        ("forecast_milli", round(past.now[forecast])),
        ("held_milli", round(max(past.holds[hold][forecast]))),
        ("headroom_milli", round(1_000 * HEADROOMS[headroom])),
        ("window_s", WINDOWS_S[forecast]),
        ("hold_s", hold_ticks(service.pace)[hold] * service.pace.tick_s),
    )


def _code(state: State, service: Service) -> str:
    if is_warming(state.past, service):
        return "warm-up"
    if is_unseen(state.past, service) and state.target <= _rising(state.past, service):
        return "unseen"
    return "held" if state.wanted and state.target > state.wanted[-1] else "forecast"


def _wanted(fleets: Fleets, past: Past, service: Service, tick: Tick, leader: Leader) -> int:
    """The leader's number, or what the real queue needs if that is more."""
    wanted = fleets.replicas[-1][leader.candidate]
    if not is_long(tick.backlog_milli, tick.ready, service):
        return wanted
    by_level = leader.candidate >= BY_RATE
    now = past.minute if by_level else past.now[choice(leader.candidate).forecast]
    rate = drained(now, tick.backlog_milli, service)
    return max(wanted, ceil(rate / service.capacity_milli))


def is_unseen(past: Past, service: Service) -> bool:
    """Whether more work comes than ever before the last ten minutes; not in a service that may go to zero."""
    long = past.ticks * service.pace.tick_s >= HISTORY_S
    return long and service.min_replicas > 0 and past.minute > past.record


def _rising(past: Past, service: Service) -> int:
    """What a rise needs at the end of a cold start."""
    rate = past.minute * (1 + UNSEEN_RISE * service.pace.cold_start_s / MINUTE_S)
    return ceil(rate / service.capacity_milli)


def _unknown(past: Past, service: Service) -> int:
    """What keeps the budget as far as the prior knows."""
    margin = PRIOR_SCALE * log(max(1.0, PRIOR / (TIGHT * service.budget_ppm / 1e6)))
    return ceil(past.minute * (1 + margin) / service.capacity_milli)
