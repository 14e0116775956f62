"""Leases and reservations on nodes: taking, giving back, and the arithmetic between.

A lease is taken by a `Start` and ends by proof of death of its rank; a reservation is taken by a `Reserve`
and ends when its workload starts, is held, stopped or forgotten. Neither ends by time.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from steersman.model.decisions import Placement, Reservation
from steersman.model.ids import RunId
from steersman.model.resources import Resources
from steersman.model.snapshot import NodeState
from steersman.state.draft import Draft


def take_lease(draft: Draft, run: RunId, placement: Placement) -> None:
    """Lease the placement's capacity to a rank."""
    node = draft.nodes[placement.node]
    taken = set(placement.devices)
    assert taken <= set(node.free_devices), (run, placement)
    draft.put_node(
        placement.node,
        replace(
            node,
            used_cpu_milli=node.used_cpu_milli + placement.cpu_milli,
            used_memory_bytes=node.used_memory_bytes + placement.memory_bytes,
            free_devices=tuple(device for device in node.free_devices if device not in taken),
            leases=(*node.leases, (run, placement.rank)),
        ),
    )


def end_lease(draft: Draft, run: RunId, placement: Placement) -> None:
    """Give back what a rank held; a node that has left the fleet goes with its last lease."""
    node = draft.nodes[placement.node]
    assert (run, placement.rank) in node.leases, (run, placement)
    leases = tuple(lease for lease in node.leases if lease != (run, placement.rank))
    if not leases and not node.declared:
        draft.put_node(placement.node, None)
        return
    known = {device.id for device in node.node.devices}
    back = {device for device in placement.devices if device in known}
    draft.put_node(
        placement.node,
        replace(
            node,
            used_cpu_milli=node.used_cpu_milli - placement.cpu_milli,
            used_memory_bytes=node.used_memory_bytes - placement.memory_bytes,
            free_devices=tuple(sorted({*node.free_devices, *back})),
            leases=leases,
        ),
    )


def _shift(
    before: tuple[tuple[str, int], ...], by: Iterable[tuple[str, int]], sign: int
) -> tuple[tuple[str, int], ...]:
    counts = dict(before)
    for kind, count in by:
        counts[kind] = counts.get(kind, 0) + sign * count
    return tuple(sorted((kind, count) for kind, count in counts.items() if count))


def _reserve(draft: Draft, reservation: Reservation, sign: int) -> None:
    node = draft.nodes[reservation.node]
    amount: Resources = reservation.amount
    draft.put_node(
        reservation.node,
        replace(
            node,
            reserved_cpu_milli=node.reserved_cpu_milli + sign * amount.cpu_milli,
            reserved_memory_bytes=node.reserved_memory_bytes + sign * amount.memory_bytes,
            reserved_accelerators=_shift(node.reserved_accelerators, amount.accelerators, sign),
        ),
    )


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
    leased = {
        device for run, rank in before.leases for device in draft.runs[run].ranks[rank].placement.devices
    }
    return replace(
        before,
        node=after.node,
        declared=True,
        free_devices=tuple(sorted(devices - leased)),
    )
