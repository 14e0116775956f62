"""The optimum of `spot-job` with arrays: the same sums as `sim.replay.bounds_spot_job`, ten times sooner.

Theory: `least_cost` there is plain Python, for the product needs no numpy. A benchmark of a thousand jobs
spends most of its time in it. Money adds up as whole numbers in floating point there and here, so both are
equal to the last bit; tests/unit/bench/test_bounds.py compares them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steersman.sim.replay.bounds_spot_job import Grain

Row = NDArray[np.float64]


def least_cost(pools: Sequence[bytes], ticks: int, grain: Grain, prices: tuple[int, int]) -> float:
    """As there: the least money for the work in so many ticks."""
    slack = ticks * grain.tick - grain.work
    if slack < 0:
        return float("inf")
    spot, on_demand = prices
    never = np.full(slack + 1, np.inf)
    idle, paid, runs = never.copy(), never, [never] * len(pools)
    idle[0] = 0.0
    for tick in range(ticks):
        best = np.minimum.reduce([idle, paid, *runs])
        launched = _wasted(best, grain.launch)
        idle = _wasted(best, grain.tick)
        paid = np.minimum(paid, launched) + on_demand
        runs = [
            np.minimum(row, launched) + spot if pool[tick] else never
            for row, pool in zip(runs, pools, strict=True)
        ]
    return float(min(row.min() for row in (idle, paid, *runs)))


def _wasted(row: Row, units: int) -> Row:
    """The same with so many more units wasted; what exceeds the slack is gone."""
    moved = np.full_like(row, np.inf)
    moved[units:] = row[: max(0, len(row) - units)]
    return moved
