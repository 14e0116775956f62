"""What must hold of quotas, told from the journal alone. A part of `checkers`, with accounts of its own."""

from collections.abc import Iterator, Sequence

import msgspec

from steersman.model.decisions import Spawn, Start
from steersman.model.events import (
    Decided,
    Event,
    NodeHealth,
    QueueDeclared,
    QueueRemoved,
    RankExited,
    WorkloadDeclared,
)
from steersman.model.queue import Queue, Quota
from steersman.model.workload import Workload


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    queue: str
    amounts: dict[str, int]


class _Accounts:
    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.specs: dict[str, Workload] = {}
        self.leases: dict[tuple[str, int], _Lease] = {}

    def feed(self, event: Event) -> None:
        match event:
            case QueueDeclared():
                self.queues[event.queue.name] = event.queue
            case QueueRemoved():
                self.queues.pop(event.queue, None)
            case WorkloadDeclared():
                self.specs[event.workload.name] = event.workload
            case RankExited():
                self.leases.pop((event.run, event.rank), None)
            case NodeHealth(health="dead"):
                self.leases = {key: held for key, held in self.leases.items() if held.node != event.node}
            case _:
                pass

    def take(self, start: Start) -> str:
        spec = self.specs.get(start.workload)
        if spec is None:
            return ""  # a start of what was never declared is for another checker to tell
        for placement in start.placements:
            amounts = {"cpus": placement.cpu_milli, "memory": placement.memory_bytes, "accelerators": 0}
            for kinds, count in spec.resources.accelerators:
                milli = count * placement.device_milli
                amounts["accelerators"] += milli
                for kind in set(kinds.split("|")):
                    amounts[kind] = amounts.get(kind, 0) + milli
            held = _Lease(node=placement.node, queue=spec.queue, amounts=amounts)
            self.leases[start.run, placement.rank] = held
        return spec.queue

    def held(self, queue: str, resource: str) -> int:
        names = {resource} if resource in ("cpus", "memory", "accelerators") else {resource, "any"}
        mine = [lease.amounts for lease in self.leases.values() if lease.queue == queue]
        return sum(amounts.get(name, 0) for amounts in mine for name in names)


def quotas_hold(history: Sequence[tuple[int, Event]]) -> list[str]:
    """No start takes its queue over what it may hold, nor its cohort over what it lends."""
    found: list[str] = []
    accounts = _Accounts()
    for position, event in history:
        accounts.feed(event)
        for decision in event.decisions if isinstance(event, Decided) else ():
            if isinstance(decision, Spawn):
                accounts.specs[decision.job.name] = decision.job
            if isinstance(decision, Start):
                queue = accounts.queues.get(accounts.take(decision))
                if queue is None:
                    continue
                asked = {name for lease in _leases_of(accounts, decision) for name in lease.amounts}
                for quota in queue.quotas:
                    if quota.resource in asked or "any" in asked:
                        found += [f"{position}: {words}" for words in _over(accounts, queue, quota)]
    return found


def _leases_of(accounts: _Accounts, start: Start) -> Iterator[_Lease]:
    return (accounts.leases[start.run, placement.rank] for placement in start.placements)


def _over(accounts: _Accounts, queue: Queue, quota: Quota) -> Iterator[str]:
    held, resource = accounts.held(queue.name, quota.resource), quota.resource
    if held <= quota.nominal - _lendable(quota):
        return
    if not queue.cohort:
        if held > quota.nominal:
            yield f"queue {queue.name} holds {held} {resource}, and its quota is {quota.nominal}"
        return
    if quota.borrowing_limit is not None and held > quota.nominal + quota.borrowing_limit:
        yield f"queue {queue.name} holds {held} {resource}, more than it may borrow"
    lent = taken = 0
    for other in accounts.queues.values():
        for item in other.quotas:
            if other.cohort == queue.cohort and item.resource == resource:
                lent += _lendable(item)
                taken += max(accounts.held(other.name, resource) - item.nominal + _lendable(item), 0)
    if taken > lent:
        yield f"cohort {queue.cohort} has taken {taken} {resource} of the {lent} that it lends"


def _lendable(quota: Quota) -> int:
    return quota.nominal if quota.lending_limit is None else min(quota.nominal, quota.lending_limit)
