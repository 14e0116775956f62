"""Which node and devices: gangs whole or not at all, priorities, preemption priced in lost work.

Theory of operation. Queued workloads of one shape (what a rank asks for, and how many ranks) are
interchangeable in where they fit. So the queue is kept per shape, the heads of all shapes are merged by
(priority, age), and once a shape does not fit it is dropped for the cycle: nothing later in the cycle frees
room. A cycle thus costs what it starts plus one try per shape, however long the queue is.

Best fit: among the nodes with room, those that leave the fewest accelerators idle, then those with the
fewest free cores, then by id. A gang fills nodes in that order until all its ranks have room.

When the head of a shape does not fit, runs of a lower priority that can resume may have to yield (see
`preempt`). Their room is reserved for the workload they yield to, so that nothing slips in between and
nobody is preempted twice for one need; while victims are on their way out, it waits.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec.structs import replace

from steersman.decide import preempt
from steersman.decide.fit import what_lacks
from steersman.decide.placer import Placer
from steersman.decide.start import try_start
from steersman.model.decisions import Decision, Hold, Reserve, Stop
from steersman.model.packing import PackingUpdate
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import RunState, Shape, Snapshot, WorkloadState
from steersman.model.table import Entry
from steersman.state.apply import apply_decision
from steersman.state.derive import shape_of
from steersman.state.draft import Draft
from steersman.state.lease import end_reservations, take_lease


class Schedule(NamedTuple):
    """The decisions in the order they were taken, when to look again (None: on the next event), and what was
    learned for placing."""

    decisions: tuple[Decision, ...]
    wake_at_ms: int | None
    packing: PackingUpdate | None = None


def schedule(snapshot: Snapshot, placer: Placer | None = None) -> Schedule:
    """Start what fits, in order of priority and age; make room for what outranks what runs.

    `placer` is a memo of earlier cycles; the plan is the same without it.
    """
    pending = snapshot.indexes.pending
    if not pending:
        return Schedule((), None)
    draft = Draft(snapshot)
    placer = Placer() if placer is None else placer
    packing = placer.begin(snapshot)
    heads: list[tuple[Entry, Shape, Iterator[Entry]]] = []
    for shape, queue in pending.items():
        rest = iter(queue)
        heads.append((next(rest), shape, rest))
    heapify(heads)
    decisions: list[Decision] = []
    wakes: list[int] = []
    starts, tries = 0, 0
    while heads and starts < snapshot.policy.starts_per_cycle:
        entry, shape, rest = heappop(heads)
        state = draft.workloads[entry[2]]
        start = try_start(draft, state, placer)
        if start is not None:
            decisions.append(start)
            for placement in start.placements:  # nothing later in the cycle looks at more of it than this
                take_lease(draft, start.run, placement)
            starts += 1
            following = next(rest, None)
            if following is not None:
                heappush(heads, (following, shape, rest))
            continue
        lowest = draft.victims.first()
        outranks = lowest is not None and lowest[0] < state.spec.priority
        may_preempt = outranks and tries < snapshot.policy.preempt_attempts_per_cycle
        tries += 1 if may_preempt else 0
        blocked = _blocked(draft, state, may_preempt=may_preempt)
        decisions += blocked.decisions
        wakes += [] if blocked.wake_at_ms is None else [blocked.wake_at_ms]
    if starts >= snapshot.policy.starts_per_cycle:
        wakes.append(snapshot.now_ms)
    return Schedule(tuple(decisions), min(wakes, default=None), packing)


def _blocked(draft: Draft, state: WorkloadState, *, may_preempt: bool) -> Schedule:
    """What to do with a head that does not fit."""
    if state.reservations and _victims_leaving(draft, state):
        return Schedule((), None)
    if may_preempt:
        made = _make_room(draft, state)
        if made.decisions:
            return made
        wake_at_ms = made.wake_at_ms
    else:
        wake_at_ms = None
    code = what_lacks(draft, shape_of(state))
    if state.reason is not None and state.reason.code is code:
        return Schedule((), wake_at_ms)
    return Schedule((Hold(workload=state.spec.name, reason=reason(code)),), wake_at_ms)


def _victims_leaving(draft: Draft, state: WorkloadState) -> bool:
    for kept in state.reservations:
        for run, _ in draft.nodes[kept.node].leases:
            holder = draft.runs.get(run)  # none: it was given its lease in this very cycle
            if holder is not None and holder.state is RunState.STOPPING:
                return True
    return False


def _make_room(draft: Draft, state: WorkloadState) -> Schedule:
    name, priority = state.spec.name, state.spec.priority
    kept = state.reservations
    if kept:
        end_reservations(draft, kept)
        state = replace(state, reservations=())
        draft.put_workload(name, state, None)
    found, wake_ms = preempt.find(draft, shape_of(state), priority)
    if found is None or not found.victims:
        # What was kept did not come free after all: let go of it, on the record.
        why = reason(what_lacks(draft, shape_of(state)))
        freed = (Reserve(workload=name, reservations=(), reason=why),) if kept else ()
        return Schedule(freed, wake_ms)
    decisions: list[Decision] = [
        Reserve(
            workload=name,
            reservations=found.reservations,
            reason=reason(Code.WAITING_PREEMPTION, victims=len(found.victims), victim=found.victims[0]),
        )
    ]
    for victim in found.victims:
        run = draft.runs[victim]
        loser = draft.workloads[run.workload]
        why = reason(
            Code.PREEMPTED,
            by=name,
            by_priority=priority,
            priority=loser.spec.priority,
            lost_core_ms=preempt.lost_work(run, draft.now_ms),
        )
        grace_ms = loser.spec.body.stop_grace_ms
        decisions.append(
            Stop(workload=run.workload, run=victim, cause="preempted", grace_ms=grace_ms, reason=why)
        )
    for decision in decisions:
        apply_decision(draft, decision, 0)
    return Schedule(tuple(decisions), wake_ms)
