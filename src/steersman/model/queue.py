"""Queues: whose work waits where, how much of the fleet is theirs, and what they may lend, borrow and spend.

The words are Kueue's. Queues of one `cohort` lend one another what they do not use. Per resource a queue has
a `nominal` quota; it lends at most `lending_limit` of it (None: all) and holds at most `borrowing_limit` more
than it (None: whatever the cohort lends). A resource without a quota is not limited.

Amounts are millicores (`CPUS`), bytes (`MEMORY`) and thousandths of a device: by kind, or of any kind
(`ACCELERATORS`).
"""

from typing import Literal

import msgspec

from steersman.model.ids import QueueName

CPUS, MEMORY, ACCELERATORS = "cpus", "memory", "accelerators"
USD = "usd"
"""Micro-dollars an hour that what is held costs: kept beside the amounts, never a quota."""

GPU_HOUR = 1000 * 3_600_000
"""Thousandths of a device times milliseconds."""
USD_MICRO = 3_600_000
"""Micro-dollars an hour times milliseconds, for one micro-dollar."""

Amounts = tuple[tuple[str, int], ...]
"""(resource, amount), sorted; only positive amounts."""

Reclaim = Literal["any", "lower-priority", "never"]
Within = Literal["lower-priority", "never"]


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What is a queue's own of one resource, and what may go between it and its cohort."""

    resource: str
    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent in a period that begins with the declaration and then again and again.

    None: no limit; `period_ms` None: once and for all. `device_ms` is in thousandths of a device, times
    milliseconds.
    """

    usd_micro: int | None = None
    device_ms: int | None = None
    period_ms: int | None = None


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A declared queue. `weight_milli`: how its share counts beside the others'.

    `reclaim`: from whom of its cohort it takes back what it lends; `within`: who yields to its own.
    """

    name: QueueName
    cohort: str = ""
    weight_milli: int = 1000
    quotas: tuple[Quota, ...] = ()
    budget: Budget = Budget()
    reclaim: Reclaim = "any"
    within: Within = "lower-priority"


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """A declared queue and what it used, settled at `settled_ms`.

    `average` is what it held of late, in thousandths of the amounts, each moment weighing half as much a
    half-life later. `spent` is since the period began: (usd in micro-dollars an hour times milliseconds,
    thousandths of a device times milliseconds).
    """

    spec: Queue
    declared_ms: int
    settled_ms: int
    average: Amounts = ()
    spent: tuple[int, int] = (0, 0)
