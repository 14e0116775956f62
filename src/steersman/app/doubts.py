"""Warnings about what is declared and, as things are, will have no effect: names that nothing has.

None of it is an error, for the queue or the node may be declared later.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from steersman.model.devices import will_do
from steersman.model.fleet import Fleet
from steersman.model.queue import ACCELERATORS, CPUS, MEMORY
from steersman.model.snapshot import Snapshot
from steersman.model.workload import DEFAULT_QUEUE
from steersman.spec.parse import Parsed


def doubts(parsed: Parsed, snapshot: Snapshot, fleet: Fleet | None) -> Iterator[str]:
    """In the order in which things were declared; `fleet` is the one that holds afterwards."""
    queues: set[str] = {DEFAULT_QUEUE, *(queue.name for queue in parsed.queues)}
    queues.update(snapshot.queues)
    if len(queues) > 1:  # with none declared, the name of a queue is a label
        yield from _undeclared(parsed, queues)
    kinds = set() if fleet is None else {device.kind for node in fleet.nodes for device in node.devices}
    for queue in parsed.queues:
        for quota in queue.quotas:
            known = quota.resource in (CPUS, MEMORY, ACCELERATORS)
            if not known and not any(will_do(quota.resource, kind) for kind in kinds):
                words = f"has a quota of {quota.resource!r}, of which the fleet has none"
                yield f"the queue {queue.name!r} {words}{_meant(quota.resource, kinds)}"


def _undeclared(parsed: Parsed, queues: Collection[str]) -> Iterator[str]:
    placed = [(each.name, each.queue) for each in parsed.workloads]
    placed += [(each.name, each.queue) for each in parsed.services]
    for name, queue in placed:
        if queue not in queues:
            words = "which is not declared: no quota and no budget holds for it"
            yield f"{name!r} is in the queue {queue!r}, {words}{_meant(queue, queues)}"
    for service in parsed.services:
        for metric in service.scaling.metrics:
            if metric.queue and metric.queue not in queues:
                words = f"counts what waits in the queue {metric.queue!r}, which is not declared"
                yield f"{service.name!r} {words}{_meant(metric.queue, queues)}"


def _meant(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
