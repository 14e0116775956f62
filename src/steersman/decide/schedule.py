"""Which node and devices: gangs whole or not at all, priorities, preemption priced in lost work.

Theory of operation. Queued workloads of one shape (what a rank asks for, and how many ranks) are
interchangeable in where they fit. So the queue is kept per shape, the heads of all shapes are merged by
(priority, age), with declared queues by whose turn it is (see `quota`), and once a shape does not fit it is
dropped for the cycle: nothing later in the cycle frees room. What comes behind may start, but not so that
the first that waits for room waits longer (see `backfill`). A cycle thus costs what it starts plus one try
per shape, however long the queue is.

Best fit: among the nodes with room, those that leave the fewest accelerators idle, then those with the
fewest free cores, then by id. A gang fills nodes in that order until all its ranks have room.

When the head of a shape does not fit, runs of a lower priority that can resume may have to yield (see
`preempt`). Their room is reserved for the workload they yield to, so that nothing slips in between and
nobody is preempted twice for one need; while victims are on their way out, it waits. A head that its queue's
quota does not let in makes nobody yield for room; within the nominal quota it takes back what others borrow.
"""

from typing import NamedTuple

from msgspec.structs import replace

from steersman.decide import preempt
from steersman.decide.backfill import Guard, is_promised
from steersman.decide.fit import what_lacks
from steersman.decide.lineup import lined_up
from steersman.decide.order import Memo
from steersman.decide.placer import Placer
from steersman.decide.quota import Book
from steersman.decide.turns import Head, Turns
from steersman.model.decisions import Decision, Hold, Reserve, Start, Stop
from steersman.model.ids import RunId
from steersman.model.packing import PackingUpdate
from steersman.model.queue import Queue
from steersman.model.reasons import Code, Reason, reason
from steersman.model.snapshot import RunState, Snapshot, WorkloadState
from steersman.state.apply import apply_decision
from steersman.state.derive import shape_of
from steersman.state.draft import Draft
from steersman.state.lease import end_reservations, take_lease, take_reservations


class Schedule(NamedTuple):
    """The decisions in the order they were taken, when to look again (None: on the next event), and what was
    learned for placing."""

    decisions: tuple[Decision, ...]
    wake_at_ms: int | None
    packing: PackingUpdate | None = None


def schedule(snapshot: Snapshot, placer: Placer | None = None, memo: Memo | None = None) -> Schedule:
    """Start what fits, in order of priority and age or index; make room for what outranks what runs.

    `placer` and `memo` are of earlier cycles; the plan is the same without them.
    """
    pending = snapshot.indexes.pending
    if not pending:
        return Schedule((), None)
    draft = Draft(snapshot)
    placer = Placer() if placer is None else placer
    packing = placer.begin(snapshot)
    book = Book(draft)
    turns = Turns(book, lined_up(snapshot, Memo() if memo is None else memo, book.group))
    decisions: list[Decision] = []
    guard = Guard(draft, placer, book, decisions)
    wakes: list[int] = []
    starts, tries = 0, 0
    while turns and starts < snapshot.policy.starts_per_cycle:
        head = turns.take()
        state = draft.workloads[head.entry[2]]
        refused = book.refusal(head.shape.queue, head.asked)
        told_before = guard.was_held(head.shape)
        verdict = guard.start(state) if refused is None else refused
        if isinstance(verdict, Start):
            decisions.append(verdict)
            for placement in verdict.placements:  # nothing later in the cycle looks at more of it than this
                take_lease(draft, verdict.run, placement)
            starts += 1
            book.grant(head.shape.queue, head.asked)
            turns.done(head, next_of_shape=True)
            continue
        if not told_before:
            lowest = draft.victims.first()
            outranks = lowest is not None and lowest[0] < book.ceiling(state)
            may_preempt = outranks and tries < snapshot.policy.preempt_attempts_per_cycle
            tries += 1 if may_preempt else 0
            blocked = _waits(draft, Need(head, book, state, may_preempt), guard, verdict)
            decisions += blocked.decisions
            wakes += [] if blocked.wake_at_ms is None else [blocked.wake_at_ms]
        turns.done(head, next_of_shape=refused is None and guard.goes_on(head.shape))
    if starts >= snapshot.policy.starts_per_cycle or (starts and guard.looks_again()):
        wakes.append(snapshot.now_ms)
    return Schedule(tuple(decisions), min(wakes, default=None), packing)


class Need(NamedTuple):
    """A head that cannot start, and whether somebody may be asked to yield to it."""

    head: Head
    book: Book
    state: WorkloadState
    may_preempt: bool


