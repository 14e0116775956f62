"""What is in the way of a queued workload, recomputed from the snapshot: node by node, the first constraint.

The journal holds only the code of a refusal and when it changed; the rest follows from the state.
"""

from collections.abc import Mapping

import msgspec

from steersman.decide.fit import (
    assign,
    free_cores,
    free_memory,
    largest_part,
    most_free,
    wants_part,
    will_take,
)
from steersman.decide.preempt import lost_work, protected_until_ms
from steersman.decide.quota import Book, demand
from steersman.model.devices import will_do
from steersman.model.fleet import is_within
from steersman.model.ids import NodeId, RunId
from steersman.model.reasons import Code
from steersman.model.snapshot import NodeState, Run, RunState, Shape, Snapshot, WorkloadState
from steersman.state.derive import shape_of, takes_work
from steersman.state.draft import Draft

TOP = 3
ROOM = frozenset(
    {
        Code.NO_CORES,
        Code.NO_MEMORY,
        Code.NO_DEVICES,
        Code.NO_SHARE,
        Code.NO_ROOM_FOR_GANG,
        Code.NO_ROOM_TOGETHER,
        Code.WAITING_PREEMPTION,
        Code.ROOM_PROMISED,
    }
)
"""Reasons to wait that the ends of others' runs take away."""
QUOTAS = frozenset({Code.OVER_QUOTA, Code.WAITING_FAIR_SHARE})
"""Reasons to wait that runs of the same cohort are behind."""
REFUSALS_SHOWN_MAX = 10
"""Nodes that an explanation names one by one."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One node and the first constraint that it does not meet for one rank.

    `asked` and `free` are in the unit of the constraint: devices, thousandths of one, millicores, bytes.
    """

    node: NodeId
    code: Code
    asked: int = 0
    free: int = 0


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the way. `why_not` is empty when it may be preempted; what does not `resume` never may."""

    run: RunId
    workload: str
    priority: int
    lost_core_ms: int
    why_not: str = ""
    resumes: bool = True


def refusals(snapshot: Snapshot, state: WorkloadState) -> tuple[Refusal, ...]:
    """Every node without room for one rank, by id."""
    found = (refuse(node, state) for _, node in snapshot.nodes.sorted_items())
    return tuple(refusal for refusal in found if refusal is not None)


def refuse(node: NodeState, state: WorkloadState) -> Refusal | None:
    """The first constraint that the node does not meet: takes work, pool, devices, cores, memory."""
    name, asked, shape = node.node.id, state.spec.resources, shape_of(state)
    if not takes_work(node):
        return Refusal(node=name, code=Code.NO_NODES)
    if not will_take(node, shape):
        there = is_within(node.node.infra, shape.infra)
        return Refusal(node=name, code=Code.NO_POOL if there else Code.NO_INFRA)
    if assign(node, shape, 0) is None:
        return _without_devices(node, shape)
    cpu, memory = free_cores(node), free_memory(node)
    if cpu < asked.cpu_milli:
        return Refusal(node=name, code=Code.NO_CORES, asked=asked.cpu_milli, free=max(cpu, 0))
    if memory < asked.memory_bytes:
        return Refusal(node=name, code=Code.NO_MEMORY, asked=asked.memory_bytes, free=max(memory, 0))
    return None


def _without_devices(node: NodeState, shape: Shape) -> Refusal:
    name = node.node.id
    if wants_part(shape):
        largest = largest_part(node, shape)
        return Refusal(node=name, code=Code.NO_SHARE, asked=shape.device_milli, free=largest)
    lacks = ((count, most_free(node, kind)) for kind, count in shape.accelerators)
    count, free = next(pair for pair in lacks if pair[1] < pair[0])
    return Refusal(node=name, code=Code.NO_DEVICES, asked=count, free=free)


def counts(found: tuple[Refusal, ...]) -> tuple[tuple[Code, int], ...]:
    """How many nodes each constraint ruled out: the top three, the most first."""
    tally: dict[Code, int] = {}
    for refusal in found:
        tally[refusal.code] = tally.get(refusal.code, 0) + 1
    return tuple(sorted(tally.items(), key=lambda item: (-item[1], item[0]))[:TOP])


def rivals(snapshot: Snapshot, state: WorkloadState, why: Code) -> tuple[Rival, ...]:
    """The runs that hold what it waits for, and why each need not yield: cheapest in lost work first."""
    book, found = Book(Draft(snapshot)), list[Rival]()
    lacks: dict[NodeId, Code | None] = {}
    if why in ROOM:
        lacks = {node.node.id: _lack(node, state) for _, node in snapshot.nodes.sorted_items()}
    for (name,) in snapshot.indexes.live:
        run = snapshot.runs[RunId(name)]
        if _holds_room(snapshot, lacks, state, run) or (why in QUOTAS and _holds_quota(book, state, run)):
            found.append(_rival(snapshot, book, state, run))
    return tuple(sorted(found, key=lambda rival: (bool(rival.why_not), rival.lost_core_ms, rival.run)))


def _lack(node: NodeState, state: WorkloadState) -> Code | None:
    """What the ranks of others hold there that is in the way; None: nothing."""
    refusal = refuse(node, state)
    if refusal is not None:
        return refusal.code
    if state.spec.body.num_nodes == 1:
        return None
    return Code.NO_DEVICES if state.spec.resources.accelerators else Code.NO_CORES


def _holds_room(
    snapshot: Snapshot, lacks: Mapping[NodeId, Code | None], state: WorkloadState, run: Run
) -> bool:
    wanted = [kind for kind, _ in state.spec.resources.accelerators]
    for rank in run.ranks:
        placement = rank.placement
        lack = lacks.get(placement.node)
        if lack is Code.NO_DEVICES or lack is Code.NO_SHARE:
            there = snapshot.nodes[placement.node].node.devices
            held = [device.kind for device in there if device.id in placement.devices]
            if any(will_do(asked, kind) for asked in wanted for kind in held):
                return True
        amounts = {Code.NO_CORES: placement.cpu_milli, Code.NO_MEMORY: placement.memory_bytes}
        if lack is not None and amounts.get(lack):
            return True
    return False


def _holds_quota(book: Book, state: WorkloadState, run: Run) -> bool:
    mine, theirs = book.queues.get(state.spec.queue), book.queues.get(run.queue)
    if mine is None or theirs is None:
        return False
    return mine.name == theirs.name or bool(mine.cohort and mine.cohort == theirs.cohort)


def _rival(snapshot: Snapshot, book: Book, state: WorkloadState, run: Run) -> Rival:
    holder = snapshot.workloads[run.workload]
    return Rival(
        run=run.id,
        workload=run.workload,
        priority=holder.spec.priority,
        lost_core_ms=lost_work(run, snapshot.now_ms),
        why_not=_why_not(snapshot, book, state, run),
        resumes=holder.spec.body.checkpoint.enabled,
    )


def _why_not(snapshot: Snapshot, book: Book, state: WorkloadState, run: Run) -> str:
    holder = snapshot.workloads[run.workload]
    if run.state is RunState.STOPPING:
        return "is already on its way out"
    if not book.may_yield(state, demand(shape_of(state)), run, holder):
        return _stays(book, state, run, holder)
    if not holder.spec.body.checkpoint.enabled:
        return "cannot resume: it saves no checkpoints"
    if protected_until_ms(run, snapshot.policy.preempt_run_ms_min) > snapshot.now_ms:
        return "has only just begun"
    return ""


def _stays(book: Book, state: WorkloadState, run: Run, holder: WorkloadState) -> str:
    if run.queue in book.queues and run.queue != state.spec.queue:
        return f"is within what queue {run.queue} may keep"
    if holder.spec.priority >= state.spec.priority:
        return "has the same or a higher priority"
    return f"nobody yields within queue {run.queue}"
