"""Packing on the openb lists of Alibaba, beside best fit and FGD, and the bound of the cutting-stock program.

    python -m bench.decide.packing             10 seeds of the default list, 3 of the others: about 5 minutes
    python -m bench.decide.packing --short     2 seeds of the default list, 1 of two others
    python -m bench.decide.packing --json      the figures alone

Theory: the baselines are as published (Weng et al., USENIX ATC 2023, and its artifact): scores are whole
numbers 0 to 100, ties go to the smallest node name, share pods take the best-fitting GPU, and FGD knows the
typical pods of the whole list beforehand. They are written apart from Steersman's packer; only the reading of
the trace, the order of arrivals and the counting are shared. The bound is the linear program over patterns of
shares on single GPUs, at the moment when 100 % of the capacity has arrived; CPU, memory, models and the
borders of nodes are left out, so that no policy can reach it. It needs scipy, and is a dash without.

Speed is pods tried for each second of CPU time of one core, all learning inside, on all nodes.
"""

import heapq
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.decide.command import command
from steersman.decide.pack import NodeState, Packer, State
from steersman.decide.pack_stock import WHOLE
from steersman.model.demand import Ask
from steersman.sim.replay.packing import Cluster, Tally, arrivals, read_nodes, read_pods

ROOT = Path(__file__).resolve().parents[2]
NODES = "openb_nodes.csv.gz"
DEFAULT = "default"
LISTS = (
    DEFAULT,
    *("cpu050", "cpu200", "gpushare40", "gpushare100"),
    *("gpuspec10", "gpuspec33", "multigpu20", "multigpu50"),
)
SHORT_LISTS = (DEFAULT, "gpushare40", "gpuspec33")
FIRST_SEED = 42
LOAD = 1.3
CPU_MILLI_NORM, GPU_MILLI_NORM = 128_000, 8_000
"""Of best fit: the largest node, as published."""
COVER_SHARE = 0.95
METRICS = ("alloc_pct_100", "alloc_pct_130", "first_fail_pct")
OURS = "steersman"

Free = tuple[int, ...]
Kind = tuple[str, int, int, Free]
"""A node's state: model, CPU, memory, thousandths of each GPU."""
Choice = tuple[int, Free] | None
"""The score, and what is left of each GPU after the best way to place the pod; None: no room."""


class Baseline(ABC):
    """Every pod to the node of the highest score. A heap for each shape; what changed is scored again."""

    def __init__(self, nodes: Sequence[NodeState]) -> None:
        nodes = sorted(nodes)
        self._kinds: list[Kind] = [(n.model, n.cpu_milli, n.memory_bytes, n.devices) for n in nodes]
        self._versions = [0] * len(nodes)
        self._changed: list[int] = list(range(len(nodes)))
        self._heaps: dict[Ask, tuple[list[tuple[int, int, int]], int]] = {}
        self._choices: dict[Ask, dict[Kind, Choice]] = {}

    @abstractmethod
    def choice(self, shape: Ask, kind: Kind) -> tuple[int, Free]:
        """The best way on a node that has room."""

    def place(self, shape: Ask) -> bool:
        """Whether there was room."""
        heap, seen = self._heaps.get(shape, ([], 0))
        for at in self._changed[seen:]:
            chosen = self._chosen(shape, at)
            if chosen is not None:
                heapq.heappush(heap, (-chosen[0], at, self._versions[at]))
        self._heaps[shape] = (heap, len(self._changed))
        while heap and heap[0][2] != self._versions[heap[0][1]]:
            heapq.heappop(heap)
        if not heap:
            return False
        at = heap[0][1]
        chosen = self._chosen(shape, at)
        assert chosen is not None
        model, cpu, memory, _ = self._kinds[at]
        self._kinds[at] = (model, cpu - shape.cpu_milli, memory - shape.memory_bytes, chosen[1])
        self._versions[at] += 1
        self._changed.append(at)
        return True

    def _chosen(self, shape: Ask, at: int) -> Choice:
        known, kind = self._choices.setdefault(shape, {}), self._kinds[at]
        if kind not in known:
            known[kind] = self.choice(shape, kind) if _fits(shape, kind) else None
        return known[kind]


def _fits(shape: Ask, kind: Kind) -> bool:
    model, cpu, memory, free = kind
    if cpu < shape.cpu_milli or memory < shape.memory_bytes:
        return False
    named = not shape.gpus or not shape.models or model in shape.models
    return named and sum(one >= shape.gpu_milli for one in free) >= shape.gpus


