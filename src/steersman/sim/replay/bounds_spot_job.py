"""The least that a job could have cost with the whole record known: the yardstick of `cost_over_optimum`.

Theory of operation. Every tick a job waits, runs on a pool that is up, or runs on on-demand; a launch
wastes its overhead. What is wasted (waiting and launching) may add up to at most the time to the deadline
less the work, so the state of an exact dynamic programme over the ticks is what runs and how much was
wasted, and its value is the least money spent. Waiting is a tick of waste, running on is none, a launch is
the overhead, from whatever ran before. Waste is counted in units (`Grain`): with the greatest common
divisor of tick and overhead as the unit the programme is exact. No solver, no randomness; money adds up as
whole numbers in floating point, exact below 2^53.

The script that published figures are compared with uses other units: 36 s at ticks of 600 s, where a tick
is rounded to 17 units and so does 612 s of work in 600 s, and a 13th of the tick otherwise. Its optimum is
up to 2 % too cheap at 600 s. Both are given: `script_grain` so that figures compare, `exact_grain` because
it is right.
"""

from collections.abc import Sequence
from math import ceil, gcd, inf
from typing import NamedTuple

SCRIPT_TICK_MS = 600_000
SCRIPT_UNIT_MS = 36_000
SCRIPT_UNITS = 13
UNITS_MAX = 60
"""Units of a tick. Where tick and overhead share no such divisor, the overhead is rounded down:
a lower bound."""
CELLS_MAX = 40_000_000
"""Ticks × units of slack: some ten seconds. Beyond, the unit is coarser, a lower bound in the same way."""

_Row = list[float]


class Grain(NamedTuple):
    """Units of work: what a tick does, what a launch wastes, what the job needs."""

    tick: int
    launch: int
    work: int


def script_grain(tick_ms: int, overhead_ms: int, work_ms: int) -> Grain:
    """The units of the published script."""
    unit = SCRIPT_UNIT_MS if tick_ms == SCRIPT_TICK_MS else tick_ms / SCRIPT_UNITS
    return Grain(round(tick_ms / unit), ceil(overhead_ms / unit - 1e-9), round(work_ms / unit))


def exact_grain(tick_ms: int, overhead_ms: int, work_ms: int, ticks: int) -> Grain:
    """The coarsest units in which nothing is rounded; rounded in the job's favour beyond the limits above."""
    units = min(tick_ms // gcd(tick_ms, overhead_ms), UNITS_MAX)
    while units > 1 and ticks * (ticks * units - work_ms * units // tick_ms) > CELLS_MAX:
        units -= 1
    return Grain(units, overhead_ms * units // tick_ms, -(-work_ms * units // tick_ms))


def least_cost(pools: Sequence[bytes], ticks: int, grain: Grain, prices: tuple[int, int]) -> float:
    """Least money for the work in so many ticks, in the unit of `prices` (of a tick of spot, of on-demand).

    `pools`: for each pool a byte a tick, not 0 when it can be had; there may be none. Infinite when the work
    does not fit.
    """
    slack = ticks * grain.tick - grain.work
    if slack < 0:
        return inf
    spot, on_demand = prices
    never: _Row = [inf] * (slack + 1)
    idle, paid = [0.0, *never[1:]], never
    runs = [never] * len(pools)
    for tick in range(ticks):
        best = idle
        for row in (paid, *runs):
            best = best if row is never else [a if a < b else b for a, b in zip(best, row, strict=True)]
        launched = _wasted(best, grain.launch, never)
        idle = _wasted(best, grain.tick, never)
        paid = _run(paid, launched, on_demand)
        runs = [
            _run(row, launched, spot) if pool[tick] else never for row, pool in zip(runs, pools, strict=True)
        ]
    return min(min(row) for row in (idle, paid, *runs))


def _wasted(row: _Row, units: int, never: _Row) -> _Row:
    """The same with so many more units wasted; what exceeds the slack is gone."""
    return (never[:units] + row[: len(row) - units]) if units < len(row) else never


def _run(held: _Row, launched: _Row, price: int) -> _Row:
    """A tick on a machine: kept, or launched anew, whichever was cheaper, and paid."""
    return [(a if a < b else b) + price for a, b in zip(held, launched, strict=True)]
