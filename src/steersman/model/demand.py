"""What came to a service, tick by tick, and what was learnt of it: the memory of the forecast.

Theory of operation. `ARRIVALS` is journaled when it leaves its dead band and holds in between: it is a rate
at every time. The fold adds it up into ticks of TICK_MS, and equal ticks in a row are one entry. While it is
unknown, and while no control plane lives, no tick passes. Ticks are kept until the forecast has learnt
of them (`decisions.Learn`), and at most TICKS_KEPT_MAX of them.
"""

import msgspec

TICK_MS = 5_000
"""Milliseconds of a tick."""
TICKS_KEPT_MAX = 1_440
"""Two hours: as long as the longest hold of a forecast."""


class Ticks(msgspec.Struct, frozen=True, kw_only=True):
    """`count` ticks in a row, each with the same work, and with what was there at its end.

    `work_milli` and `backlog_milli` are thousandths of a request: what came in the tick, what waits.
    """

    count: int
    work_milli: int
    backlog_milli: int
    ready: int
    replicas: int


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """What a service is sized by: declared or measured. `capacity_milli`: thousandths of a request a second
    that one replica can do; `budget_ppm`: requests in a million that may wait longer than `slo_s`."""

    capacity_milli: int
    slo_s: int
    cold_start_s: int
    min_replicas: int
    max_replicas: int
    budget_ppm: int


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What the forecast had made of all ticks before number `ticks`, and by what it sizes from there on.

    `evidence` is the policy's own state as JSON, which only a policy of the same number `policy` reads.
    `carry_milli` is the part of a request that has not been counted as one.
    """

    policy: int
    sizing: Sizing
    evidence: str
    carry_milli: int
    ticks: int


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks since number `first`, and the open one.

    `open_ms` is when the open tick began; None while no time passes. In it `came` (thousandths of a request
    a second, times milliseconds) had been added up at `at_ms`. `moved_ms` is when the arrivals last
    changed, or time began to pass.
    """

    open_ms: int | None = None
    at_ms: int = 0
    came: int = 0
    moved_ms: int = 0
    first: int = 0
    ticks: tuple[Ticks, ...] = ()
    learned: Learned | None = None

    @property
    def end(self) -> int:
        """The number of the open tick."""
        return self.first + sum(run.count for run in self.ticks)
