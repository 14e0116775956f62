"""What the rest of a shared GPU is worth: the dual of the cutting-stock problem over the share sizes seen.

Theory of operation. After a share of 810 thousandths, the 190 that are left are nearly worthless; after 650,
the 350 hold exactly one of 320. So a residual is not worth its size. The linear program *fewest GPUs that
hold all shares* (Gilmore and Gomory, Operations Research 9, 1961) has a value y for every share size, and
v(r), the best sum of values that fits in r, is what a residual r is worth, v(1000) = 1. A share of value y
taken from a residual r loses v(r) - v(r - size) - y >= 0, and 0 exactly on the patterns of the best packing:
a bid price (Talluri and van Ryzin, Management Science 44, 1998).

The program is solved for the shares still to come, less those that the residuals open now will serve: near
the end, or with many half-used GPUs, a size that is served from stock is worth nothing new (bid prices are
solved again as time goes on). A tenth of the plainer value of FGD (size times the share of arrivals that
fit) is mixed in, for duals of a sampled demand are degenerate: many residuals are worth exactly 0, and which
ones changes from sample to sample.

The simplex is the revised one, with an explicit inverse; columns come from a knapsack over whole cells, the
greatest common divisor of the sizes. The sums are of floats in one fixed order: the same input gives the
same bits on every machine with IEEE 754 arithmetic.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import gcd
from typing import NamedTuple

WHOLE = 1000
"""Shares of one GPU: thousandths."""
SIZES_MAX = 24
"""Share sizes in the program, those with the most demand: the work grows with its cube."""
PIVOTS_MAX = 400
"""Simplex steps: a few for each size are enough in practice, and any dual on the way is a usable price."""
FIT_PART = 0.1
"""Weight of FGD's value beside the program's, 0 to 1: parts residuals that the program calls equal."""
GAIN_MIN = 1e-12
"""Less than this is no better: noise of the sums."""
TOLERANCE = 1e-9
"""Reduced costs and pivots below this are 0."""
UNSERVED_MIN = 1e-6
"""Arrivals below this are none."""


class Steps(NamedTuple):
    """A rising step function: total[k] is its value once k of the rising bounds are reached."""

    bounds: tuple[int, ...]
    total: tuple[float, ...]

    def at(self, point: int) -> float:
        """Its value there."""
        return self.total[bisect_right(self.bounds, point)]


def steps_of(points: Iterable[tuple[int, float]]) -> Steps:
    """The sum of the weights of all points up to a place; points are (place, weight)."""
    bounds, total = [], [0.0]
    for bound, weight in sorted(points):
        bounds.append(bound)
        total.append(total[-1] + weight)
    return Steps(tuple(bounds), tuple(total))


def knapsack(items: Sequence[tuple[int, float]], cells: int) -> tuple[list[float], list[int]]:
    """Best value, and the item taken, for every capacity 0..cells; items are (size in cells, value)."""
    best, take = [0.0] * (cells + 1), [-1] * (cells + 1)
    for room in range(1, cells + 1):
        top, pick = best[room - 1], -1
        for i, (size, value) in enumerate(items):
            if size <= room and best[room - size] + value > top + GAIN_MIN:
                top, pick = best[room - size] + value, i
        best[room], take[room] = top, pick
    return best, take


def _pattern(take: Sequence[int], sizes: Sequence[int], cells: int) -> list[int]:
    """How many of each size the best filling of that many cells takes."""
    made = [0] * len(sizes)
    while cells > 0:
        if take[cells] < 0:
            cells -= 1
        else:
            made[take[cells]] += 1
            cells -= sizes[take[cells]]
    return made


def cutting_stock(sizes: Sequence[int], counts: Sequence[float], cells: int) -> list[float]:
    """Value of every residual 0..cells (1.0 = an empty GPU): the dual of *fewest GPUs that hold all*.

    Sizes are in cells, 1 to `cells`; counts are above 0. Patterns come from the knapsack; a negative dual
    brings in a surplus column.
    """
    n = len(sizes)
    inverse = [[(1.0 / (cells // sizes[i]) if i == j else 0.0) for j in range(n)] for i in range(n)]
    level = [counts[i] / (cells // sizes[i]) for i in range(n)]
    price = [1.0] * n  # cost of each basic column: 1 pattern, 0 surplus
    best: list[float] = []
    for _ in range(PIVOTS_MAX):
        dual = [sum(price[i] * inverse[i][j] for i in range(n)) for j in range(n)]
        low = min(range(n), key=lambda j: (dual[j], j))
        best, take = knapsack([(s, max(0.0, y)) for s, y in zip(sizes, dual, strict=True)], cells)
        if dual[low] < -TOLERANCE:
            column, cost = [0] * n, 0.0
            column[low] = -1
        elif best[cells] > 1 + TOLERANCE:
            column, cost = _pattern(take, sizes, cells), 1.0
        else:
            break
        if not _pivot(inverse, level, price, column, cost):
            break
    top = best[cells] or 1.0
    return [b / top for b in best]


def _pivot(
    inverse: list[list[float]], level: list[float], price: list[float], column: list[int], cost: float
) -> bool:
    """Bring a column into the basis, in place. False: it could enter without end, so prices stay."""
    n = len(level)
    used = [j for j in range(n) if column[j]]
    move = [sum(row[j] * column[j] for j in used) for row in inverse]
    rows = [i for i in range(n) if move[i] > TOLERANCE]
    if not rows:
        return False
    out = min(rows, key=lambda i: (level[i] / move[i], i))
    step = level[out] / move[out]
    pivot_row = [x / move[out] for x in inverse[out]]
    for i in range(n):
        if i != out and move[i]:
            factor = move[i]
            inverse[i] = [a - factor * b for a, b in zip(inverse[i], pivot_row, strict=True)]
            level[i] = max(0.0, level[i] - factor * step)
    inverse[out], level[out], price[out] = pivot_row, step, cost
    return True


def unserved(demand: Mapping[int, float], open_now: Mapping[int, float]) -> dict[int, float]:
    """What is left of the demand (size: count) when open residuals have served it, best fit, largest first.

    A residual serves a size once, and what then remains of it smaller sizes.
    """
    stock = dict(open_now)
    left = {}
    for size in sorted(demand, reverse=True):
        need = demand[size]
        for r in sorted(r for r in stock if r >= size):
            served = min(need, stock[r])
            need -= served
            stock[r] -= served
            stock[r - size] = stock.get(r - size, 0.0) + served
            if need <= 0:
                break
        if need > UNSERVED_MIN:
            left[size] = need
    return left


def residual_worth(shares: Mapping[int, int], scale: float, stock: Mapping[int, int]) -> tuple[float, ...]:
    """What each residual, 0 to 1000, is worth, in thousandths of a GPU.

    `shares`: arrivals by size; `scale`: arrivals until the cluster is full, over arrivals counted; `stock`:
    open residuals now. What the program leaves out for want of room counts with FGD's value.
    """
    if not shares:
        return (0.0,) * WHOLE + (float(WHOLE),)
    ahead = unserved({s: k * scale for s, k in shares.items()}, stock)
    kept = sorted(sorted(ahead, key=lambda s: (-ahead[s] * s, s))[:SIZES_MAX])
    unit = gcd(WHOLE, *kept)
    cells = WHOLE // unit
    value = [0.0] * (cells + 1)
    if kept:
        value = cutting_stock([s // unit for s in kept], [ahead[s] for s in kept], cells)
    fits = steps_of(shares.items())
    every = fits.total[-1]
    covered = sum(ahead[s] * s for s in kept) / sum(k * s for s, k in ahead.items()) if kept else 1.0
    fit_part = max(FIT_PART, 1 - covered)
    return tuple(
        WHOLE * (1 - fit_part) * value[r // unit] + fit_part * r * fits.at(r) / every
        for r in range(WHOLE + 1)
    )
