"""What a node is worth to the pods still to come, and what placing a pod on it costs.

Theory of operation. A placement is judged by what it takes away from later pods. A node is worth
  phi(node) = sum over its free GPUs of (chance that a coming GPU pod can use it) x (what it then fills),
in thousandths of a GPU, and a pod goes where phi(before) - phi(after) + tie terms is smallest.
1. Whole free GPUs, as in FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023): a GPU counts with the
   share of typical pods that model, CPU, memory and number of free GPUs would admit. Typical are the most
   frequent shapes, up to 95 % of arrivals with a GPU.
2. The rest of a shared GPU counts with its value in the cutting-stock program (`pack_stock`).
3. Ties: best fit (fewest GPUs, then fewest cores, left on the node).
Costs are whole numbers, so that noise of sums decides nothing.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from steersman.decide.pack_stock import WHOLE, Steps, residual_worth, steps_of
from steersman.model.packing import Ask, Basis

COVER_PERCENT = 95
"""Typical pods: the most frequent, up to this share of GPU arrivals (the value of FGD)."""
TYPES_MAX = 256
"""At most this many typical pods: bounds the work when every pod is its own shape."""
TIE_GPU = 0.0075
"""For each thousandth of a GPU left on the node: to open a GPU costs 0.75 % of one."""
TIE_CORE = 0.00047
"""For each thousandth of a core left on the node: to leave 100 cores costs 5 % of a GPU."""
SCALE = 1000
"""Costs are compared in whole thousandths of a thousandth of a GPU."""

Key = tuple[str, int, int, int, tuple[int, ...]]
"""A node's state: model, CPU free (1/1000), memory free (bytes), whole free GPUs, other residuals (rising).

