"""What comes behind who waits for room may not delay it: EASY backfilling. A part of `schedule`.

Theory of operation. A workload that does not fit is passed over, and what comes behind it starts where there
is room. So that a gang is not passed over for ever, the first that somebody is about to pass on nodes that it
could use is promised room: nodes whose runs end soonest (`vacancy`), kept for it by reservations while they
come free. The reservations are the memory: a promise stands from cycle to cycle until its workload starts, so
nodes do not flap, and it starts anywhere else if it fits there first.

What comes behind starts beside the promised room. Inside of it, it starts when it has ended for sure by the
time the promised start is expected (EASY's shadow time), or when the promised ranks still fit on the node
beside it by then. Likewise for quota: what it takes for longer must leave what the promised one asks for.

One workload is promised room for each kind of capacity (pools and accelerators that it names): the first in
line. EASY protects only the first of all; but in a mixed fleet a gang that waits for H100s would then leave
those that wait for A100s to starve. A strictly higher priority is never held back: when it breaks a promise,
that is taken back and made anew when next somebody would pass. Where nobody knows when room comes free, a
workload is promised room only once it has waited for the policy's patience; its nodes then drain.

The promised start never moves later while every run keeps to its `max_duration`, starts without delay, and
nothing of a higher priority comes. A promise costs one walk over the ends of runs, when it is made.
"""

from collections.abc import Iterable
from typing import NamedTuple

from steersman.decide.fit import ranks_on, what_lacks
from steersman.decide.placer import Placer
from steersman.decide.quota import Book, demand
from steersman.decide.start import try_start
from steersman.decide.vacancy import (
    Begun,
    Lease,
    Started,
    begun,
    by_draining,
    by_time,
    could_hold,
    latest_end_ms,
    leases_of,
)
from steersman.model.decisions import Decision, Placement, Reservation, Reserve, Start
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.reasons import Code, Reason, reason
from steersman.model.snapshot import NodeState, Shape, WorkloadState
from steersman.state.apply import apply_decision
from steersman.state.derive import shape_of
from steersman.state.draft import Draft
from steersman.state.lease import (
    end_reservations,
    take_reservations,
    with_lease,
    with_reservation,
    without_lease,
)

PROMISES_TRIED_MAX = 4
"""Walks of a cycle."""
LOOKS_MAX = 256
"""Workloads of a cycle that are looked at though the first of their shape was held back."""
NODES_LIFTED_MAX = 4_096
"""Nodes of which promises are lifted for a try, summed over the tries of a cycle."""


def is_promised(state: WorkloadState) -> bool:
    """Whether room is kept for it as it comes free, and not because others yield to it."""
    told = state.reason is not None and state.reason.code is Code.ROOM_PROMISED
    return told and bool(state.reservations)


def waited_ms(state: WorkloadState, now_ms: int) -> int:
    """For how long it has waited: since it was declared, or its last run ended."""
    ended_ms = 0 if state.last_run is None else state.last_run.ended_ms or 0
    return now_ms - max(state.declared_ms, state.not_before_ms, ended_ms)