def _taken(shape: Ask, free: Free, chosen: Sequence[int]) -> Free:
    return tuple(one - shape.gpu_milli if at in chosen else one for at, one in enumerate(free))


def _first(shape: Ask, free: Free) -> list[int]:
    return [at for at, one in enumerate(free) if one >= shape.gpu_milli][: shape.gpus]


class BestFit(Baseline):
    """The least left over, the mean of CPU and GPUs."""

    def choice(self, shape: Ask, kind: Kind) -> tuple[int, Free]:
        _, cpu, _, free = kind
        chosen = _first(shape, free)
        if shape.gpus == 1:
            chosen = [min((one, at) for at, one in enumerate(free) if one >= shape.gpu_milli)[1]]
        left = sum(free) - shape.gpus * shape.gpu_milli
        unused = (cpu - shape.cpu_milli) / CPU_MILLI_NORM * 0.5 + left / GPU_MILLI_NORM * 0.5
        return int((1 - unused) * 100), _taken(shape, free, chosen)


class Fgd(Baseline):
    """The least growth of the GPU capacity that typical pods cannot use."""

    def __init__(self, nodes: Sequence[NodeState], pods: Sequence[Ask]) -> None:
        super().__init__(nodes)
        kinds = Counter((p.cpu_milli, p.gpus, p.gpu_milli, p.models) for p in pods).most_common()
        sums = list(accumulate(count for _, count in kinds))
        typical = kinds[: 1 + sum(reached < COVER_SHARE * len(pods) for reached in sums)]
        total = sum(count for _, count in typical)
        self._typical = [(*kind, count / total) for kind, count in typical]
        self._fragments: dict[tuple[str, int, Free], float] = {}

    def choice(self, shape: Ask, kind: Kind) -> tuple[int, Free]:
        model, cpu, _, free = kind
        before = self._fragment(model, cpu, free)
        ways = [_first(shape, free)]
        if shape.gpus == 1 and shape.gpu_milli < WHOLE:
            ways = [[at] for at, one in enumerate(free) if one >= shape.gpu_milli]
        best: Choice = None
        for way in ways:
            after = _taken(shape, free, way)
            grown = self._fragment(model, cpu - shape.cpu_milli, after) - before
            score = int(100 / (1 + math.exp(grown / 1000)))
            if best is None or score > best[0]:
                best = (score, after)
        assert best is not None
        return best

    def _fragment(self, model: str, cpu: int, free: Free) -> float:
        state = (model, cpu, tuple(sorted(free)))
        if state not in self._fragments:
            total, value = sum(free), 0.0
            for needed, gpus, share, models, weight in self._typical:
                admitted = gpus and needed <= cpu and (not models or model in models)
                if admitted and sum(one >= share for one in free) >= gpus:
                    value += weight * sum(one for one in free if one < share)
                else:
                    value += weight * total
            self._fragments[state] = value
        return self._fragments[state]


class Outcome(NamedTuple):
    """The metrics of one policy on one order of arrivals, and CPU seconds."""

    metrics: Mapping[str, Any]
    seconds: float


def run(place: Callable[[Ask], object], cluster: Cluster, order: Sequence[Ask]) -> Outcome:
    """`place` gives None or False when there is no room."""
    began = time.process_time()
    placed = [place(shape) not in (None, False) for shape in order]
    seconds = time.process_time() - began
    tally = Tally(cluster.capacity)
    for shape, held in zip(order, placed, strict=True):
        tally.count(shape, held)
    return Outcome(tally.metrics(), seconds)


