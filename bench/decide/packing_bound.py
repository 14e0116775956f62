"""The bound of `packing`: patterns of shares on single GPUs, a linear program. Needs scipy.

Theory: CPU, memory, models and the borders of nodes are left out, so that no policy can reach it. A pattern
is made when the prices of the program say that it would pay.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped]  # scipy has no types

from steersman.decide.pack_stock import WHOLE
from steersman.model.packing import Ask


def bound_pct(order: Sequence[Ask], capacity: int, arrived_pct: float = 100) -> float:
    """The most that can be allocated when so much has arrived, by columns made as they are needed."""
    wholes, shares, arrived = 0, Counter[int](), 0
    for shape in order:
        arrived += shape.gpus * shape.gpu_milli
        if arrived * 100 > arrived_pct * capacity:
            break
        if shape.gpu_milli == WHOLE:
            wholes += shape.gpus
        elif shape.gpus:
            shares[shape.gpu_milli] += shape.gpus
    sizes = sorted(shares)
    patterns = [[WHOLE // size if size == other else 0 for other in sizes] for size in sizes]
    while True:
        made = np.array(patterns, dtype=float).T.reshape(len(sizes), -1)
        worth = np.append(np.array(sizes) @ made / WHOLE, 1.0)
        rows = np.vstack([np.c_[made, np.zeros(len(sizes))], np.ones(len(worth))])
        limits = [*(shares[size] for size in sizes), capacity / WHOLE]
        ends = [(0, None)] * (len(worth) - 1) + [(0, wholes)]
        found = linprog(-worth, A_ub=rows, b_ub=limits, bounds=ends, method="highs")
        duals = [-float(dual) for dual in found.ineqlin.marginals]
        gains = [size / WHOLE - dual for size, dual in zip(sizes, duals, strict=False)]
        best, pattern = _best_pattern(sizes, gains)
        if best <= duals[-1] + 1e-7:
            return float(-found.fun / capacity * WHOLE * 100)
        patterns.append(pattern)


def _best_pattern(sizes: Sequence[int], gains: Sequence[float]) -> tuple[float, list[int]]:
    useful = [(size, gain, at) for at, (size, gain) in enumerate(zip(sizes, gains, strict=True)) if gain > 0]
    best, last = [0.0] * (WHOLE + 1), [-1] * (WHOLE + 1)
    for room in range(1, WHOLE + 1):
        best[room] = best[room - 1]
        for size, gain, at in useful:
            if size <= room and best[room - size] + gain > best[room] + 1e-12:
                best[room], last[room] = best[room - size] + gain, at
    pattern, room = [0] * len(sizes), WHOLE
    while room > 0:
        if last[room] < 0:
            room -= 1
        else:
            pattern[last[room]] += 1
            room -= sizes[last[room]]
    return best[WHOLE], pattern
