"""What is known of pools: the fold of looks, of the declared fleet, of health and of prices.

Theory of operation. A history is folded look by look (`observe`); exposure is a sum, so a look at each change
tells as much as a look at every instant, and `as_of` brings a history up to now without recording it. A
change is dated to the look that saw it. A pool that was never looked at is unknown, and unknown is closed.

A pool is up while one of its nodes takes work: declared, alive, and not about to be taken away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from steersman.model.fleet import Node
from steersman.model.pools import AGE_EDGES_MS, AGES, NodeKind, PoolHistory, PoolState, SpotHistory
from steersman.model.resources import count_kinds
from steersman.model.snapshot import NodeState, Snapshot
from steersman.state.derive import takes_work
from steersman.state.draft import Draft


def observe(state: SpotHistory, now_ms: int, available: tuple[tuple[str, bool], ...]) -> SpotHistory:
    """Fold one look at the pools; a pool that is not listed was not looked at. Times may not go back."""
    if not available:
        return state
    known = dict(state.pools)
    losses, covered = state.losses, state.covered
    any_open = any(is_up for _, is_up in available)
    for name, is_up in available:
        before = known.get(name, PoolHistory())
        if before.available and not is_up:
            losses += 1
            covered += any_open
        known[name] = observe_pool(before, now_ms, is_up)
    return SpotHistory(
        pools=tuple(sorted(known.items(), key=lambda item: item[0])),
        anyone=observe_pool(state.anyone, now_ms, any_open),
        losses=losses,
        covered=covered,
    )


def observe_pool(state: PoolHistory, now_ms: int, is_up: bool) -> PoolHistory:
    """Fold one look at one pool; the exposure since the last look is split over the ages it spans."""
    if state.available is None:
        return replace(state, available=is_up, since_ms=now_ms, seen_ms=now_ms)
    assert now_ms >= state.seen_ms, f"a look at {now_ms} ms after one at {state.seen_ms} ms"
    ended = is_up != state.available
    was, until = state.seen_ms - state.since_ms, now_ms - state.since_ms
    exposure = list(state.up_ms if state.available else state.down_ms)
    endings = list(state.up_endings if state.available else state.down_endings)
    for bucket, low in enumerate(AGE_EDGES_MS):
        high = AGE_EDGES_MS[bucket + 1] if bucket + 1 < AGES else max(until, low)
        exposure[bucket] += max(0, min(until, high) - max(was, low))
    if ended:
        endings[age_bucket(max(was, until - 1))] += 1
    since_ms = now_ms if ended else state.since_ms
    now = replace(state, available=is_up, since_ms=since_ms, seen_ms=now_ms)
    if state.available:
        return replace(now, up_ms=tuple(exposure), up_endings=tuple(endings))
    return replace(now, down_ms=tuple(exposure), down_endings=tuple(endings))


def age_bucket(age_ms: int) -> int:
    """The bucket of an age: the last whose lower edge is not above it."""
    return max(bucket for bucket, low in enumerate(AGE_EDGES_MS) if low <= max(0, age_ms))


def as_of(snapshot: Snapshot, at_ms: int) -> SpotHistory:
    """The history as a look at this time would leave it, nothing having changed since the last."""
    return observe(snapshot.spot, at_ms, _available(snapshot.pools))


def _available(pools: Iterable[PoolState]) -> tuple[tuple[str, bool], ...]:
    return tuple((pool.name, pool.up > 0) for pool in pools if pool.market == "spot")


@dataclass
class _Group:
    """The nodes of one pool, while a fleet is read."""

    nodes: list[Node] = field(default_factory=list)
    up: int = 0


def declare(draft: Draft, nodes: Iterable[NodeState]) -> None:
    """The pools of a whole fleet; what was seen of those that stay is kept. O(nodes)."""
    groups: dict[str, _Group] = {}
    for state in nodes:
        group = groups.setdefault(state.node.pool, _Group())
        group.nodes.append(state.node)
        group.up += takes_work(state)
    draft.pools = tuple(_pool(name, groups[name]) for name in sorted(groups))
    spot = {pool.name for pool in draft.pools if pool.market == "spot"}
    left = tuple(item for item in draft.spot.pools if item[0] in spot)
    draft.spot = replace(draft.spot, pools=left) if left else SpotHistory()
    _look(draft)


def _pool(name: str, group: _Group) -> PoolState:
    nodes = group.nodes
    prices = {node.price_usd_micro_per_hour for node in nodes}
    sizes: dict[tuple[int, int, tuple[tuple[str, int], ...]], int] = {}
    for node in nodes:
        size = (node.cpu_milli, node.memory_bytes, count_kinds(node.devices))
        sizes[size] = sizes.get(size, 0) + 1
    return PoolState(
        name=name,
        market="spot" if any(node.market == "spot" for node in nodes) else nodes[0].market,
        zone=nodes[0].zone,
        price_usd_micro_per_hour=prices.pop() if len(prices) == 1 else None,
        kinds=tuple(NodeKind(*size, count) for size, count in sorted(sizes.items())),
        up=group.up,
    )


def health_changed(draft: Draft, before: NodeState, after: NodeState) -> None:
    """A node began or ceased to take work."""
    by = takes_work(after) - takes_work(before)
    if by and after.declared:
        draft.pools = tuple(
            replace(pool, up=pool.up + by) if pool.name == after.node.pool else pool for pool in draft.pools
        )
        _look(draft)


def price_observed(draft: Draft, name: str, price: int | None) -> None:
    """An hour of a node of the pool costs this from now on. A pool that is gone is ignored."""
    draft.pools = tuple(
        replace(pool, price_usd_micro_per_hour=price) if pool.name == name else pool for pool in draft.pools
    )
    _judge_again(draft)


def _look(draft: Draft) -> None:
    draft.spot = observe(draft.spot, draft.now_ms, _available(draft.pools))
    _judge_again(draft)


def _judge_again(draft: Draft) -> None:
    """Who waits or is queued on a choice is judged on what is there now; a run is judged at its own time."""
    for (name,) in list(draft.choosers.since(())):
        state = draft.workloads[name]
        if state.choice is not None and not state.choose_due:
            draft.put_workload(name, replace(state, choose_due=True), None)
