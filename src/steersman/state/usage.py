"""What queues hold and held: amounts of a lease, averages with a half-life, money and device time spent.

All of it is whole numbers and exact, so that it can be folded: what was used is settled when what is held
changes, and between two changes it follows from the last settlement alone.
"""

from math import isqrt

from msgspec.structs import replace

from steersman.model.decisions import Placement
from steersman.model.fleet import Node
from steersman.model.queue import ACCELERATORS, CPUS, MEMORY, USD, Amounts, QueueState
from steersman.model.resources import ALTERNATIVES, WHOLE_MILLI, Resources
from steersman.model.snapshot import NodeState, Run, Shape
from steersman.model.table import TableEditor

MIG_SLICES = 7
"""A whole GPU is seven compute slices."""
_BITS = 64
_ONE = 1 << _BITS


def _halves() -> tuple[int, ...]:
    """2 ** -(1/2), 2 ** -(1/4), … times `_ONE`, until it is one to 32 bits."""
    found = [_ONE >> 1]
    while len(found) <= _BITS // 2:
        found.append(isqrt(found[-1] << _BITS))
    return tuple(found[1:])


_ROOTS = _halves()


def decay(elapsed_ms: int, half_life_ms: int) -> int:
    """2 ** -(elapsed / half-life), times 2 ** 64, rounded down."""
    whole, rest = divmod(elapsed_ms, half_life_ms)
    if whole >= _BITS:
        return 0
    value = _ONE
    for root in _ROOTS:
        rest *= 2
        if rest >= half_life_ms:
            rest -= half_life_ms
            value = value * root >> _BITS
    return value >> whole


def amounts_of(asked: Resources | Shape) -> Amounts:
    """What one rank holds of each resource. Of alternative kinds it is held against all of them."""
    if not asked.accelerators and asked.cpu_milli and asked.memory_bytes:
        return ((CPUS, asked.cpu_milli), (MEMORY, asked.memory_bytes))
    amounts = {CPUS: asked.cpu_milli, MEMORY: asked.memory_bytes}
    for kinds, count in asked.accelerators:
        milli = count * _device_milli(asked)
        for kind in (ACCELERATORS, *sorted(set(kinds.split(ALTERNATIVES)))):
            amounts[kind] = amounts.get(kind, 0) + milli
    return tuple(sorted((resource, amount) for resource, amount in amounts.items() if amount))


def _device_milli(asked: Resources | Shape) -> int:
    if not asked.mig_profile:
        return asked.device_milli
    slices = asked.mig_profile.split("g", 1)[0]
    return -(-WHOLE_MILLI * int(slices) // MIG_SLICES) if slices.isdecimal() else WHOLE_MILLI


def times(amounts: Amounts, count: int) -> Amounts:
    """So many times as much."""
    return tuple((resource, amount * count) for resource, amount in amounts)


def added(one: Amounts, other: Amounts, sign: int = 1) -> Amounts:
    """The sum, or with a sign of -1 the difference; what comes to nothing is left out."""
    if not one and sign > 0:
        return tuple(item for item in other if item[1])
    sums = dict(one)
    for resource, amount in other:
        sums[resource] = sums.get(resource, 0) + sign * amount
    return tuple(sorted((resource, amount) for resource, amount in sums.items() if amount))


def rates_of(nodes: TableEditor[NodeState], placements: tuple[Placement, ...]) -> tuple[int, ...]:
    """The rate of each lease; nothing when none of them has a price."""
    rates = tuple(rate_of(nodes[item.node].node, item) for item in placements)
    return rates if any(rates) else ()


def rate_of(node: Node, placement: Placement) -> int:
    """Micro-dollars an hour of a lease: its largest part of the node, of cores, memory or devices."""
    price = node.price_usd_micro_per_hour
    if not price:
        return 0
    parts = [(placement.cpu_milli, node.cpu_milli), (placement.memory_bytes, node.memory_bytes)]
    parts.append((len(placement.devices) * placement.device_milli, len(node.devices) * WHOLE_MILLI))
    return max(-(-price * held // of) for held, of in parts if of)


def usage_of(run: Run) -> Amounts:
    """What the ranks of a run hold that have not ended, and what that costs."""
    if len(run.ranks) == 1:
        live = 1 if run.ranks[0].end is None else 0
    else:
        live = sum(1 for rank in run.ranks if rank.end is None)
    if not live:
        return ()
    held = run.holds if live == 1 else times(run.holds, live)
    if not run.rates:
        return held
    cost = sum(rate for rate, rank in zip(run.rates, run.ranks, strict=True) if rank.end is None)
    return added(held, ((USD, cost),))


def averaged(state: QueueState, held: Amounts, now_ms: int, half_life_ms: int) -> Amounts:
    """The average as of now, when `held` was held since it was settled."""
    left = decay(max(now_ms - state.settled_ms, 0), half_life_ms)
    before, now = dict(state.average), dict(held)
    found = []
    for resource in sorted(before.keys() | now.keys()):
        level = 1000 * now.get(resource, 0)
        found.append((resource, level + ((before.get(resource, 0) - level) * left >> _BITS)))
    return tuple(item for item in found if item[1])


def period_began_ms(state: QueueState, at_ms: int) -> int:
    """When the budget's period began that `at_ms` falls in."""
    period = state.spec.budget.period_ms
    if period is None:
        return state.declared_ms
    return at_ms - (at_ms - state.declared_ms) % period


def spent_at(state: QueueState, held: Amounts, now_ms: int) -> tuple[int, int]:
    """What was spent in the period as of now: money times 3,600,000 and device time."""
    began_ms = period_began_ms(state, now_ms)
    usd, device_ms = state.spent if began_ms <= state.settled_ms else (0, 0)
    elapsed_ms = max(now_ms - max(state.settled_ms, began_ms), 0)
    rates = dict(held)
    return usd + rates.get(USD, 0) * elapsed_ms, device_ms + rates.get(ACCELERATORS, 0) * elapsed_ms


def settled(state: QueueState, held: Amounts, now_ms: int, half_life_ms: int) -> QueueState:
    """The same queue, settled as of now."""
    if now_ms <= state.settled_ms:
        return state
    return replace(
        state,
        settled_ms=now_ms,
        average=averaged(state, held, now_ms, half_life_ms),
        spent=spent_at(state, held, now_ms),
    )