def bound_pct(order: Sequence[Ask], capacity: int) -> float:
    """The most that can be allocated when 100 % has arrived, by columns made as they are needed."""
    linprog = import_module("scipy.optimize").linprog
    numpy = import_module("numpy")
    wholes, shares, arrived = 0, Counter[int](), 0
    for shape in order:
        arrived += shape.gpus * shape.gpu_milli
        if arrived > capacity:
            break
        if shape.gpu_milli == WHOLE:
            wholes += shape.gpus
        elif shape.gpus:
            shares[shape.gpu_milli] += shape.gpus
    sizes = sorted(shares)
    patterns = [[WHOLE // size if size == other else 0 for other in sizes] for size in sizes]
    while True:
        made = numpy.array(patterns, dtype=float).T.reshape(len(sizes), -1)
        worth = numpy.append(numpy.array(sizes) @ made / WHOLE, 1.0)
        rows = numpy.vstack([numpy.c_[made, numpy.zeros(len(sizes))], numpy.ones(len(worth))])
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


class Compared(NamedTuple):
    """One list: every policy's outcome for each seed, and the bound of the first seed."""

    name: str
    outcomes: Mapping[str, Sequence[Outcome]]
    bound_pct: float | None

    def mean(self, policy: str, metric: str) -> float:
        """Over the seeds."""
        return fmean(outcome.metrics[metric] for outcome in self.outcomes[policy])

    def per_second(self) -> float:
        """Pods that Steersman's packer tried for each second of CPU time."""
        tried = sum(one.metrics["placements"] + one.metrics["failed"] for one in self.outcomes[OURS])
        return float(tried / sum(one.seconds for one in self.outcomes[OURS]))

    def worst_gap(self) -> float:
        """How far it is below the better of the baselines, in points; below 0: above it."""
        return max(
            self.mean(policy, metric) - self.mean(OURS, metric)
            for policy in self.outcomes
            if policy != OURS
            for metric in METRICS[:2]
        )


def compare(folder: Path, name: str, seeds: int) -> Compared:
    """All policies on one list."""
    cluster = read_nodes(folder / NODES)
    models = {node.model for node in cluster.nodes}
    pods, _ = read_pods(folder / f"openb_pods_{name}.csv.gz", models)
    outcomes: dict[str, list[Outcome]] = {OURS: [], "FGD": [], "best fit": []}
    bound = None
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        order = arrivals(pods, cluster.capacity, seed, LOAD)
        outcomes[OURS].append(run(Packer(State(nodes=cluster.nodes)).place, cluster, order))
        outcomes["FGD"].append(run(Fgd(cluster.nodes, pods).place, cluster, order))
        outcomes["best fit"].append(run(BestFit(cluster.nodes).place, cluster, order))
        if bound is None and _has("scipy"):
            bound = bound_pct(order, cluster.capacity)
    return Compared(name, outcomes, bound)


def _has(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def traces() -> Path | None:
    """The folder of the lists, if it is there."""
    named = os.environ.get("STEERSMAN_TRACES")
    for base in (Path(named),) if named else (ROOT.parent / "shared" / "traces",):
        for folder in (base / "open" / "p1_packing", base / "p1_packing"):
            if (folder / NODES).exists():
                return folder
    return None


def table(compared: Sequence[Compared]) -> Table:
    """The comparison, % of all GPUs."""
    shown = Table(title="% of GPUs allocated, mean over seeds; the protocol of FGD (ATC 2023)")
    for place, head in enumerate(
        ["list", "seeds", "policy", "at 100 %", "at 130 %", "first failure", "pods/CPU-s", "bound"]
    ):
        shown.add_column(head, justify="left" if place in (0, 2) else "right")
    for each in compared:
        for policy, outcomes in each.outcomes.items():
            ours = policy == OURS
            bound = "–" if each.bound_pct is None else f"{each.bound_pct:.2f}"
            shown.add_row(
                each.name if ours else "",
                str(len(outcomes)) if ours else "",
                policy,
                *(f"{each.mean(policy, metric):.2f}" for metric in METRICS),
                f"{each.per_second():,.0f}" if ours else "",
                bound if ours else "",
                end_section=policy == "best fit",
            )
    return shown


def measure(short: bool = False) -> dict[str, float]:
    """The figures by name; none when the traces are not there."""
    folder = traces()
    if folder is None:
        sys.stderr.write("packing: no traces; STEERSMAN_TRACES names their folder: nothing was measured\n")
        return {}
    most, fewer = (2, 1) if short else (10, 3)
    compared = [
        compare(folder, name, most if name == DEFAULT else fewer)
        for name in (SHORT_LISTS if short else LISTS)
    ]
    Console(stderr=True).print(table(compared))
    figures = {
        f"packing_{each.name}_{metric}": each.mean(OURS, metric) for each in compared for metric in METRICS
    }
    figures["packing_below_best_points_max"] = max(each.worst_gap() for each in compared)
    figures["packing_pods_per_cpu_s_min"] = min(each.per_second() for each in compared)
    return figures


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
