"""Every way to size a service, tried on its past: virtual fleets with virtual queues. A part of `capacity`.

Theory of operation. Arrivals do not depend on how many replicas there are. What any candidate would have
cost, and how many requests it would have let wait too long, is therefore known exactly from the past: each
has a virtual fleet and a virtual queue that are given the real arrivals and pay the real cold start. There
are two kinds of candidates:

    by rate     forecast x hold x headroom: what the highest forecast of the last so many seconds needs, and
                a share more
    by level    the k-th replica stays for hold / k ** taper since k were last needed, and a spare may stand
                by. Each level is a ski rental of its own: a higher one is needed again less soon (`levels`)

The leader is the candidate of least

    cost * max(1, share / (TIGHT * budget)) ** POWER,    share = (violations + M p) / (requests + M)

which is follow-the-leader with full information (N. Littlestone, M. Warmuth, Inf. Comput. 108, 1994;
N. Cesa-Bianchi, G. Lugosi, Prediction, Learning, and Games, 2006) under a budget of violations. The prior, M
requests that violate with p = PRIOR * exp(-(cost ratio - 1) / PRIOR_SCALE), makes a lean candidate earn its
place by evidence. A request is counted when its wait is judged, so that none violates that does not count.
Costs and violations fade, so that no number grows for ever.
"""

from math import ceil, exp
from typing import NamedTuple

from steersman.decide.forecast import FORECASTS, HOLDS_S, Pace, Past
from steersman.decide.levels import LEVELS, held_levels, needed_again, needed_now

HEADROOMS = (0.0, 0.02, 0.05, 0.09, 0.15, 0.25, 0.4, 0.7)
"""Share added to the held forecast, in steps of about 1.7."""
BY_RATE = FORECASTS * len(HOLDS_S) * len(HEADROOMS)
CANDIDATES = BY_RATE + len(LEVELS)
DRAIN_S = 30
"""Too long a queue is drained in so many seconds once there is capacity; never faster than the SLO."""
WARM = 2
"""Cold starts before anything is judged: what was launched at first sight is ready after one of them."""
PRIOR, PRIOR_SCALE = 0.2, 0.1
"""Share believed to violate in a fleet of exactly the work; for each 10 % more of fleet it falls by e: 0.7 %
at 1.33 times the work. Chosen on the open traces; a scale of 0.05 or 0.15 changes their cost by up to 0.1."""
PRIOR_COLD_STARTS = 5
"""Weight of the prior: the requests of so many cold starts."""
TIGHT = 0.7
"""Share of the budget that candidates may have used in the past; the rest is for what it did not show."""
POWER = 1.0
"""How much cost a candidate over the budget is worth: in proportion."""
MEMORY_S = 3 * 86_400
"""Evidence fades with this time constant: several days, so that every hour of the day counts."""
ROUNDING = 1e-6
"""Replicas: so much less than a whole one is no need for one more."""


class Service(NamedTuple):
    """What is declared or measured of a service."""

    pace: Pace
    capacity_milli: int  # work that a replica does in a second
    min_replicas: int
    max_replicas: int
    budget_ppm: int  # requests in a million that may wait longer than the SLO


class Tick(NamedTuple):
    """What is seen at the end of a tick."""

    work_milli: int  # came in this tick
    requests: int  # came in this tick
    backlog_milli: int  # waits now
    ready: int
    replicas: int  # ready and starting


class Choice(NamedTuple):
    """A candidate by rate, as places in the tables of forecasts, holds and HEADROOMS."""

    forecast: int
    hold: int
    headroom: int


class Leader(NamedTuple):
    """The candidate to follow: its cost over that of the pure work, and its believed share of violations."""

    candidate: int
    cost_ratio: float
    share: float


class Fleets(NamedTuple):
    """The candidates' virtual fleets and what they came to; bounded by cold start and SLO in ticks."""

    replicas: tuple[tuple[int, ...], ...]  # by tick of the last cold start, oldest first, then by candidate
    needed: tuple[int, ...]  # by level, from 1: the tick in which so many replicas were last needed
    queues_milli: tuple[int, ...]
    costs: tuple[float, ...]  # faded replica-ticks
    violations: tuple[float, ...]  # faded requests
    counts: tuple[int, ...]  # requests of the last ticks that may still wait, oldest first
    requests: float  # faded, whose wait is judged
    work: float  # faded, in replica-ticks


class _Standing(NamedTuple):
    """What the next numbers go by."""

    needed: tuple[int, ...]
    queues_milli: tuple[int, ...]
    ready: tuple[int, ...]


class _Due(NamedTuple):
    """Requests whose wait is judged now: the work that came after theirs, theirs, and how many they are."""

    later_milli: int
    work_milli: int
    requests: int