A plain tuple and no record: a million of them are made for ten thousand pods.
"""
SPREAD = -1
"""In place of a residual: a share was taken from each of several."""


class Curve(NamedTuple):
    """Share of typical pods that free CPU and memory admit: the smaller of the two marginals."""

    cpu: Steps
    memory: Steps

    def at(self, cpu: int, memory: int) -> float:
        """0 to 1."""
        by_cpu = self.cpu.total[bisect_right(self.cpu.bounds, cpu)]
        by_memory = self.memory.total[bisect_right(self.memory.bounds, memory)]
        return by_cpu if by_cpu < by_memory else by_memory


def _curve(points: Sequence[tuple[Ask, float]]) -> Curve:
    return Curve(
        steps_of((shape.cpu_milli, weight) for shape, weight in points),
        steps_of((shape.memory_bytes, weight) for shape, weight in points),
    )


class Mix(NamedTuple):
    """types: typical GPU pods with weights (sum 1); worth[r]: value of a residual r, 0..1000."""

    types: tuple[tuple[Ask, float], ...]
    sizes: tuple[int, ...]
    worth: tuple[float, ...]


class ModelCurves(NamedTuple):
    """What typical pods can use on nodes of one model.

    `whole`: by whole free GPUs, the last for all above; `parts`: by how many of Mix.sizes fit in the rest.
    """

    whole: tuple[Curve, ...]
    parts: tuple[Curve, ...]


def learn(basis: Basis) -> Mix:
    """The typical pods and residual values (GPU pods only)."""
    counts = dict(basis.counts)
    ranked = sorted(((s, k) for s, k in counts.items() if s.gpus), key=lambda t: (-t[1], t[0]))
    enough, total = sum(k for _, k in ranked) * COVER_PERCENT, 0
    kept: list[tuple[Ask, int]] = []
    shares: dict[int, int] = {}
    for shape, k in ranked:
        if total * 100 < enough and len(kept) < TYPES_MAX:
            kept.append((shape, k))
            total += k
        if shape.gpus == 1 and shape.gpu_milli < WHOLE:
            shares[shape.gpu_milli] = shares.get(shape.gpu_milli, 0) + k
    sizes = tuple(sorted({s.gpu_milli for s, _ in kept if s.gpus == 1 and s.gpu_milli < WHOLE}))
    asked = sum(s.gpus * s.gpu_milli * k for s, k in counts.items())
    scale = basis.free / asked if asked else 1.0
    return Mix(
        tuple((s, k / total) for s, k in kept), sizes, residual_worth(shares, scale, dict(basis.stock))
    )


def model_curves(mix: Mix, model: str) -> ModelCurves:
    """What the typical pods can use on nodes of this model."""
    mine = [(s, w) for s, w in mix.types if not s.models or model in s.models]
    most = max((s.gpus for s, _ in mix.types), default=0)
    whole = tuple(_curve([(s, w) for s, w in mine if s.gpus <= full]) for full in range(most + 1))
    single = sum(w for s, w in mix.types if s.gpus == 1)
    parts = [_curve([])]
    for size in mix.sizes:
        fit = sum(w for s, w in mix.types if s.gpus == 1 and s.gpu_milli <= size)
        parts.append(_curve([(s, w * single / fit) for s, w in mine if s.gpus == 1 and s.gpu_milli <= size]))
    return ModelCurves(whole, tuple(parts))


def phi(key: Key, mix: Mix, curves: ModelCurves) -> float:
    """Thousandths of a GPU on a node in this state that coming pods can be expected to fill."""
    _, cpu, memory, full, parts = key
    value = 0.0
    if full:
        rows = curves.whole
        value = WHOLE * full * rows[full if full < len(rows) else -1].at(cpu, memory)
    if parts:
        sizes, worth, rows = mix.sizes, mix.worth, curves.parts
        for r in parts:
            k = bisect_right(sizes, r)
            if k:
                value += worth[r] * rows[k].at(cpu, memory)
    return value


def options(shape: Ask, key: Key) -> list[tuple[int, Key]]:
    """Ways to put the pod on such a node: (residual taken from, state after)."""
    model, cpu, memory, full, parts = key
    cpu -= shape[0]
    memory -= shape[1]
    gpus, milli = shape[2], shape[3]
    if cpu < 0 or memory < 0:
        return []
    if gpus == 0:
        return [(0, (model, cpu, memory, full, parts))]
    if milli == WHOLE:
        return [(WHOLE, (model, cpu, memory, full - gpus, parts))] if full >= gpus else []
    if gpus > 1:
        return _spread(shape, (model, cpu, memory, full, parts))
    made, last = [], 0
    for i, r in enumerate(parts):
        if r >= milli and r != last:
            last = r
            left = list(parts)
            del left[i]
            if r > milli:
                insort(left, r - milli)
            made.append((r, (model, cpu, memory, full, tuple(left))))
    if full:
        left = list(parts)
        insort(left, WHOLE - milli)
        made.append((WHOLE, (model, cpu, memory, full - 1, tuple(left))))
    return made


def _spread(shape: Ask, key: Key) -> list[tuple[int, Key]]:
    """A share on each of several GPUs: the smallest residuals that hold it."""
    model, cpu, memory, full, parts = key
    fit = [r for r in parts if r >= shape.gpu_milli][: shape.gpus]
    fresh = shape.gpus - len(fit)
    if fresh > full:
        return []
    left = list(parts)
    for r in fit:
        left.remove(r)
    left += [r - shape.gpu_milli for r in fit if r > shape.gpu_milli] + [WHOLE - shape.gpu_milli] * fresh
    return [(SPREAD, (model, cpu, memory, full - fresh, tuple(sorted(left))))]


def tie(key: Key) -> float:
    """Best fit: what is left on the node, in thousandths of a GPU, far below any value."""
    return TIE_GPU * (WHOLE * key[3] + sum(key[4])) + TIE_CORE * key[1]


def cost(shape: Ask, key: Key, mix: Mix | None, curves: ModelCurves | None) -> tuple[int, int] | None:
    """(millionths of a GPU that it costs without the model's price, residual to take from). None: no room."""
    ways = options(shape, key)
    if not ways:
        return None
    before = phi(key, mix, curves) if mix and curves else 0.0
    best = None
    for r, after in ways:
        lost = before - phi(after, mix, curves) if mix and curves else 0.0
        found = (round(SCALE * (lost + tie(after))), r)
        if best is None or found < best:
            best = found
    return best
