"""What work asks for, counted as it is admitted, and what a cycle learned from it for packing."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from steersman.model.packing import Ask, Basis, Packing, PackingUpdate
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI
from steersman.model.snapshot import Shape

MIX_MAX = 32_768
"""Counts are halved beyond this many arrivals with GPUs: what is old fades, at half of this many."""


def ask_of(shape: Shape) -> Ask:
    """What one rank of a shape asks for, as packing sees it; of several kinds, the first.

    A MIG instance counts as the share of a device that it takes at most: packing keeps no book of slices.
    """
    if not shape.accelerators:
        return Ask(shape.cpu_milli, shape.memory_bytes, 0, 0)
    kind, count = shape.accelerators[0]
    models = () if kind == ANY_KIND else tuple(sorted(kind.split(ALTERNATIVES)))
    milli = WHOLE_MILLI if shape.mig_profile else shape.device_milli
    return Ask(shape.cpu_milli, shape.memory_bytes, count, milli, models)


def arrive(demand: Packing, shapes: Iterable[Shape]) -> Packing:
    """Workloads of these shapes were admitted. Their ranks count one by one."""
    counts, arrived, since = dict(demand.counts), demand.arrived, demand.since_price
    for shape in shapes:
        ask, ranks = ask_of(shape), shape.num_nodes
        since += ranks
        if ask.gpus:
            counts[ask] = counts.get(ask, 0) + ranks
            arrived += ranks
    return replace(demand, counts=counts, arrived=arrived, since_price=since)


def update(demand: Packing, packing: PackingUpdate) -> Packing:
    """What a cycle learned takes effect."""
    priced = replace(demand, prices=packing.prices, since_price=0)
    if not packing.learned:
        return priced
    counts = faded(demand.counts, demand.arrived)
    basis = Basis(tuple(sorted(counts.items())), packing.stock, packing.free)
    return replace(priced, counts=counts, arrived=sum(counts.values()), basis=basis)


def faded(counts: Mapping[Ask, int], arrived: int) -> dict[Ask, int]:
    """The counts to learn from: halved when there are many."""
    if arrived <= MIX_MAX:
        return dict(counts)
    return {ask: count // 2 for ask, count in counts.items() if count > 1}
