"""What work will come to a service: forecasts from what came, each also held a while. A part of `capacity`.

Theory of operation. Four forecasts, none of which is right for all services:

    mean      of half a minute (follows ramps) and of ten minutes (averages bursts out)
    line      through three minutes, led on to the end of a cold start
    rise      a mean of a minute, or a line through five minutes if that leads higher: a ramp is seen before
              it is climbed, and a fall is not believed before it is over

While history is short no mean reaches back further than a quarter of it. Each forecast is also held: the
largest of the last so many seconds counts, so that one scales in only when a lull lasts (ski rental: R. Karp,
On-line algorithms versus off-line algorithms, IFIP 1992). Beside them stands a floor, the largest
(work in w) / (w + SLO) of the last windows w: a queue that is served slower than that breaks the objective
(R. Cruz, A calculus for network delay, IEEE Trans. Inf. Theory 37(1), 1991).

Work is in thousandths of a unit; rates in thousandths of a unit a second. The state is bounded.
"""

from typing import NamedTuple

MEANS_S = (30, 600, 60)
"""Means: seconds looked back. Half a minute follows ramps, ten minutes average bursts out; the minute is part
of the rise, and what levels and warming up go by."""
LINES_S = (180, 300)
"""Lines: seconds they are fitted to, alone and in the rise. As long as a long cold start, for a line that is
led on much further than it was fitted to is mostly noise."""
WINDOWS_S = (30, 600, 180, 300)
"""Seconds behind each forecast."""
FORECASTS = len(WINDOWS_S)
SHORT = 4
"""No mean reaches back further than one part in so many of the history."""
TICK, COLD_START, TEN_MINUTES_S, MINUTE_S = 0, -1, 600, 60
HOLDS_S = (TICK, COLD_START, TEN_MINUTES_S, 1_800)
"""Seconds that a forecast is held. The first two are one tick and one cold start; ten minutes are at least
two cold starts."""
BLOCKS = 12
"""A hold is kept as so many maxima of a block: up to a twelfth longer than asked, in bounded state."""
FLOOR_DOUBLINGS = 7
"""Windows of the floor: 1, 2, 4 … 64 ticks."""

Blocks = tuple[float, ...]
"""Maxima of consecutive blocks of ticks, oldest first."""


class Pace(NamedTuple):
    """How often a service is looked at, and how fast it can be answered. Whole seconds."""

    slo_s: int  # the longest wait in the queue that keeps the objective
    cold_start_s: int
    tick_s: int  # at most half of slo_s


class Past(NamedTuple):
    """What is remembered of the work that came."""

    ticks: int
    sums: tuple[int, ...]  # cumulative work at the end of the last ticks, oldest first
    lines: tuple[tuple[int, int], ...]  # over each line's window: sum of work, sum of age * work
    holds: tuple[tuple[Blocks, ...], ...]  # by hold, then by forecast, the floor last
    now: tuple[float, ...]  # the forecasts
    minute: float  # the mean of a minute
    record: float  # the highest mean of a minute, but for the last ten


NOTHING = Past(
    0,
    (0,),
    ((0, 0),) * len(LINES_S),
    (((0.0,),) * (FORECASTS + 1),) * len(HOLDS_S),
    (0.0,) * FORECASTS,
    0.0,
    0.0,
)
"""Before the first tick."""


def come(past: Past, pace: Pace, work_milli: int) -> Past:
    """What is remembered after one more tick, in which this work came."""
    ticks = past.ticks + 1
    kept = max(*MEANS_S, *(seconds + pace.tick_s for seconds in LINES_S), pace.slo_s) // pace.tick_s + 1
    sums = (*past.sums, past.sums[-1] + work_milli)[-kept:]
    sizes = [seconds // pace.tick_s for seconds in LINES_S]
    lines = tuple(_line(line, sums, size) for line, size in zip(past.lines, sizes, strict=True))
    half, ten, minute = _means(sums, ticks, pace)
    alone, rise = (
        _led(line, size, pace) if ticks >= size else minute for line, size in zip(lines, sizes, strict=True)
    )
    now = (half, ten, alone, max(minute, rise))
    holds = _held(past.holds, (*now, _floor(sums, pace)), past.ticks, hold_ticks(pace))
    return Past(ticks, sums, lines, holds, now, minute, max(past.record, _earlier(sums, pace)))


def hold_ticks(pace: Pace) -> tuple[int, ...]:
    """The holds in ticks, in the order of HOLDS_S."""
    longer = {
        TICK: pace.tick_s,
        COLD_START: pace.cold_start_s,
        TEN_MINUTES_S: max(TEN_MINUTES_S, 2 * pace.cold_start_s),
    }
    return tuple(max(1, longer.get(hold, hold) // pace.tick_s) for hold in HOLDS_S)


def _line(line: tuple[int, int], sums: tuple[int, ...], size: int) -> tuple[int, int]:
    """The running sums of a window of so many ticks; exact, for they are integers."""
    total, aged = line
    old = sums[-size - 1] - sums[-size - 2] if len(sums) > size + 1 else 0
    return total + sums[-1] - sums[-2] - old, aged + total - size * old


def _means(sums: tuple[int, ...], ticks: int, pace: Pace) -> tuple[float, ...]:
    most = max(1, pace.slo_s // pace.tick_s, ticks // SHORT)
    backs = [min(seconds // pace.tick_s, ticks, most) for seconds in MEANS_S]
    return tuple((sums[-1] - sums[-1 - back]) / (back * pace.tick_s) for back in backs)


def _earlier(sums: tuple[int, ...], pace: Pace) -> float:
    """The mean of the minute that began ten minutes ago; 0 while there is none."""
    begin, size = TEN_MINUTES_S // pace.tick_s, max(1, MINUTE_S // pace.tick_s)
    if len(sums) <= begin:
        return 0.0
    return (sums[size - begin - 1] - sums[-begin - 1]) / (size * pace.tick_s)


def _led(line: tuple[int, int], size: int, pace: Pace) -> float:
    """The least-squares line of the window, at the end of a cold start that begins with the next tick."""
    step, (total, aged) = pace.tick_s, line
    slope = ((size - 1) * total / 2 - aged) * 12 / (step * step * size * (size * size - 1))
    return max(0.0, total / (size * step) + slope * (pace.cold_start_s + step + size * step / 2))


def _floor(sums: tuple[int, ...], pace: Pace) -> float:
    """The least rate at which the work of every window up to now is served within the objective."""
    spans = [1 << doubling for doubling in range(FLOOR_DOUBLINGS)]
    return max(
        (sums[-1] - sums[-1 - span]) / (span * pace.tick_s + pace.slo_s) for span in spans if span < len(sums)
    )


def _held(
    holds: tuple[tuple[Blocks, ...], ...], values: tuple[float, ...], ticks: int, sizes: tuple[int, ...]
) -> tuple[tuple[Blocks, ...], ...]:
    found = []
    for size, series in zip(sizes, holds, strict=True):
        block = max(1, size // BLOCKS)
        most = size // block + (block > 1)
        begins = ticks % block == 0
        found.append(
            tuple(
                (*old, value)[-most:] if begins else (*old[:-1], max(old[-1], value))
                for old, value in zip(series, values, strict=True)
            )
        )
    return tuple(found)
