"""Starting one queued workload: its ranks on nodes and devices, all of them or none. A part of `schedule`.

Theory of operation. A single rank goes where it takes the least away from what is still to come (`placer`);
the ranks of a gang go by best fit, which fills nodes and so keeps them close together. A part of a device
that may be made in any mode becomes a MIG instance where there is one, for that keeps memory and faults
apart, else a time slice. The reason of the start says which, and what isolation that gives.

A replica goes, by best fit, to a node where no other of its service is, when one of the first nodes with room
is such: then a node that is lost takes one of them.
"""

from itertools import islice

from msgspec.structs import replace

from steersman.decide.fit import Chosen, placements, room, spread, wants_part
from steersman.decide.placer import Placer, is_for_packer
from steersman.model.decisions import Placement, Start
from steersman.model.ids import run_id, workload_of
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import Shape, WorkloadState
from steersman.state.derive import shape_of
from steersman.state.draft import Draft
from steersman.state.lease import end_reservations, is_part, take_reservations

ISOLATION = {"whole": "device", "mig": "memory and faults", "time-slice": "none"}
"""What keeps a rank apart from others on its device, by sharing mode."""
APART_LOOKS_MAX = 64
"""Nodes with room that are looked at for a replica."""


def try_start(draft: Draft, state: WorkloadState, placer: Placer) -> Start | None:
    """The start of a queued workload, all its ranks; None when there is no room for them now."""
    shape = shape_of(state)
    kept = state.reservations
    if kept:
        end_reservations(draft, kept)
        draft.put_workload(state.spec.name, replace(state, reservations=()), None)
    apart = None if state.service is None else _apart(draft, state, shape)
    placed = _place(draft, shape, placer) if apart is None else apart
    if placed is None:
        if kept:
            take_reservations(draft, kept)
            draft.put_workload(state.spec.name, state, None)
        return None
    nodes = len({placement.node for placement in placed})
    facts: dict[str, str | int] = {"node": placed[0].node, "nodes": nodes, "ranks": len(placed)}
    facts |= _sharing_facts(placed[0])
    if apart is not None:
        facts["apart"] = 1
    if state.saved_step is not None:
        facts["saved_step"] = state.saved_step
    return Start(
        workload=state.spec.name,
        run=run_id(state.spec.name, draft.observed_at),
        placements=placed,
        checkpoint_interval_ms=_interval_ms(state),
        reason=reason(Code.PLACED, **facts),
    )


def _apart(draft: Draft, state: WorkloadState, shape: Shape) -> tuple[Placement, ...] | None:
    """The lease of a replica on a node without another of its service; None when none is seen at once."""
    service = None if state.service is None else draft.services.get(state.service)
    refs = () if service is None else service.replicas
    others = {ref.name for ref in refs if not ref.retiring and ref.name != state.spec.name}
    if not others or shape.num_nodes != 1:
        return None
    for node, _ in islice(room(draft, shape), APART_LOOKS_MAX):
        if not any(workload_of(run) in others for run, _ in draft.nodes[node].leases):
            return placements(draft, shape, [Chosen(node, 1)])
    return None


def _place(draft: Draft, shape: Shape, placer: Placer) -> tuple[Placement, ...] | None:
    """Leases for all ranks, or None."""
    if wants_part(shape) and shape.sharing == "auto" and placer.has_mig():
        instances = shape._replace(sharing="mig")
        chosen = spread(draft, instances)
        if chosen is not None:
            return placements(draft, instances, chosen)
    if is_for_packer(shape):
        single = placer.place(draft, shape)
        if single is not None or not placer.has_mixed():
            return None if single is None else (single,)
    chosen = spread(draft, shape)
    return None if chosen is None else placements(draft, shape, chosen)


def _sharing_facts(placement: Placement) -> dict[str, str | int]:
    """How the rank has its device, told when it is a part of one."""
    if not is_part(placement):
        return {}
    mode = "mig" if placement.mig_profile else "time-slice"
    facts: dict[str, str | int] = {"sharing": mode, "isolation": ISOLATION[mode]}
    if placement.mig_profile:
        return facts | {"profile": placement.mig_profile}
    return facts | {"milli": placement.device_milli}


def _interval_ms(state: WorkloadState) -> int | None:
    """The declared interval, else the one that `recover` tuned, else the smallest that is allowed."""
    declared = state.spec.body.checkpoint
    if not declared.enabled:
        return None
    if declared.interval_ms is not None:
        return declared.interval_ms
    return declared.interval_ms_min if state.interval_ms is None else state.interval_ms