class Promise:
    """Room promised to one workload, in one cycle: by when it is there, and what may come beside it."""

    def __init__(self, draft: Draft, started: Started, state: WorkloadState, *, fresh: bool) -> None:
        self.spec, self.shape, self.kept = state.spec, shape_of(state), state.reservations
        self.ranks = {item.node: _ranks_of(item, self.shape) for item in self.kept}
        self._draft, self._started = draft, started
        facts = {} if state.reason is None else dict(state.reason.facts)
        self._made_ms, self._first = (
            int(facts.get("made_ms", 0)),
            frozenset(started) if fresh else frozenset(),
        )
        self._until: list[int | None] = []
        self._later: dict[NodeId, NodeState] = {}

    def until_ms(self) -> int | None:
        """By when the promised room is there; None: nobody knows."""
        if not self._until:
            ready = [self._ready_ms(node) for node in self.ranks]
            known = [at for at in ready if at is not None]
            self._until.append(max(known) if len(known) == len(ready) else None)
        return self._until[0]

    def allows(self, placements: Iterable[Placement], end_ms: int | None) -> bool:
        """Whether these leases, which end by then (None: nobody knows), do not delay it."""
        until_ms = self.until_ms()
        if until_ms is not None and end_ms is not None and end_ms <= until_ms:
            return True
        after: dict[NodeId, NodeState] = {}
        for placement in placements:
            node = placement.node
            if node in self.ranks:
                state = with_lease(after.get(node) or self._then(node), placement)
                assert state is not None, placement  # it is free now, so it is then
                after[node] = state
        return all(ranks_on(state, self.shape) >= self.ranks[node] for node, state in after.items())

    def may_hold(self, shape: Shape) -> bool:
        """Whether any of its nodes could have room for a rank if nothing were kept there: a quick look."""
        for name in self.ranks:
            state = self._draft.nodes[name]
            if (
                state.node.cpu_milli - state.used_cpu_milli >= shape.cpu_milli
                and state.node.memory_bytes - state.used_memory_bytes >= shape.memory_bytes
                and (state.free_devices or state.shares or not shape.accelerators)
            ):
                return True
        return False

    def look_again(self, placements: Iterable[Placement]) -> None:
        """These leases were taken."""
        for placement in placements:
            self._later.pop(placement.node, None)

    def _now(self, node: NodeId) -> NodeState:
        """The node as it is, without what is kept of it for this promise."""
        state = self._draft.nodes[node]
        for item in self.kept:
            if item.node == node:
                state = with_reservation(state, item.amount, -1)
        return state

    def _ready_ms(self, node: NodeId) -> int | None:
        """By when the node holds its ranks."""
        state, at_ms = self._now(node), self._draft.now_ms
        leases = list(leases_of(self._draft, self._started, state))
        for lease in sorted(leases, key=lambda item: (item.end_ms is None, item.end_ms or 0)):
            if lease.end_ms is None or ranks_on(state, self.shape) >= self.ranks[node]:
                break
            state, at_ms = without_lease(state, lease.placement), lease.end_ms
        return at_ms if ranks_on(state, self.shape) >= self.ranks[node] else None

    def _then(self, node: NodeId) -> NodeState:
        """The node as it will be when the promised start is expected."""
        if node not in self._later:
            leases = list(leases_of(self._draft, self._started, self._now(node)))
            state = self._without(node, [lease for lease in leases if self._goes(lease, forced=False)])
            if ranks_on(state, self.shape) < self.ranks[node]:
                state = self._without(node, [lease for lease in leases if self._goes(lease, forced=True)])
            self._later[node] = state
        return self._later[node]

    def _without(self, node: NodeId, leases: Iterable[Lease]) -> NodeState:
        state = self._now(node)
        for lease in leases:
            state = without_lease(state, lease.placement)
        return state

    def _goes(self, lease: Lease, *, forced: bool) -> bool:
        """Whether the promise counts on the end of a lease: of one that ends in time; or, where nobody knows,
        of one that was there when the promise was made. What came later stays beside it for ever, for all
        that is known: else each newcomer would count on the end of the others."""
        until_ms = self.until_ms()
        if until_ms is not None:
            return lease.end_ms is not None and lease.end_ms <= until_ms
        known = lease.run in self._started
        first = lease.run in self._first if known else lease.since_ms < self._made_ms
        return first and (lease.ends or forced)


def _ranks_of(kept: Reservation, shape: Shape) -> int:
    """How many ranks of a shape a reservation is for."""
    if shape.cpu_milli:
        return kept.amount.cpu_milli // shape.cpu_milli
    if shape.memory_bytes:
        return kept.amount.memory_bytes // shape.memory_bytes
    asked = sum(count for _, count in shape.accelerators)
    return sum(count for _, count in kept.amount.accelerators) // asked if asked else shape.num_nodes


class _Limit(NamedTuple):
    """By when a workload of a shape has to have ended so that it may start; and what is said of one that
    may not."""

    until_ms: int | None
    why: Reason


