"""How much each queue holds and may still hold, and whose turn is next. A part of `schedule`.

Theory of operation. `Book` begins with what the live ranks of each queue hold (an index of the snapshot) and
adds what the cycle grants. The rule is Kueue's: what a queue does not lend (`nominal` less `lending_limit`)
is its alone; the rest of all queues of a cohort is one pool, from which each takes what it holds beyond its
own. Without a cohort the pool is what is left of the nominal quota. So the sum over a cohort never exceeds
the sum of its nominal quotas, and no queue holds more than `nominal + borrowing_limit`.

Turns: heads that stay within their queue's nominal quota go before heads that borrow. Then the queue with the
least share: what it holds and what it held on average of late (a half-life), as a part of the fleet, of that
resource of which it is largest, over its weight. Queues that are not declared are together one queue of
weight 1. Within a queue: priority, then age.

While a head within its nominal quota waits for what its cohort has borrowed, nobody borrows of that resource.
"""

from collections.abc import Iterable
from typing import NamedTuple

from steersman.decide.budget import exhausted
from steersman.model.ids import QueueName
from steersman.model.queue import ACCELERATORS, CPUS, MEMORY, Amounts, Queue, Quota
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import ANY_KIND
from steersman.model.snapshot import Run, Shape, WorkloadState
from steersman.model.workload import PRIORITY_MAX
from steersman.state.draft import Draft
from steersman.state.usage import added, amounts_of, averaged, times, usage_of

UNDECLARED = ""
"""The group of all queues that are not declared."""
SHARE_ONE = 10**9
_PLAIN = frozenset({CPUS, MEMORY, ACCELERATORS})


class Turn(NamedTuple):
    """The place of a head among the heads of other queues: whether it borrows, and its queue's share."""

    borrows: bool
    share: int


NOBODY_BEFORE = Turn(borrows=False, share=0)


def demand(shape: Shape) -> Amounts:
    """What all ranks of a shape hold."""
    return times(amounts_of(shape), shape.num_nodes)


Held = dict[str, int]
Pool = tuple[str, str]
"""A cohort and a resource."""


def of(amounts: Held, resource: str) -> int:
    """How much is held against a quota of this resource: of a kind of device, what may be any kind too."""
    return amounts.get(resource, 0) + (0 if resource in _PLAIN else amounts.get(ANY_KIND, 0))


