"""Arithmetic that deciders share: what fits where, and on which devices. A part of `schedule`.

Theory of operation. `room` offers the nodes with room for at least one rank in best-fit order: parts of
devices that are shared already come first, then the nodes that leave the fewest accelerators idle, then those
with the fewest free cores, then by id. `assign` picks the devices of one rank on a node: whole ones of the
first kind that has enough, lowest ids first; for a part the device that it fills best.

How a part is made: with ``auto`` a MIG instance where the device offers one that is large enough, for that
keeps memory and faults apart; else time slices. A device is shared in one mode at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from steersman.model.decisions import Placement
from steersman.model.devices import rank_of, will_do
from steersman.model.fleet import serves
from steersman.model.ids import DeviceId, NodeId
from steersman.model.mig import Profile, best_start, profile_of, share_milli, smallest
from steersman.model.reasons import Code
from steersman.model.resources import WHOLE_MILLI, Device, Resources, SharingMode
from steersman.model.snapshot import NodeState, Shape, Signature
from steersman.state.derive import free_accelerators, takes_work
from steersman.state.draft import Draft
from steersman.state.lease import with_lease


class Chosen(NamedTuple):
    """A node and how many ranks go there."""

    node: NodeId
    ranks: int


def wants_part(shape: Shape) -> bool:
    """Whether a rank asks for a part of one device."""
    return bool(shape.accelerators) and (shape.device_milli < WHOLE_MILLI or bool(shape.mig_profile))


def ranks_in(cpu_milli: int, memory_bytes: int, free: Signature, shape: Shape) -> int:
    """How many ranks of this shape fit into cores, memory and wholly free devices, as many as it has at most.

    For ranks that ask for a part of a device this counts those with a device of their own.
    """
    count = _ranks_by_size(cpu_milli, memory_bytes, shape)
    for asked, number in shape.accelerators:
        count = min(count, sum(have // number for kind, have in free if will_do(asked, kind)))
    return max(count, 0)


def _ranks_by_size(cpu_milli: int, memory_bytes: int, shape: Shape) -> int:
    count = shape.num_nodes
    if shape.cpu_milli:
        count = min(count, cpu_milli // shape.cpu_milli)
    if shape.memory_bytes:
        count = min(count, memory_bytes // shape.memory_bytes)
    return count


def ranks_on(state: NodeState, shape: Shape) -> int:
    """How many ranks of this shape fit on a node as it is, as many as it has at most."""
    cpu, memory = free_cores(state), free_memory(state)
    if not wants_part(shape):
        return ranks_in(cpu, memory, free_accelerators(state), shape)
    most, count = _ranks_by_size(cpu, memory, shape), 0
    left: NodeState | None = state
    while count < most and left is not None:
        placement = assign(left, shape, count)
        left = None if placement is None else with_lease(left, placement)
        count += left is not None
    return count


def free_cores(state: NodeState) -> int:
    """Millicores of a node that are neither leased nor reserved."""
    return state.node.cpu_milli - state.used_cpu_milli - state.reserved_cpu_milli


def free_memory(state: NodeState) -> int:
    """Bytes of a node that are neither leased nor reserved."""
    return state.node.memory_bytes - state.used_memory_bytes - state.reserved_memory_bytes


def is_over(state: NodeState) -> bool:
    """Whether more is leased than the node has: it has shrunk, and takes nothing until that is over."""
    node = state.node
    return state.used_cpu_milli > node.cpu_milli or state.used_memory_bytes > node.memory_bytes


def will_take(state: NodeState, shape: Shape) -> bool:
    """Whether the node is one of those where the shape may go at all."""
    return takes_work(state) and serves(state.node, shape.pools, shape.infra)


def holding(draft: Draft, shape: Shape) -> list[Signature]:
    """Signatures with enough wholly free accelerators for one rank: the fewest left idle first."""
    orders = draft.capacity.orders
    asked = shape.accelerators
    if asked not in orders:
        holds = [free for free in draft.capacity.ordered() if all(_has(free, *one) for one in asked)]
        orders[asked] = sorted(holds, key=lambda free: (sum(have for _, have in free), free))
    return orders[asked]


def _has(free: Signature, asked: str, count: int) -> bool:
    return any(have >= count and will_do(asked, kind) for kind, have in free)


def room(draft: Draft, shape: Shape) -> Iterator[tuple[NodeId, int]]:
    """Nodes with room for at least one rank, in best-fit order, with the number of ranks each can hold."""
    part = wants_part(shape)
    seen: set[NodeId] = set()
    for node in _with_open_parts(draft, shape) if part else ():
        if node not in seen:
            seen.add(node)
            ranks = ranks_on(draft.nodes[node], shape)
            if ranks and will_take(draft.nodes[node], shape):
                yield node, ranks
    for free in holding(draft, shape):
        for cpu_milli, memory_bytes, node in draft.capacity.member(free).since(_least(shape)):
            if 0 < shape.memory_bytes > memory_bytes or node in seen:
                continue
            if not serves(draft.nodes[node].node, shape.pools, shape.infra) or is_over(draft.nodes[node]):
                continue
            ranks = (
                ranks_on(draft.nodes[node], shape) if part else ranks_in(cpu_milli, memory_bytes, free, shape)
            )
            if ranks:
                yield node, ranks


def _least(shape: Shape) -> tuple[int, ...]:
    """Where nodes with enough cores begin. What asks for none fits where less than none is free, as well: on
    a node on which somebody waits for cores to come free."""
    return (shape.cpu_milli,) if shape.cpu_milli else ()


def _with_open_parts(draft: Draft, shape: Shape) -> Iterator[NodeId]:
    """Nodes with a device of which a part is leased and a part that may do is not: the fullest first."""
    ((asked, _),) = shape.accelerators
    modes = {"auto": ("mig", "time-slice")}.get(shape.sharing, (shape.sharing,))
    found = [
        (mode, free, node)
        for kind, mode, free, node, _ in draft.parts.since(())
        if mode in modes and (mode == "mig" or free >= shape.device_milli) and will_do(asked, kind)
    ]
    for _, _, node in sorted(found):
        yield node


def spread(draft: Draft, shape: Shape) -> list[Chosen] | None:
    """Nodes for all ranks of a shape and how many go to each, or None when they do not all fit."""
    if shape.topology == "node":
        whole = next((node for node, ranks in room(draft, shape) if ranks >= shape.num_nodes), None)
        return None if whole is None else [Chosen(whole, shape.num_nodes)]
    if shape.topology == "zone":
        return _in_one_zone(draft, shape)
    return _fill(room(draft, shape), shape.num_nodes)


def _fill(rooms: Iterator[tuple[NodeId, int]], left: int) -> list[Chosen] | None:
    chosen = []
    for node, ranks in rooms:
        chosen.append(Chosen(node, min(ranks, left)))
        left -= min(ranks, left)
        if not left:
            return chosen
    return None


def _in_one_zone(draft: Draft, shape: Shape) -> list[Chosen] | None:
    """The nodes of the zone with the least room to spare, and the fewest nodes; a site may be one zone."""
    zones: dict[tuple[str, str], list[tuple[NodeId, int]]] = {}
    for node, ranks in room(draft, shape):
        place = draft.nodes[node].node
        zones.setdefault((place.site, place.zone), []).append((node, ranks))
    enough = [
        (sum(ranks for _, ranks in rooms), len(rooms), zone)
        for zone, rooms in zones.items()
        if sum(ranks for _, ranks in rooms) >= shape.num_nodes
    ]
    return _fill(iter(zones[min(enough)[2]]), shape.num_nodes) if enough else None


def placements(draft: Draft, shape: Shape, chosen: list[Chosen]) -> tuple[Placement, ...]:
    """Leases for the ranks, numbered in the order of the nodes, with named devices."""
    made: list[Placement] = []
    for node, ranks in chosen:
        state = draft.nodes[node]
        for _ in range(ranks):
            placement = assign(state, shape, len(made))
            after = None if placement is None else with_lease(state, placement)
            assert placement is not None, (node, shape)
            assert after is not None, placement
            made.append(placement)
            state = after
    return tuple(made)


def assign(state: NodeState, shape: Shape, rank: int) -> Placement | None:
    """The lease of one rank on a node, whose cores and memory suffice; None: its devices do not."""
    placement = Placement(
        rank=rank, node=state.node.id, cpu_milli=shape.cpu_milli, memory_bytes=shape.memory_bytes
    )
    if wants_part(shape):
        return _assign_part(state, shape, placement)
    taken: list[DeviceId] = []
    for asked, count in shape.accelerators:
        devices = _whole(state, asked, count)
        if devices is None:
            return None
        taken += devices
    return replace(placement, devices=tuple(sorted(taken)))


def _whole(state: NodeState, asked: str, count: int) -> list[DeviceId] | None:
    """Free devices of one kind, of the first that has enough."""
    for kind, have in sorted(
        (item for item in free_accelerators(state) if will_do(asked, item[0])),
        key=lambda item: (rank_of(asked, item[0]), item[0]),
    ):
        if have >= count:
            return [device.id for device in _free(state) if device.kind == kind][:count]
    return None


def _free(state: NodeState) -> list[Device]:
    """The wholly free devices, by id."""
    free = set(state.free_devices)
    return sorted((device for device in state.node.devices if device.id in free), key=lambda item: item.id)


def _assign_part(state: NodeState, shape: Shape, placement: Placement) -> Placement | None:
    if state.reserved_shares:
        return None
    if shape.sharing != "time-slice":
        found = _assign_instance(state, shape, placement)
        if found is not None or shape.sharing == "mig" or shape.mig_profile:
            return found
    return _assign_slice(state, shape, placement)


def _candidates(state: NodeState, shape: Shape, mode: SharingMode) -> list[Device]:
    """The devices of a kind that will do and that may be shared in this mode, preferred kinds first."""
    ((asked, _),) = shape.accelerators
    devices = [item for item in state.node.devices if mode in item.sharing and will_do(asked, item.kind)]
    return sorted(devices, key=lambda item: (rank_of(asked, item.kind), item.id))


def _assign_slice(state: NodeState, shape: Shape, placement: Placement) -> Placement | None:
    """Thousandths of the device that has the least left, and enough; else of a whole one."""
    ((asked, _),) = shape.accelerators
    left = {share.device: share.free_milli for share in state.shares if not share.instances}
    whole = dict(free_accelerators(state))
    free = set(state.free_devices)
    options = []
    for device in _candidates(state, shape, "time-slice"):
        have = WHOLE_MILLI if device.id in free and whole.get(device.kind) else left.get(device.id, 0)
        if have >= shape.device_milli:
            options.append((rank_of(asked, device.kind), have, device.id))
    if not options:
        return None
    return replace(placement, devices=(min(options)[2],), device_milli=shape.device_milli)


def most_free(state: NodeState, asked: str) -> int:
    """The most wholly free devices of one kind that will do."""
    return max((have for kind, have in free_accelerators(state) if will_do(asked, kind)), default=0)


def largest_part(state: NodeState, shape: Shape) -> int:
    """The largest part of a device that will do that is free for time slices, in thousandths."""
    ((asked, _),) = shape.accelerators
    left = {share.device: share.free_milli for share in state.shares if not state.reserved_shares}
    if most_free(state, asked):
        return WHOLE_MILLI
    return max((left.get(item.id, 0) for item in state.node.devices if will_do(asked, item.kind)), default=0)


def _assign_instance(state: NodeState, shape: Shape, placement: Placement) -> Placement | None:
    """A MIG instance: on a device that has some already if it fits there, else on a whole one."""
    there = {share.device: share.instances for share in state.shares if share.instances}
    whole, free = dict(free_accelerators(state)), set(state.free_devices)
    for fresh in (False, True):
        for device in _candidates(state, shape, "mig"):
            profile = _profile(device.kind, shape)
            open_here = device.id in free and whole.get(device.kind) if fresh else device.id in there
            if profile is None or not open_here:
                continue
            start = best_start(device.kind, there.get(device.id, ()), profile)
            if start is not None:
                return replace(
                    placement,
                    devices=(device.id,),
                    device_milli=share_milli(profile),
                    mig_profile=profile.name,
                    mig_start=start,
                )
    return None


def _profile(kind: str, shape: Shape) -> Profile | None:
    return profile_of(kind, shape.mig_profile) if shape.mig_profile else smallest(kind, shape.device_milli)


def what_lacks(draft: Draft, shape: Shape) -> Code:
    """The first constraint that no node meets now: nodes, pools, devices, cores, memory, gang, topology."""
    if not draft.capacity.ordered():
        return Code.NO_NODES
    if next(room(draft, shape), None) is not None:
        return Code.NO_ROOM_FOR_GANG if not shape.topology else Code.NO_ROOM_TOGETHER
    where = shape.pools or shape.infra
    if where and not any(will_take(draft.nodes[name], shape) for name in draft.node_ids()):
        return Code.NO_POOL if shape.pools else Code.NO_INFRA
    signatures = holding(draft, shape)
    if not signatures or (_is_instance(shape) and not _can_be_cut(draft, shape, signatures)):
        return Code.NO_SHARE if wants_part(shape) else Code.NO_DEVICES
    with_cores = (
        entry[2] for free in signatures for entry in draft.capacity.member(free).since(_least(shape))
    )
    if any(not where or will_take(draft.nodes[node], shape) for node in with_cores):
        return Code.NO_MEMORY
    return Code.NO_CORES


def _is_instance(shape: Shape) -> bool:
    return wants_part(shape) and (shape.sharing == "mig" or bool(shape.mig_profile))


def _can_be_cut(draft: Draft, shape: Shape, signatures: list[Signature]) -> bool:
    """Whether any node has an instance for it, whatever cores and memory it has left."""
    nodes = [entry[2] for free in signatures for entry in draft.capacity.member(free).since(())]
    return any(assign(draft.nodes[node], shape, 0) for node in nodes)


def times(shape: Shape, ranks: int, state: NodeState) -> Resources:
    """The capacity of a node that so many ranks of a shape ask for, and that it has free.

    Of alternatives it is what is free of each kind, in the order of preference.
    """
    free, amounts = dict(free_accelerators(state)), dict[str, int]()
    for asked, count in shape.accelerators:
        mine = [device.kind for device in state.node.devices if will_do(asked, device.kind)]
        kinds = sorted(set(mine), key=lambda kind: (rank_of(asked, kind), kind))
        left = ranks
        for kind in kinds:
            held = min(left, free.get(kind, 0) // count)
            amounts[kind] = amounts.get(kind, 0) + held * count
            left -= held
        amounts[kinds[0]] += left * count
    return Resources(
        cpu_milli=shape.cpu_milli * ranks,
        memory_bytes=shape.memory_bytes * ranks,
        accelerators=tuple(sorted((kind, count) for kind, count in amounts.items() if count)),
        device_milli=shape.device_milli,
        mig_profile=shape.mig_profile,
    )