class Guard:
    """Starts of one cycle, none of which breaks a promise; promises made and taken back go to `decisions`."""

    def __init__(self, draft: Draft, placer: Placer, book: Book, decisions: list[Decision]) -> None:
        self._draft, self._placer, self._book, self._decisions = draft, placer, book, decisions
        # By the index jobs take turns: room is made for who is first, and a promise would be another order.
        by_age = draft.policy.order == "age"
        self._patience_ms = draft.policy.backfill_patience_ms if by_age else None
        self._promises: dict[WorkloadName, Promise] = {}
        self._started: dict[RunId, Begun] = {}
        self._passed: dict[object, WorkloadName] = {}
        self._tried: set[object] = set()
        self._limits: dict[Shape, _Limit] = {}
        self._looks, self._lifts = LOOKS_MAX, NODES_LIFTED_MAX
        self._again = False
        for (name,) in list(draft.kept.since(())):
            state = draft.workloads[name]
            if is_promised(state):
                self._promises[name] = promise = Promise(draft, self._started, state, fresh=False)
                if self._patience_ms is None:
                    self._take_back(promise)

    def looks_again(self) -> bool:
        """Whether somebody was not tried for want of tries, or was held back for who started after it."""
        return self._again or self._lifts <= 0

    def start(self, state: WorkloadState) -> Start | Reason | None:
        """The start of a queued workload; why it is held back; None when there is no room for it anyway."""
        start = try_start(self._draft, state, self._placer)
        if start is not None and state.spec.name in self._promises:
            return self._begin(state, start)
        if start is not None and self._would_pass(state, start):
            self._undo(state, start)
            start = try_start(self._draft, state, self._placer)
        if start is None:
            return self._inside(state)
        return self._judged(state, start, beside=True)

    def goes_on(self, shape: Shape) -> bool:
        """Whether others of a shape of which one was held back are to be looked at."""
        self._looks -= 1
        limit = self._limits.get(shape)
        return limit is not None and limit.until_ms is not None and self._looks >= 0

    def was_held(self, shape: Shape) -> bool:
        """Whether one of the shape was held back before, which is all that is to be said of it."""
        return shape in self._limits

    def settle(self, name: WorkloadName) -> None:
        """Something was decided on a workload that cannot start: what was promised to it may be no more, for
        others yield to it, or its queue does not let it in."""
        if name in self._promises and not is_promised(self._draft.workloads[name]):
            del self._promises[name]

    def passed(self, name: WorkloadName) -> None:
        """A workload has no room: if nobody came before it, it is the one that is not to be delayed."""
        state = self._draft.workloads[name]
        if not state.reservations and self._patience_ms is not None:
            shape = shape_of(state)
            holder = self._holder(shape)
            if holder is None or holder.spec.priority < state.spec.priority:
                self._passed.setdefault(_kind(shape), name)

    def lift_weaker(self, state: WorkloadState) -> list[Promise]:
        """Let go of what is promised to lower priorities, for a while."""
        weaker = self._weaker(state)
        for promise in weaker:
            end_reservations(self._draft, promise.kept)
        return weaker

    def put_back(self, weaker: list[Promise], state: WorkloadState) -> None:
        """Keep it again, but for what the workload was given now."""
        mine = {item.node for item in self._draft.workloads[state.spec.name].reservations}
        for promise in weaker:
            take_reservations(self._draft, promise.kept)
            if mine.intersection(promise.ranks):
                self._take_back(promise)

    def _weaker(self, state: WorkloadState) -> list[Promise]:
        return [item for item in self._promises.values() if item.spec.priority < state.spec.priority]

    def _holder(self, shape: Shape) -> Promise | None:
        there = (item for item in self._promises.values() if _kind(item.shape) == _kind(shape))
        return next(there, None)

    def _would_pass(self, state: WorkloadState, start: Start) -> bool:
        """Whether room was promised to somebody before the workload, on whose nodes it would have started."""
        made = False
        for kind, name in list(self._passed.items()):
            first = self._draft.workloads[name]
            nodes = (self._draft.nodes[placement.node] for placement in start.placements)
            if (
                kind not in self._tried
                and len(self._tried) < PROMISES_TRIED_MAX
                and first.spec.priority >= state.spec.priority
                and any(could_hold(node, shape_of(first)) for node in nodes)
            ):
                self._tried.add(kind)
                made = self._promise(first) or made
        return made

    def _promise(self, state: WorkloadState) -> bool:
        """Keep room for a workload, if it can be told where."""
        shape, draft, now_ms = shape_of(state), self._draft, self._draft.now_ms
        holder = self._holder(shape)
        if holder is not None:
            end_reservations(draft, holder.kept)
        coming = by_time(draft, shape, self._started)
        if coming is None and waited_ms(state, now_ms) >= (self._patience_ms or 0):
            coming = by_draining(draft, shape, self._started)
        if holder is not None:
            take_reservations(draft, holder.kept)
        if coming is None:
            return False
        if holder is not None:
            self._take_back(holder)
        facts: dict[str, str | int] = {"node": coming.kept[0].node, "nodes": len(coming.kept)}
        facts["made_ms"] = now_ms
        why = reason(Code.ROOM_PROMISED, **facts, **_left(coming.until_ms, now_ms))
        self._reserve(Reserve(workload=state.spec.name, reservations=coming.kept, reason=why))
        promise = Promise(draft, self._started, draft.workloads[state.spec.name], fresh=True)
        self._promises[state.spec.name] = promise
        return True

    def _take_back(self, promise: Promise) -> None:
        why = reason(what_lacks(self._draft, promise.shape))
        self._reserve(Reserve(workload=promise.spec.name, reservations=(), reason=why))
        del self._promises[promise.spec.name]

    def _reserve(self, decision: Reserve) -> None:
        apply_decision(self._draft, decision, 0)
        self._decisions.append(decision)

    def _inside(self, state: WorkloadState) -> Start | Reason | None:
        """A start in promised room."""
        limit, end_ms = self._limits.get(shape_of(state)), latest_end_ms(state, self._draft.now_ms)
        if (
            limit is not None
            and limit.until_ms is not None
            and (end_ms or limit.until_ms + 1) > limit.until_ms
        ):
            return limit.why
        verdict: Start | Reason | None = None
        weaker = self._weaker(state)
        everyone = [item for item in self._promises.values() if item.spec.name != state.spec.name]
        for lifted in (
            (weaker, everyone) if 0 < len(weaker) < len(everyone) else (everyone,) if everyone else ()
        ):
            start = self._lifted(lifted, state)
            if start is not None:
                if self._would_pass(state, start):
                    self._undo(state, start)
                    return self._inside(state)
                verdict = self._judged(state, start, beside=False)
                if isinstance(verdict, Start):
                    break
        return verdict

    def _lifted(self, promises: list[Promise], state: WorkloadState) -> Start | None:
        """A start that may take what is kept for these."""
        shape = shape_of(state)
        if self._lifts <= 0 or not any(promise.may_hold(shape) for promise in promises):
            return None
        self._lifts -= sum(len(promise.kept) for promise in promises)
        for promise in promises:
            end_reservations(self._draft, promise.kept)
        start = try_start(self._draft, state, self._placer)
        for promise in promises:
            take_reservations(self._draft, promise.kept)
        return start

    def _judged(self, state: WorkloadState, start: Start, *, beside: bool) -> Start | Reason:
        """The start, or why not. `beside`: it takes nothing of what is kept for others."""
        end_ms = latest_end_ms(state, self._draft.now_ms)
        delayed = [
            item
            for item in self._promises.values()
            if item.spec.name != state.spec.name
            and (
                not (beside or item.allows(start.placements, end_ms))
                or self._takes_quota(state, item, end_ms)
            )
        ]
        refusing = [item for item in delayed if item.spec.priority >= state.spec.priority]
        if refusing:
            self._undo(state, start)
            return self._held(state, refusing)
        for promise in delayed:
            self._take_back(promise)
        return self._begin(state, start)

    def _takes_quota(self, state: WorkloadState, promise: Promise, end_ms: int | None) -> bool:
        """Whether it would hold quota, for longer, that the promised workload needs."""
        book, until_ms = self._book, promise.until_ms() if self._book.queues else None
        if promise.spec.queue not in book.queues or (end_ms is not None and end_ms <= (until_ms or 0)):
            return False
        asked = demand(shape_of(state))
        book.grant(state.spec.queue, asked)
        refused = book.refusal(promise.spec.queue, demand(promise.shape))
        book.grant(state.spec.queue, asked, -1)
        return refused is not None

    def _held(self, state: WorkloadState, refusing: list[Promise]) -> Reason:
        """Why it is held back, for whom, and what it would have to declare to start now."""
        now_ms = self._draft.now_ms
        untils = [promise.until_ms() for promise in refusing]
        known = [at for at in untils if at is not None]
        until_ms = min(known) if len(known) == len(untils) else None
        facts: dict[str, str | int] = {"by": refusing[0].spec.name, **_left(until_ms, now_ms)}
        most_ms = 0 if until_ms is None else until_ms - now_ms - state.spec.body.stop_grace_ms
        if most_ms > 0 and state.spec.body.program == "command":
            facts["max_duration_ms"] = most_ms
        why = reason(Code.WAITING_BACKFILL, **facts)
        self._limits.setdefault(shape_of(state), _Limit(until_ms, why))
        return why

    def _begin(self, state: WorkloadState, start: Start) -> Start:
        kept = self._promises.pop(state.spec.name, None)
        self._again = self._again or (kept is not None and bool(self._limits))
        self._started[start.run] = begun(state, start, self._draft.now_ms)
        for promise in self._promises.values():
            promise.look_again(start.placements)
        return start

    def _undo(self, state: WorkloadState, start: Start) -> None:
        """As if it had not been tried."""
        self._draft.touched.update(placement.node for placement in start.placements)
        if state.reservations:
            take_reservations(self._draft, state.reservations)
            self._draft.put_workload(state.spec.name, state, None)


def _left(until_ms: int | None, now_ms: int) -> dict[str, int]:
    return {} if until_ms is None else {"left_ms": until_ms - now_ms, "until_ms": until_ms}


def _kind(shape: Shape) -> tuple[object, ...]:
    """The kind of capacity that a shape waits for: one workload is promised room of each."""
    return (shape.pools, shape.infra, tuple(kind for kind, _ in shape.accelerators))
