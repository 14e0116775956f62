"""Laws of `decide.capacity`. Each plays a service through its ticks and asserts."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

from steersman.decide import backtest, capacity
from steersman.decide.backtest import Service, Tick
from steersman.decide.capacity import State
from steersman.decide.forecast import Pace

Seen = tuple[int, int]
"""Requests in a tick, and how many of the replicas are ready, in tenths."""


class Play(NamedTuple):
    """A service, and what it sees."""

    service: Service
    ticks: Sequence[Seen]


def service(slo_s: int = 10, cold_s: int = 60, least: int = 1, most: int = 20) -> Service:
    """One of capacity 1 a second."""
    return Service(Pace(slo_s, cold_s, capacity.tick_of(slo_s)), 1_000, least, most, 1_000)


def steps(play: Play) -> Iterator[tuple[State, Tick, State]]:
    """State before, what is seen, state after; the queue is real, the replicas obey at once."""
    state, backlog = capacity.start(play.service, play.service.min_replicas), 0
    for requests, tenths in play.ticks:
        ready = state.target * tenths // 10
        served = ready * play.service.capacity_milli * play.service.pace.tick_s
        backlog = max(0, backlog + requests * 1_000 - served)
        tick = Tick(requests * 1_000, requests, backlog, ready, state.target)
        after = capacity.observe(state, play.service, tick)
        yield state, tick, after
        state = after


def in_bounds(play: Play) -> None:
    """The target is between the fewest and the most."""
    for _, _, after in steps(play):
        assert play.service.min_replicas <= after.target <= play.service.max_replicas


def same_again(play: Play) -> None:
    """The same ticks, the same decisions."""
    first, second = ([capacity.decide(after, play.service) for *_, after in steps(play)] for _ in range(2))
    assert first == second


def warm_never_shrinks(play: Play) -> None:
    """A service that keeps a replica is not scaled in while nothing is known of it."""
    for _, tick, after in steps(play):
        if play.service.min_replicas and backtest.is_warming(after.past, play.service):
            assert after.target >= min(tick.replicas, play.service.max_replicas)


def shrinking_lasts(play: Play) -> None:
    """A target below the present one is not below anything that was wanted in the last half cold start."""
    for before, tick, after in steps(play):
        recent = max(before.wanted, default=0)
        assert after.target >= min(recent, tick.replicas)


def queues_are_drained(play: Play) -> None:
    """A queue that is too long gets what drains it, as far as there may be replicas."""
    for _, tick, after in steps(play):
        if backtest.is_long(tick.backlog_milli, tick.ready, play.service):
            seconds = max(backtest.DRAIN_S, play.service.pace.slo_s)
            enough = after.target * play.service.capacity_milli * seconds >= tick.backlog_milli
            assert enough or after.target == play.service.max_replicas


def more_waits_no_fewer(play: Play) -> None:
    """With more in the queue the target is no smaller."""
    for before, tick, after in steps(play):
        more = tick._replace(backlog_milli=2 * tick.backlog_milli + 50_000)
        assert capacity.observe(before, play.service, more).target >= after.target


def records_are_prepared_for(play: Play) -> None:
    """What is more than ever before may rise by 5 % a minute until a replica that begins now is ready."""
    given, came, record = play.service, list[int](), 0
    size, back = 60 // given.pace.tick_s, 600 // given.pace.tick_s
    for _, tick, after in steps(play):
        came.append(tick.work_milli)
        if len(came) >= back:
            record = max(record, sum(came[-back:][:size]))
        long = len(came) * given.pace.tick_s >= 3_600 and not backtest.is_warming(after.past, given)
        if given.min_replicas and long and sum(came[-size:]) > record:
            rate = sum(came[-size:]) / 60 * (1 + 0.05 * given.pace.cold_start_s / 60)
            assert after.target >= min(ceil(rate / given.capacity_milli - 1e-6), given.max_replicas)


def figures_are_sound(play: Play) -> None:
    """No virtual queue or cost is negative, and none violates more than came."""
    came = 0
    for _, tick, after in steps(play):
        fleets, came = after.fleets, came + tick.requests
        assert min(fleets.queues_milli) >= 0
        assert all(0 <= late <= came for late in fleets.violations)
        assert min(fleets.costs) >= 0


def stays_small(play: Play) -> None:
    """What is remembered does not grow with time."""
    pace = play.service.pace
    for _, _, after in steps(play):
        assert len(after.past.sums) <= max(600, 300 + pace.tick_s, pace.slo_s) // pace.tick_s + 1
        assert len(after.wanted) <= max(1, pace.cold_start_s * 3 // 4 // pace.tick_s)
        assert len(after.fleets.needed) <= 64
        assert len(after.fleets.counts) <= max(1, pace.slo_s // pace.tick_s)
        assert len(after.fleets.replicas) == -(-pace.cold_start_s // pace.tick_s) + 1
        assert all(len(blocks) <= 24 for series in after.past.holds for blocks in series)


LAWS: Sequence[Callable[[Play], None]] = (
    in_bounds,
    same_again,
    warm_never_shrinks,
    shrinking_lasts,
    queues_are_drained,
    more_waits_no_fewer,
    records_are_prepared_for,
    figures_are_sound,
    stays_small,
)