def _waits(draft: Draft, need: Need, guard: Guard, why: Reason | None) -> Schedule:
    """What to do with a head that cannot start. `why`: its quota, or a promise; None: there is no room."""
    if why is not None and why.code is not Code.WAITING_BACKFILL:
        made = _refused(draft, need, why)
        guard.settle(need.state.spec.name)
        return made
    weaker = guard.lift_weaker(need.state) if need.may_preempt else []
    made = _blocked(draft, need, why)
    guard.put_back(weaker, need.state)
    guard.settle(need.state.spec.name)
    guard.passed(need.state.spec.name)
    return made


def _refused(draft: Draft, need: Need, why: Reason) -> Schedule:
    """What to do with a head that its queue's quota keeps out."""
    state, decisions, wake_ms = need.state, [], None
    queue = need.book.queues[need.head.shape.queue]
    if state.reservations and why.code is Code.OVER_QUOTA and _comes_back(draft, need, queue):
        return Schedule((), None)
    if why.code is Code.OVER_QUOTA and _reclaims(need, queue):
        need.book.close(queue, need.head.asked)
        leaving = need.book.leaving()
        if need.may_preempt and not need.book.would_fit(queue, need.head.asked, leaving):
            victims, wake_ms = preempt.reclaim(draft, need.book, state, need.head.asked)
            decisions = [_stop(draft, run, state) for run in victims]
            if victims:
                why = reason(Code.WAITING_PREEMPTION, victims=len(victims), victim=victims[0])
        elif state.reason is not None and state.reason.code is Code.WAITING_PREEMPTION:
            why = state.reason
    told: list[Decision] = []
    if state.reservations:
        told.append(Reserve(workload=state.spec.name, reservations=(), reason=why))
    elif state.reason is None or state.reason.code is not why.code:
        told.append(Hold(workload=state.spec.name, reason=why))
    for decision in (*told, *decisions):
        apply_decision(draft, decision, 0)
    return Schedule((*told, *decisions), wake_ms)


def _comes_back(draft: Draft, need: Need, queue: Queue) -> bool:
    """Whether its turn came (see `rotate`): who yields to it gives back the quota as well as the room."""
    turns = draft.policy.order != "age"
    return turns and need.book.would_fit(queue, need.head.asked, need.book.leaving())


def _reclaims(need: Need, queue: Queue) -> bool:
    lends = bool(queue.cohort) and queue.reclaim != "never"
    return lends and need.book.is_within(queue, need.head.asked)


def _stop(draft: Draft, victim: RunId, winner: WorkloadState) -> Stop:
    run = draft.runs[victim]
    loser = draft.workloads[run.workload]
    facts: dict[str, str | int] = {} if run.queue == winner.spec.queue else {"by_queue": winner.spec.queue}
    why = reason(
        Code.PREEMPTED,
        by=winner.spec.name,
        by_priority=winner.spec.priority,
        priority=loser.spec.priority,
        lost_core_ms=preempt.lost_work(run, draft.now_ms),
        **facts,
    )
    grace_ms = loser.spec.body.stop_grace_ms
    return Stop(workload=run.workload, run=victim, cause="preempted", grace_ms=grace_ms, reason=why)


def _blocked(draft: Draft, need: Need, held: Reason | None) -> Schedule:
    """What to do with a head that does not fit, or only in room that is promised to another."""
    state = need.state
    if state.reservations and _victims_leaving(draft, state):
        return Schedule((), None)
    wake_at_ms = None
    if need.may_preempt:
        made = _make_room(draft, need)
        if made.decisions:
            return made
        wake_at_ms = made.wake_at_ms
    if is_promised(state):
        return Schedule((), wake_at_ms)
    why = reason(what_lacks(draft, shape_of(state))) if held is None else held
    if state.reason is not None and state.reason.code is why.code:
        return Schedule((), wake_at_ms)
    return Schedule((Hold(workload=state.spec.name, reason=why),), wake_at_ms)


def _victims_leaving(draft: Draft, state: WorkloadState) -> bool:
    for kept in state.reservations:
        for run, _ in draft.nodes[kept.node].leases:
            holder = draft.runs.get(run)  # none: it was given its lease in this very cycle
            if holder is not None and holder.state is RunState.STOPPING:
                return True
    return False


def _make_room(draft: Draft, need: Need) -> Schedule:
    state = need.state
    name = state.spec.name
    kept = state.reservations
    if kept:
        end_reservations(draft, kept)
        state = replace(state, reservations=())
        draft.put_workload(name, state, None)
    found, wake_ms = preempt.find(draft, need.book, state, need.head.asked)
    if found is None or not found.victims:
        if is_promised(need.state):
            take_reservations(draft, kept)
            draft.put_workload(name, need.state, None)
            return Schedule((), wake_ms)
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
    decisions += [_stop(draft, victim, state) for victim in found.victims]
    for decision in decisions:
        apply_decision(draft, decision, 0)
    return Schedule(tuple(decisions), wake_ms)
