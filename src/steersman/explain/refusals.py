"""What is in the way of a queued workload, recomputed from the snapshot: node by node, the first constraint.

The journal holds only the code of a refusal and when it changed; the rest follows from the state.
"""

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
from steersman.model.ids import NodeId, RunId
from steersman.model.reasons import Code
from steersman.model.snapshot import NodeState, Run, RunState, Shape, Snapshot, WorkloadState
from steersman.state.derive import shape_of, takes_work
from steersman.state.draft import Draft

TOP = 3
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
    """A run in the way. `why_not` is empty when it may be preempted."""

    run: RunId
    workload: str
    priority: int
    lost_core_ms: int
    why_not: str = ""


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
        return Refusal(node=name, code=Code.NO_POOL)
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


def rivals(snapshot: Snapshot, state: WorkloadState) -> tuple[Rival, ...]:
    """The runs that hold capacity, and for each why it need not yield: cheapest in lost work first."""
    book = Book(Draft(snapshot))
    found = [_rival(snapshot, book, state, snapshot.runs[RunId(run)]) for (run,) in snapshot.indexes.live]
    return tuple(sorted(found, key=lambda rival: (bool(rival.why_not), rival.lost_core_ms, rival.run))[:TOP])


def _rival(snapshot: Snapshot, book: Book, state: WorkloadState, run: Run) -> Rival:
    holder = snapshot.workloads[run.workload]
    return Rival(
        run=run.id,
        workload=run.workload,
        priority=holder.spec.priority,
        lost_core_ms=lost_work(run, snapshot.now_ms),
        why_not=_why_not(snapshot, book, state, run),
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
