"""Prices of GPU models: pods that may go anywhere leave alone a model that others depend on.

Theory of operation. Demand is routed so that models are used up as evenly as possible (water filling, the
nested bottlenecks of the fluid program). Then T_m is how many arrivals from now model m is gone, and T when
all are. With a horizon that is unknown, uniform on [0, 2 T], a GPU of m is missed later with probability
max(0, 1 - T_m / 2 T): that is its price (a bid price; Talluri and van Ryzin, Management Science 44, 1998).
Prices are less their lowest: only differences move a pod. A pod depends on the models that it names, and
on those whose nodes are large enough for it: what takes eight GPUs needs nodes with eight, by whatever name.
When all pods may go to all models, all prices are 0.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from steersman.decide.pack_stock import WHOLE
from steersman.model.packing import Ask

SWEEPS_MAX = 20
"""Rounds of routing at most; each brings the fill closer to even."""
SETTLED_SHARE = 0.001
"""Routing has settled when less than this share of the demand moved in a round."""


class Size(NamedTuple):
    """The largest node of a model that was seen, each part by itself."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: int = 0

    def with_node(self, cpu_milli: int, memory_bytes: int, gpus: int) -> "Size":
        """At least as large as this node."""
        return Size(
            max(self.cpu_milli, cpu_milli), max(self.memory_bytes, memory_bytes), max(self.gpus, gpus)
        )

    def holds(self, shape: Ask) -> bool:
        """Whether a node of this size holds the pod when nothing else is there."""
        return (
            shape.cpu_milli <= self.cpu_milli
            and shape.memory_bytes <= self.memory_bytes
            and shape.gpus <= self.gpus
        )


def _fill(
    amount: float, load: Mapping[str, float], free: Mapping[str, int], models: Iterable[str]
) -> dict[str, float]:
    """Pour amount over models so that the emptiest (load / free) rise to one common level."""
    order = sorted(models, key=lambda m: (load[m] / free[m], m))
    room, levels = 0, []
    for model in order:  # a fuller model raises the level: the lowest is that of the models below it
        room += free[model]
        amount += load[model]
        levels.append(amount / room)
    level = min(levels)
    return {m: max(0.0, level * free[m] - load[m]) for m in order}


def _routed(want: Mapping[tuple[str, ...], float], free: Mapping[str, int]) -> dict[str, float]:
    """What each model bears when demand, by the models that it may use, is spread as evenly as can be."""
    load = {model: 0.0 for models in want for model in models}
    routed: dict[tuple[str, ...], dict[str, float]] = {ok: {} for ok in want}
    for _ in range(SWEEPS_MAX):
        moved = 0.0
        for ok, amount in want.items():
            for m, x in routed[ok].items():
                load[m] -= x
            fresh = _fill(amount, load, free, ok)
            for m, x in fresh.items():
                load[m] = max(0.0, load[m]) + x
                moved += abs(x - routed[ok].get(m, 0.0))
            routed[ok] = fresh
        if moved < SETTLED_SHARE * sum(want.values()):
            break
    return load


def model_prices(
    counts: Mapping[Ask, int], free: Mapping[str, int], largest: Mapping[str, Size]
) -> dict[str, int]:
    """Price of a GPU of each model, thousandths of its size; the lowest is 0.

    `counts`: arrivals by shape; by model, `free`: thousandths of GPUs, `largest`: its largest node. Empty:
    all prices are 0.
    """
    open_models = sorted(m for m in free if free[m] > 0)
    want: dict[tuple[str, ...], float] = {}
    for s, k in sorted(counts.items()):
        ok = tuple(m for m in open_models if (not s.models or m in s.models) and largest[m].holds(s))
        if s.gpus and ok:
            want[ok] = want.get(ok, 0.0) + k * s.gpus * s.gpu_milli
    if len(want) < 2:
        return {}
    load = _routed(want, free)
    mean = sum(want.values()) / sum(free[m] for m in open_models)  # 1 / T
    raw = {
        m: max(0, WHOLE - round(WHOLE * mean * free[m] / (2 * load[m]))) if load.get(m, 0.0) > 0 else 0
        for m in open_models
    }
    return {m: p - min(raw.values()) for m, p in raw.items()}
