"""Arithmetic that deciders share: what fits where. Chooses nothing by itself but the best-fit order."""

from collections.abc import Iterator

from steersman.model.decisions import Placement
from steersman.model.fleet import serves
from steersman.model.ids import DeviceId, NodeId
from steersman.model.reasons import Code
from steersman.model.resources import Resources
from steersman.model.snapshot import NodeState, Shape, Signature
from steersman.state.draft import Draft


def ranks_in(cpu_milli: int, memory_bytes: int, free: Signature, shape: Shape) -> int:
    """How many ranks of this shape fit into an amount of free capacity, at most as many as it has."""
    cpu_asked, memory_asked, accelerators, count = shape[:4]
    if cpu_asked:
        count = min(count, cpu_milli // cpu_asked)
    if memory_asked:
        count = min(count, memory_bytes // memory_asked)
    if accelerators:
        have = dict(free)
        for kind, asked in accelerators:
            count = min(count, have.get(kind, 0) // asked)
    return max(count, 0)


def holding(draft: Draft, shape: Shape) -> list[Signature]:
    """Signatures with enough free accelerators for one rank: the fewest left idle first."""
    orders = draft.capacity.orders
    asked = shape.accelerators
    if asked not in orders:
        found = []
        for free in draft.capacity.ordered():
            have = dict(free)
            if all(have.get(kind, 0) >= count for kind, count in asked):
                found.append((sum(have.values()), free))
        orders[asked] = [free for _, free in sorted(found)]
    return orders[asked]


def room(draft: Draft, shape: Shape) -> Iterator[tuple[NodeId, int]]:
    """Nodes with room for at least one rank, in best-fit order, with the number of ranks each can hold."""
    for free in holding(draft, shape):
        for cpu_milli, memory_bytes, node in draft.capacity.member(free).since((shape.cpu_milli,)):
            if memory_bytes >= shape.memory_bytes and serves(draft.nodes[node].node, shape.pools):
                yield node, ranks_in(cpu_milli, memory_bytes, free, shape)


def spread(draft: Draft, shape: Shape) -> list[tuple[NodeId, int]] | None:
    """Nodes for all ranks of a shape and how many go to each, or None when they do not all fit."""
    left, chosen = shape.num_nodes, []
    for node, ranks in room(draft, shape):
        take = min(ranks, left)
        chosen.append((node, take))
        left -= take
        if not left:
            return chosen
    return None


def placements(draft: Draft, shape: Shape, chosen: list[tuple[NodeId, int]]) -> tuple[Placement, ...]:
    """Leases for the ranks, numbered in the order of the nodes, with named devices, lowest ids first."""
    made: list[Placement] = []
    for node, ranks in chosen:
        free = _devices_by_kind(draft.nodes[node])
        for _ in range(ranks):
            taken: list[DeviceId] = []
            for kind, count in shape.accelerators:
                taken += free[kind][:count]
                free[kind] = free[kind][count:]
            made.append(
                Placement(
                    rank=len(made),
                    node=node,
                    cpu_milli=shape.cpu_milli,
                    memory_bytes=shape.memory_bytes,
                    devices=tuple(sorted(taken)),
                )
            )
    return tuple(made)


def _devices_by_kind(state: NodeState) -> dict[str, list[DeviceId]]:
    free = set(state.free_devices)
    kinds: dict[str, list[DeviceId]] = {}
    for device in sorted(state.node.devices, key=lambda item: item.id):
        if device.id in free:
            kinds.setdefault(device.kind, []).append(device.id)
    return kinds


def what_lacks(draft: Draft, shape: Shape) -> Code:
    """The first constraint that no node meets now, in the order nodes, devices, cores, memory, gang."""
    if not draft.capacity.ordered():
        return Code.NO_NODES
    signatures = holding(draft, shape)
    if not signatures:
        return Code.NO_DEVICES
    if next(room(draft, shape), None) is not None:
        return Code.NO_ROOM_FOR_GANG
    for free in signatures:
        if next(draft.capacity.member(free).since((shape.cpu_milli,)), None) is not None:
            return Code.NO_MEMORY
    return Code.NO_CORES


def times(shape: Shape, ranks: int) -> Resources:
    """The capacity that so many ranks of a shape ask for."""
    return Resources(
        cpu_milli=shape.cpu_milli * ranks,
        memory_bytes=shape.memory_bytes * ranks,
        accelerators=tuple((kind, count * ranks) for kind, count in shape.accelerators),
    )
