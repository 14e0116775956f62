"""Pools: like nodes of a fleet, and what was seen of those that may be taken away.

A pool is up while one of its nodes takes work. A history holds sums, not looks: its size is that of the
pools. `state.pools` folds it, `decide.hazard` judges by it.
"""

from typing import NamedTuple

import msgspec

from steersman.model.fleet import Market

AGE_EDGES_MS = tuple(600_000 * m for m in (0, 1, 2, 4, 8, 16, 32))
"""Lower edges of the buckets of age, 10 min to 5 h 20; × 0.67 and × 1.5 cost 0.2 points of the ratio."""
AGES = len(AGE_EDGES_MS)
SENTINELS_USD_MICRO_PER_HOUR = frozenset({700_000_000})
"""700 USD an hour is what public catalogues write where there is no price."""
RESERVED_NAMES = frozenset({"", "on-demand"})
"""No spot pool is called so."""


class NodeKind(NamedTuple):
    """What each of some nodes of a pool has, and how many are alike."""

    cpu_milli: int
    memory_bytes: int
    accelerators: tuple[tuple[str, int], ...]
    nodes: int


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as declared, its price now, and how many of its nodes take work. Others are in the pool ""."""

    name: str
    market: Market
    zone: str = ""
    price_usd_micro_per_hour: int | None = None
    kinds: tuple[NodeKind, ...] = ()
    up: int = 0


class PoolHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one pool: endings and exposure of up runs and of down runs, by bucket of age."""

    up_endings: tuple[int, ...] = (0,) * AGES
    up_ms: tuple[int, ...] = (0,) * AGES
    down_endings: tuple[int, ...] = (0,) * AGES
    down_ms: tuple[int, ...] = (0,) * AGES
    available: bool | None = None
    since_ms: int = 0
    seen_ms: int = 0


class SpotHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All pools a job may use, in order of name, and the pool "any of them".

    `losses` counts up runs that ended, `covered` those of them at whose end another pool was up.
    """

    pools: tuple[tuple[str, PoolHistory], ...] = ()
    anyone: PoolHistory = PoolHistory()
    losses: int = 0
    covered: int = 0