class Book:
    """The accounts of one cycle."""

    def __init__(self, draft: Draft) -> None:
        self.queues: dict[str, Queue] = {}
        self._held: dict[str, Held] = {UNDECLARED: {}}
        self._history: dict[str, Held] = {}
        self._lent: dict[Pool, int] = {}  # the sum of what the queues of a cohort lend
        self._taken: dict[Pool, int] = {}  # and of what they hold beyond their own
        self._closed: dict[Pool, str] = {}
        self._leaving = draft.leaving
        self._broke: dict[str, Reason] = {}
        for name, state in sorted(draft.queues.items()):
            held = draft.usage.get(state.spec.name)
            self.queues[name] = state.spec
            broke = exhausted(state, held, draft.now_ms)
            if broke is not None:
                self._broke[name] = broke
            self._held[name] = dict(held)
            self._history[name] = dict(averaged(state, held, draft.now_ms, draft.policy.fair_half_life_ms))
            for quota in state.spec.quotas:
                pool = (state.spec.cohort, quota.resource)
                self._lent[pool] = self._lent.get(pool, 0) + _lent(quota)
            self._count_taken(state.spec, 1)
        self._capacity = _capacity(draft) if self.queues else {}
        if self.queues:
            for name, held in draft.usage.freeze().items():
                if name not in self.queues:
                    self.grant(name, held)

    def _count_taken(self, queue: Queue, sign: int) -> None:
        for quota in queue.quotas:
            pool = (queue.cohort, quota.resource)
            beyond = max(of(self._held[queue.name], quota.resource) - _own(quota), 0)
            self._taken[pool] = self._taken.get(pool, 0) + sign * beyond

    def group(self, queue: str) -> str:
        """The queue itself when it is declared, else the group of those that are not."""
        return queue if queue in self.queues else UNDECLARED

    def grant(self, name: str, amounts: Amounts, sign: int = 1) -> None:
        """From now on the queue holds so much more; with a sign of -1 less."""
        queue = self.queues.get(name)
        if not self.queues:
            return
        if queue is not None:
            self._count_taken(queue, -1)
        held = self._held[self.group(name)]
        for resource, amount in amounts:
            held[resource] = held.get(resource, 0) + sign * amount
        if queue is not None:
            self._count_taken(queue, 1)

    def turn(self, name: str, asked: Amounts) -> Turn:
        """Where a head of this queue stands among those of others."""
        if not self.queues:
            return NOBODY_BEFORE
        queue = self.queues.get(name)
        return Turn(queue is not None and not self.is_within(queue, asked), self.share(self.group(name)))

    def share(self, group: str) -> int:
        """Parts in 10 ** 9 of the fleet, for a weight of 1: what it holds and what it held of late."""
        held, history = self._held[group], self._history.get(group, {})
        weight = self.queues[group].weight_milli if group in self.queues else 1000
        parts = (
            (1000 * held.get(resource, 0) + history.get(resource, 0)) * SHARE_ONE // (capacity * weight)
            for resource, capacity in self._capacity.items()
        )
        return max(parts, default=0)

    def is_within(self, queue: Queue, asked: Amounts) -> bool:
        """Whether the queue stays within its nominal quotas when it is given so much more."""
        more, held = dict(asked), self._held[queue.name]
        return all(
            of(more, quota.resource) == 0
            or of(held, quota.resource) + of(more, quota.resource) <= quota.nominal
            for quota in queue.quotas
        )

    def refusal(self, name: str, asked: Amounts) -> Reason | None:
        """Why the queue may not hold so much more now; None when it may."""
        queue = self.queues.get(name)
        if queue is None:
            return None
        if name in self._broke:
            return self._broke[name]
        more = dict(asked)
        for quota in queue.quotas:
            wanted, held = of(more, quota.resource), of(self._held[name], quota.resource)
            free = self._free(queue, quota)
            if wanted > max(free, 0):
                return reason(
                    Code.OVER_QUOTA,
                    queue=name,
                    resource=quota.resource,
                    asked=wanted,
                    used=held,
                    nominal=quota.nominal,
                    free=max(free, 0),
                    most=self._most(queue, quota),
                )
            owner = self._closed.get((queue.cohort, quota.resource))
            if wanted and owner is not None and held + wanted > quota.nominal:
                return reason(
                    Code.WAITING_FAIR_SHARE, queue=name, resource=quota.resource, owner=owner, asked=wanted
                )
        return None

    def close(self, queue: Queue, asked: Amounts) -> None:
        """Nobody of the cohort borrows what this queue is about to get back, in this cycle."""
        more = dict(asked)
        for quota in queue.quotas:
            if of(more, quota.resource):
                self._closed.setdefault((queue.cohort, quota.resource), queue.name)

    def leaving(self) -> dict[str, Amounts]:
        """What each declared queue gives back once everybody has gone who was told to end."""
        found = {name: self._leaving.get(QueueName(name)) for name in self.queues}
        return {name: held for name, held in found.items() if held}

    def would_fit(self, queue: Queue, asked: Amounts, given_back: dict[str, Amounts]) -> bool:
        """Whether the quota would be there if queues gave so much back."""
        more = dict(asked)
        for name, amounts in given_back.items():
            self.grant(name, amounts, -1)
        fits = all(of(more, quota.resource) <= max(self._free(queue, quota), 0) for quota in queue.quotas)
        for name, amounts in given_back.items():
            self.grant(name, amounts)
        return fits

    def borrows(self, name: str, given_back: Amounts, asked: Amounts) -> bool:
        """Whether a queue holds more than its nominal quota of something that is asked for."""
        more, back, held = dict(asked), dict(given_back), self._held[name]
        return any(
            of(more, quota.resource) and of(held, quota.resource) - of(back, quota.resource) > quota.nominal
            for quota in self.queues[name].quotas
        )

    def ceiling(self, winner: WorkloadState) -> int:
        """Only runs of a priority below this may have to yield to the workload."""
        queue = self.queues.get(winner.spec.queue)
        reclaims = queue is not None and queue.cohort and queue.reclaim == "any"
        return PRIORITY_MAX + 1 if reclaims else winner.spec.priority

    def may_yield(self, winner: WorkloadState, asked: Amounts, run: Run, loser: WorkloadState) -> bool:
        """Whether the quotas allow that this run yields to that workload.

        Within a queue, and where no quota is, a lower priority yields. Beyond its queue a workload that stays
        within the nominal quota takes back what others of its cohort borrow, and nothing else.
        """
        lower = loser.spec.priority < winner.spec.priority
        mine, theirs = self.queues.get(winner.spec.queue), self.queues.get(run.queue)
        if mine is not None and run.queue == mine.name:
            return lower and mine.within == "lower-priority"
        if theirs is None:
            return lower
        if mine is None or not mine.cohort or mine.cohort != theirs.cohort or mine.reclaim == "never":
            return False
        may = self.is_within(mine, asked) and self.borrows(theirs.name, (), asked)
        return may and (lower or mine.reclaim == "any")

    def only_borrowed(self, winner: str, asked: Amounts, runs: Iterable[Run]) -> bool:
        """Whether these runs together give back nothing that is within their own queue's nominal quota."""
        back: dict[str, Amounts] = {}
        for run in runs:
            if run.queue != winner and run.queue in self.queues:
                if not self.borrows(run.queue, back.get(run.queue, ()), asked):
                    return False
                back[run.queue] = added(back.get(run.queue, ()), usage_of(run))
        return True

    def _free(self, queue: Queue, quota: Quota) -> int:
        held = of(self._held[queue.name], quota.resource)
        if not queue.cohort:
            return quota.nominal - held
        pool = (queue.cohort, quota.resource)
        free = self._lent[pool] - self._taken[pool] + max(_own(quota) - held, 0)
        if quota.borrowing_limit is None:
            return free
        return min(free, quota.nominal + quota.borrowing_limit - held)

    def _most(self, queue: Queue, quota: Quota) -> int:
        """What the queue could hold if nobody held anything."""
        if not queue.cohort:
            return quota.nominal
        most = _own(quota) + self._lent[queue.cohort, quota.resource]
        if quota.borrowing_limit is None:
            return most
        return min(most, quota.nominal + quota.borrowing_limit)


def _lent(quota: Quota) -> int:
    return quota.nominal if quota.lending_limit is None else min(quota.lending_limit, quota.nominal)


def _own(quota: Quota) -> int:
    return quota.nominal - _lent(quota)


def _capacity(draft: Draft) -> dict[str, int]:
    """What the fleet has in all, in the amounts of quotas."""
    total = {CPUS: 0, MEMORY: 0, ACCELERATORS: 0}
    for size, count in sorted(draft.sizes.items()):
        total[CPUS] += size.cpu_milli * count
        total[MEMORY] += size.memory_bytes * count
        for kind, number in size.accelerators:
            total[kind] = total.get(kind, 0) + 1000 * number * count
            total[ACCELERATORS] += 1000 * number * count
    return {resource: amount for resource, amount in sorted(total.items()) if amount}
