"""What is measured of one server with one model, and how.

    saturation   32 connections, each sending when it has its answer: requests a second, and requests per
                 CPU-second of the whole tree
    max rate     the highest constant rate, open loop, at which p99 ≤ P99_MS_MAX and hardly anything fails:
                 rising from a share of saturation, then bisected to RATE_STEP
    half load    p50 and p99 at half of that rate: of HALVES runs the one in the middle
    equal load   for Steersman, the same at half of what the best peer holds
    memory       PSS of the tree after saturation

Theory: every server is warmed up before. Rates are tried for seconds only, so the highest is known to about
RATE_STEP; ratios between servers are many times that. A rate at which requests are refused, lost or still
unsent at the end does not hold, whatever its percentiles.
"""

import math
from collections.abc import Callable

import msgspec

from bench.serve import load
from bench.serve.servers import Running
from bench.serve.tree import CpuWatch, pss_mib

P99_MS_MAX = 50.0
FAILED_SHARE_MAX = 0.001
RATE_STEP = 0.06
RISE, FALL = 1.25, 2.0
FIRST_SHARE = 0.6
LOWEST_SHARE = 0.06
"""Of the first rate tried: below it no rate is looked for, and half load is that."""
TRIES_MAX = 9
CHANCES = 2
"""A rate fails when it fails twice: machines have hiccups that are not the server's."""
REQUESTS_MIN = 150
"""A p99 of fewer requests than this says little."""


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each part. A rate is tried until REQUESTS_MIN have been sent, in `rate_max` at most."""

    warm: float = 1.5
    saturation: float = 3.0
    rate: float = 1.5
    rate_max: float = 4.0
    half: float = 2.0


SHORT = Lengths(warm=1.0, saturation=2.0, rate=1.0, rate_max=1.0, half=1.0)
HALVES = 3
"""Runs at half load: machines have hiccups that are not the server's."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One server with one model. A max rate of 0: no rate held."""

    model: str
    server: str
    per_cpu_second: float
    cores: float
    saturated_per_s: float
    saturated_p50_ms: float
    saturated_p99_ms: float
    max_rate: float
    half_p50_ms: float
    half_p99_ms: float
    half_cpu_us: float
    equal_p99_ms: float | None
    pss_mib: float
    generator_cores: float
    generator_late_ms: float
    start_seconds: float
    lost: int


def holds(result: load.Load) -> bool:
    """Whether the server kept up with the rate."""
    failed = result.lost + result.refused + result.outcomes["unsent"]
    return (
        result.requests > 0 and result.p99_ms <= P99_MS_MAX and failed <= FAILED_SHARE_MAX * result.requests
    )


def highest(first: float, try_rate: Callable[[float], bool]) -> float:
    """The highest rate that holds, from a first guess: rising by RISE or falling by FALL, then bisected."""
    low, high, rate = 0.0, 0.0, first
    for _ in range(TRIES_MAX):
        if try_rate(rate):
            low = rate
        else:
            high = rate
        if high and low and high / low - 1 <= RATE_STEP:
            break
        if not high:
            rate = low * RISE
        elif not low:
            rate = high / FALL
            if rate < first * LOWEST_SHARE:
                break
        else:
            rate = math.sqrt(low * high)
    return low


def _rate_seconds(rate: float, lengths: Lengths) -> float:
    return min(max(lengths.rate, REQUESTS_MIN / rate), lengths.rate_max)


def highest_rate(server: Running, first: float, lengths: Lengths) -> float:
    """The highest constant rate that a server holds, a second; looked for from `first`."""

    def try_rate(rate: float) -> bool:
        seconds = _rate_seconds(rate, lengths)
        return any(holds(load.run(server.target, rate, seconds)) for _ in range(CHANCES))

    return highest(first, try_rate)


def _median(server: Running, rate: float, lengths: Lengths) -> list[load.Load]:
    """HALVES runs at a rate, in order of p99."""
    seconds = max(lengths.half, _rate_seconds(rate, lengths))
    return sorted((load.run(server.target, rate, seconds) for _ in range(HALVES)), key=lambda one: one.p99_ms)


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """A server that has as much to do as it can; `cpu` and `wall` in seconds."""

    load: load.Load
    cpu: float
    wall: float

    @property
    def per_cpu_second(self) -> float:
        """Requests answered."""
        return self.load.ok / self.cpu


def saturated(server: Running, lengths: Lengths) -> Saturation:
    """A server that is up, after it was warmed up."""
    load.run(server.target, 0, lengths.warm)
    watch = CpuWatch(server.pid)
    full = load.run(server.target, 0, lengths.saturation)
    found = Saturation(load=full, cpu=watch.seconds(), wall=watch.wall())
    if full.ok == 0:
        raise RuntimeError(f"{server.kind.name} answered nothing at {load.CONNECTIONS} connections")
    return found


def measure(server: Running, lengths: Lengths, start_seconds: float, peer_rate: float = 0.0) -> Figures:
    """All figures of a server that is up. `peer_rate`: half of what the best peer holds, if that is known."""
    saturation = saturated(server, lengths)
    full, memory = saturation.load, pss_mib(server.pid)
    first = full.achieved_per_s * FIRST_SHARE
    rate = highest_rate(server, first, lengths)
    watch = CpuWatch(server.pid)
    halves = _median(server, max(rate / 2, first * LOWEST_SHARE), lengths)
    half, half_cpu = halves[HALVES // 2], watch.seconds()
    equal = _median(server, peer_rate, lengths) if peer_rate else []
    return Figures(
        model=server.site.model.name,
        server=server.kind.name,
        per_cpu_second=saturation.per_cpu_second,
        cores=saturation.cpu / saturation.wall,
        saturated_per_s=full.achieved_per_s,
        saturated_p50_ms=full.p50_ms,
        saturated_p99_ms=full.p99_ms,
        max_rate=rate,
        half_p50_ms=half.p50_ms,
        half_p99_ms=half.p99_ms,
        half_cpu_us=half_cpu / max(sum(one.ok for one in halves), 1) * 1e6,
        equal_p99_ms=equal[HALVES // 2].p99_ms if equal else None,
        pss_mib=memory,
        generator_cores=full.cpu_seconds / full.seconds,
        generator_late_ms=half.own_late_ms_max,
        start_seconds=start_seconds,
        lost=full.lost + sum(one.lost for one in (*halves, *equal)),
    )
