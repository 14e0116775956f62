"""The packers of `packing` that others use today: best fit and FGD, as published.

Theory: every pod goes to the node of the highest score, a whole number of 0 to 100; ties go to the smallest
node name. A heap for each shape keeps the nodes by score, and only what changed is scored again.
"""

import heapq
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from steersman.decide.pack import NodeState
from steersman.decide.pack_stock import WHOLE
from steersman.model.packing import Ask

CPU_MILLI_NORM, GPU_MILLI_NORM = 128_000, 8_000
"""Of best fit: the largest node, as published."""
COVER_SHARE = 0.95

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
