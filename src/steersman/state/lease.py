"""Leases and reservations on nodes: taking, giving back, and the arithmetic between.

A lease is taken by a `Start` and ends by proof of death of its rank; a reservation is taken by a `Reserve`
and ends when its workload starts, is held, stopped or forgotten. Neither ends by time.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from steersman.model.decisions import Placement, Reservation
from steersman.model.ids import DeviceId, RunId
from steersman.model.mig import profile_of, starts
from steersman.model.resources import WHOLE_MILLI, Resources
from steersman.model.snapshot import DeviceShare, NodeState
from steersman.state.draft import Draft


def take_lease(draft: Draft, run: RunId, placement: Placement) -> None:
    """Lease the placement's capacity to a rank."""
    after = with_lease(draft.nodes[placement.node], placement)
    assert after is not None, (run, placement)
    draft.put_node(placement.node, replace(after, leases=(*after.leases, (run, placement.rank))))


def end_lease(draft: Draft, run: RunId, placement: Placement) -> None:
    """Give back what a rank held; a node that has left the fleet goes with its last lease."""
    node = draft.nodes[placement.node]
    assert (run, placement.rank) in node.leases, (run, placement)
    leases = tuple(lease for lease in node.leases if lease != (run, placement.rank))
    if not leases and not node.declared:
        draft.put_node(placement.node, None)
        return
    draft.put_node(placement.node, replace(without_lease(node, placement), leases=leases))


def with_lease(node: NodeState, placement: Placement) -> NodeState | None:
    """The node with the placement's capacity taken; None when one of its devices is not free for it.

    Cores and memory are taken as they are asked for: whether they suffice is for the caller to look at.
    """
    free, shares = set(node.free_devices), {share.device: share for share in node.shares}
    if is_part(placement):
        (device,) = placement.devices
        before = shares.get(device)
        if before is None and device not in free:
            return None
        kind = next(item.kind for item in node.node.devices if item.id == device)
        after = _cut(before, placement, kind)
        if after is None:
            return None
        free.discard(device)
        shares[device] = after
    elif free.issuperset(placement.devices):
        free.difference_update(placement.devices)
    else:
        return None
    return _changed(node, placement, 1, free, shares)


def without_lease(node: NodeState, placement: Placement) -> NodeState:
    """The node with the placement's capacity given back. A device that has left the fleet stays away."""
    known = {device.id for device in node.node.devices}
    free, shares = set(node.free_devices), {share.device: share for share in node.shares}
    for device in placement.devices:
        if device not in known or (device in shares) != is_part(placement):
            continue  # it is gone, or is another device by now
        left = _joined(shares.pop(device), placement) if device in shares else None
        if left is None:
            free.add(device)
        else:
            shares[device] = left
    return _changed(node, placement, -1, free, shares)


def is_part(placement: Placement) -> bool:
    """Whether it holds a part of one device, and not whole ones."""
    return placement.device_milli < WHOLE_MILLI or bool(placement.mig_profile)


def _cut(share: DeviceShare | None, placement: Placement, kind: str) -> DeviceShare | None:
    """The device with one more part leased; None when there is no room, or it is shared in another mode."""
    if not placement.mig_profile:
        share = share or DeviceShare(device=placement.devices[0], free_milli=WHOLE_MILLI)
        if share.instances or share.free_milli < placement.device_milli:
            return None
        return replace(share, free_milli=share.free_milli - placement.device_milli)
    if share is not None and not share.instances:
        return None
    there = () if share is None else share.instances
    profile = profile_of(kind, placement.mig_profile)
    if profile is None or placement.mig_start not in starts(kind, there, profile):
        return None
    instances = (*there, (placement.mig_profile, placement.mig_start))
    return DeviceShare(
        device=placement.devices[0], instances=tuple(sorted(instances, key=lambda item: item[1]))
    )


def _joined(share: DeviceShare, placement: Placement) -> DeviceShare | None:
    """The device with a part given back; None when all of it is free again."""
    if placement.mig_profile:
        gone = (placement.mig_profile, placement.mig_start)
        instances = tuple(item for item in share.instances if item != gone)
        return replace(share, instances=instances) if instances else None
    free_milli = share.free_milli + placement.device_milli
    return None if free_milli == WHOLE_MILLI else replace(share, free_milli=free_milli)


def _changed(
    node: NodeState, placement: Placement, sign: int, free: set[DeviceId], shares: dict[DeviceId, DeviceShare]
) -> NodeState:
    return replace(
        node,
        used_cpu_milli=node.used_cpu_milli + sign * placement.cpu_milli,
        used_memory_bytes=node.used_memory_bytes + sign * placement.memory_bytes,
        free_devices=tuple(sorted(free)),
        shares=tuple(shares[device] for device in sorted(shares)),
    )


def _shift(
    before: tuple[tuple[str, int], ...], by: Iterable[tuple[str, int]], sign: int
) -> tuple[tuple[str, int], ...]:
    counts = dict(before)
    for kind, count in by:
        counts[kind] = counts.get(kind, 0) + sign * count
    return tuple(sorted((kind, count) for kind, count in counts.items() if count))


def with_reservation(node: NodeState, amount: Resources, sign: int = 1) -> NodeState:
    """The node with so much of it kept for one workload; with a sign of -1, no longer kept."""
    part = amount.device_milli < WHOLE_MILLI or bool(amount.mig_profile)
    kept = () if part else amount.accelerators
    return replace(
        node,
        reserved_cpu_milli=node.reserved_cpu_milli + sign * amount.cpu_milli,
        reserved_memory_bytes=node.reserved_memory_bytes + sign * amount.memory_bytes,
        reserved_accelerators=_shift(node.reserved_accelerators, kept, sign),
        reserved_shares=node.reserved_shares + (sign if part else 0),
    )


def _reserve(draft: Draft, reservation: Reservation, sign: int) -> None:
    node = draft.nodes[reservation.node]
    draft.put_node(reservation.node, with_reservation(node, reservation.amount, sign))


def take_reservations(draft: Draft, reservations: tuple[Reservation, ...]) -> None:
    """Keep capacity for one workload."""
    for reservation in reservations:
        _reserve(draft, reservation, 1)


def end_reservations(draft: Draft, reservations: tuple[Reservation, ...]) -> None:
    """Let go of it."""
    for reservation in reservations:
        _reserve(draft, reservation, -1)


def with_fleet_node(draft: Draft, before: NodeState | None, after: NodeState) -> NodeState:
    """A declared node that replaces or joins what is there; leases in force stay in force.

    Which devices are leased is asked of the leases: a device may have left the fleet and come back.
    """
    if before is None:
        return after
    devices = {device.id for device in after.node.devices}
    made = replace(after, leases=before.leases)
    for run, rank in before.leases:
        placement = draft.runs[run].ranks[rank].placement
        here = tuple(device for device in placement.devices if device in devices)
        held = with_lease(made, replace(placement, devices=here)) if here else made
        made = made if held is None else held  # its part is of a kind that the device no longer is
    return replace(before, node=after.node, declared=True, free_devices=made.free_devices, shares=made.shares)