def fleets_of(service: Service, replicas: int) -> Fleets:
    """Before the first tick: every candidate has the replicas that there are."""
    span = -(-service.pace.cold_start_s // service.pace.tick_s) + 1
    zero = (0.0,) * CANDIDATES
    return Fleets(((replicas,) * CANDIDATES,) * span, (), (0,) * CANDIDATES, zero, zero, (), 0.0, 0.0)


def choice(candidate: int) -> Choice:
    """What a candidate by rate is."""
    rest, headroom = divmod(candidate, len(HEADROOMS))
    forecast, hold = divmod(rest, len(HOLDS_S))
    return Choice(forecast, hold, headroom)


def is_warming(past: Past, service: Service) -> bool:
    """Whether so little time has passed that nothing is judged and nothing scaled in."""
    return past.ticks * service.pace.tick_s <= WARM * service.pace.cold_start_s


def run(fleets: Fleets, past: Past, service: Service, tick: Tick) -> Fleets:
    """One tick of every candidate: it serves, counts, pays, and sets its next number."""
    pace, each = service.pace, service.capacity_milli * service.pace.tick_s
    late = max(0, pace.slo_s // pace.tick_s - 1)
    counts = (*fleets.counts, tick.requests)[-late - 1 :]
    ready = tuple(map(min, zip(*fleets.replicas, strict=True)))
    came = tick.work_milli
    queues = tuple(
        [max(0, queue + came - have * each) for queue, have in zip(fleets.queues_milli, ready, strict=True)]
    )
    needed = needed_again(fleets.needed, past, service.capacity_milli)
    following = _numbers(past, service, _Standing(needed, queues, ready))
    done = fleets._replace(
        replicas=(*fleets.replicas[1:], following), needed=needed, queues_milli=queues, counts=counts
    )
    if is_warming(past, service):
        return done
    fade, due = exp(-pace.tick_s / MEMORY_S), _due(past, counts, late)
    paid = zip(fleets.costs, fleets.replicas[-1], strict=True)
    return done._replace(
        costs=tuple([cost * fade + have for cost, have in paid]),
        violations=_violations(fleets.violations, queues, due, fade),
        requests=fleets.requests * fade + due.requests,
        work=fleets.work * fade + came / each,
    )


def stand(fleets: Fleets, replicas: int, backlog_milli: int) -> Fleets:
    """Every candidate where the service itself stands."""
    return fleets._replace(
        replicas=(*fleets.replicas[:-1], (replicas,) * CANDIDATES), queues_milli=(backlog_milli,) * CANDIDATES
    )


def drained(rate_milli: float, backlog_milli: float, service: Service) -> float:
    """Rate that serves new arrivals and drains what waits."""
    return rate_milli + backlog_milli / max(DRAIN_S, service.pace.slo_s)


def is_long(backlog_milli: int, ready: int, service: Service) -> bool:
    """Whether what waits takes these replicas longer than half of the SLO."""
    return backlog_milli > service.capacity_milli * service.pace.slo_s / 2 * max(ready, 1)


def lead(fleets: Fleets, past: Past, service: Service, before: Leader) -> Leader:
    """The candidate of least score, of equals the first; the one before while there is no evidence."""
    if fleets.work <= 0 or fleets.requests <= 0:
        return before
    cold_s = service.pace.cold_start_s
    seen_s = min(past.ticks * service.pace.tick_s - WARM * cold_s, MEMORY_S)
    prior = fleets.requests * PRIOR_COLD_STARTS * cold_s / seen_s
    total, tolerated = fleets.requests + prior, TIGHT * service.budget_ppm / 1e6
    best, leader = float("inf"), before
    for candidate, (cost, late) in enumerate(zip(fleets.costs, fleets.violations, strict=True)):
        ratio = cost / fleets.work
        share = (late + prior * min(1.0, PRIOR * exp((1 - ratio) / PRIOR_SCALE))) / total
        score = cost * max(1.0, share / tolerated) ** POWER
        if score < best:
            best, leader = score, Leader(candidate, ratio, share)
    return leader


def _due(past: Past, counts: tuple[int, ...], late: int) -> _Due:
    if len(past.sums) < late + 2 or len(counts) <= late:
        return _Due(0, 0, 0)
    until = past.sums[-1 - late]
    return _Due(past.sums[-1] - until, until - past.sums[-2 - late], counts[-1 - late])


def _violations(
    before: tuple[float, ...], queues: tuple[int, ...], due: _Due, fade: float
) -> tuple[float, ...]:
    """With what was due and still waits; a tick's requests are first in, first out, and alike in work."""
    if not due.work_milli:
        return tuple([one * fade for one in before])
    later, work, requests = due
    return tuple(
        [
            one * fade + (requests * min(1.0, (queue - later) / work) if queue > later else 0.0)
            for one, queue in zip(before, queues, strict=True)
        ]
    )


def _numbers(past: Past, service: Service, standing: _Standing) -> tuple[int, ...]:
    """The next number of each candidate."""
    capacity, low, high = service.capacity_milli, service.min_replicas, service.max_replicas
    floors = [max(series[-1]) for series in past.holds]
    rates = [
        (max(max(series[at]) * (1 + more), floor), past.now[at])
        for at in range(FORECASTS)
        for series, floor in zip(past.holds, floors, strict=True)
        for more in HEADROOMS
    ]
    now = needed_now(past, capacity)
    held = held_levels(standing.needed, past, service.pace.tick_s, now)
    rates += [(number * capacity, past.minute) for number in held]
    found = []
    for (rate, now_milli), queue, have in zip(rates, standing.queues_milli, standing.ready, strict=True):
        need = max(rate, drained(now_milli, queue, service)) if is_long(queue, have, service) else rate
        found.append(min(max(ceil(need / capacity - ROUNDING), low), high))
    return tuple(found)
