"""The least that a schedule of replicas can cost with foresight: the yardstick of `autoscale`. Needs scipy.

Theory: whole replicas on a grid of 10 s for an hour (HiGHS, gap 1 %), fractional ones on a grid of 60 s for
days (a true lower bound), the schedule level by level for a service that may go to zero. What the solver
has when its time is up depends on who else uses the machine, and a worse bound would flatter every policy: it
is not used, and a figure that is not a number misses its floor.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]  # scipy has no types
from scipy.sparse import coo_matrix  # type: ignore[import-untyped]  # the same

from steersman.sim.replay.autoscale import Asked
from steersman.sim.replay.bounds_autoscale import level_schedule

HOUR_LONG_S = 20_000
HOUR_GRID_S, DAYS_GRID_S = 10, 60
GAP, SOLVE_S_MAX, SOLVED = 0.01, 900, 0
"""An hour takes some 10 s of CPU time."""


def solved(work: Sequence[float], asked: Asked, grid: int, whole: bool) -> float:
    """Least replica-seconds with every request served in its SLO, on a grid; fractional unless `whole`."""
    size, late = len(work) // grid, max(1, round(asked.slo_s / grid))
    total = np.concatenate([[0], np.cumsum(np.array(work)[: size * grid].reshape(size, grid).sum(1))])
    cells: list[tuple[int, int, float]] = []
    for at in range(size):  # variables: replicas, launches, work served by the end of the interval
        row, served = 3 * at, 2 * size + at
        cells += [(row, served, 1.0), (row, at, -asked.capacity * grid), (row + 1, served, 1.0)]
        cells += [(row + 2, at, 1.0), (row + 2, size + at, -1.0)]
        if at:
            cells += [(row, served - 1, -1.0), (row + 1, served - 1, -1.0), (row + 2, at - 1, -1.0)]
    rows, columns, values = zip(*cells, strict=True)
    matrix = coo_matrix((values, (rows, columns)), shape=(3 * size, 3 * size)).tocsr()
    due = total[np.maximum(np.arange(1, size + 1) - late, 0)]
    found = milp(
        np.concatenate([np.full(size, float(grid)), np.full(size, asked.cold_start_s), np.zeros(size)]),
        constraints=LinearConstraint(
            matrix, np.tile([-np.inf, 0.0, -np.inf], size), np.tile([0.0, np.inf, 0.0], size)
        ),
        bounds=Bounds(
            np.concatenate([np.full(size, float(asked.min_replicas)), np.zeros(size), due]),
            np.concatenate([np.full(2 * size, np.inf), total[1:]]),
        ),
        integrality=np.concatenate([np.full(size, float(whole)), np.zeros(2 * size)]),
        options={"time_limit": SOLVE_S_MAX, "mip_rel_gap": GAP},
    )
    return float(found.fun) if found.status == SOLVED else math.nan


def bound(work: Sequence[float], asked: Asked) -> float:
    """The reference, in replica-seconds."""
    if asked.min_replicas == 0:
        return level_schedule(work, asked.capacity, asked.cold_start_s, asked.slo_s)
    hour = len(work) < HOUR_LONG_S
    return solved(work, asked, HOUR_GRID_S if hour else DAYS_GRID_S, hour)
