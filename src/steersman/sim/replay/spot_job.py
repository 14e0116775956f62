"""Problem `spot-job`: one job with a deadline over recorded spot availability, decided by `decide.spot`.

Theory of operation. Semantics are those of the published simulator of "Can't Be Late" (NSDI 2024) with the
strict guarantee: time goes in ticks, a machine is paid by whole ticks, every launch takes the overhead
before it works, what was done is never lost, and a pool that is not available in a tick is lost at its
beginning. The job starts at evenly spaced ticks of the record; each start is a job of its own that knows
nothing of the others, and the decider sees of the record only the ticks up to now. Several zones are
several pools of one job.

A spot price that is no price, or not below on-demand, is never paid: zero and sentinels are refused, and
with a spot price that is not below on-demand jobs run on on-demand alone, which is counted.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from steersman.decide.hazard import HOUR_MS
from steersman.decide.spot import IDLE, ON_DEMAND, JobView, Prices, decide, judge_prices, plan
from steersman.decide.spot_plan import Table
from steersman.model.errors import TraceError
from steersman.model.pools import SpotHistory
from steersman.sim.replay.bounds_spot_job import Grain, exact_grain, least_cost, script_grain
from steersman.sim.replay.result import Progress, Replay
from steersman.sim.replay.spot_zones import DROPS, Zone, read_zones
from steersman.state.pools import observe

PROBLEM = "spot-job"
HOURS_MAX = 100_000.0
STARTS_MAX = 10_000
USD_MICRO = 1_000_000
USD_MAX = 1_000_000.0
READING = 0.02
"""Share of the replay that reading is, for the progress."""
UNUSABLE = "zones whose spot price is not below on-demand: on-demand alone"
FEWER = "starts asked for that the record is too short to hold apart"

Open = tuple[tuple[str, bool], ...]
"""The pools by name, and whether each can be had now."""
Chooser = Callable[[JobView, Open], str]
"""What to hold until the next tick: IDLE, ON_DEMAND or the name of a pool that is open."""
LeastOf = Callable[[Sequence[bytes], int, Grain, tuple[int, int]], float]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Hours, and USD an hour."""

    zone: tuple[Path, ...]
    work_h: float = 48.0
    deadline_h: float = 52.0
    overhead_h: float = 0.1
    starts: int = 12
    price_spot: float = 0.9731
    price_on_demand: float = 3.06


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One job: its times, and its prices in micro-USD an hour."""

    work_ms: int
    deadline_ms: int
    overhead_ms: int
    tick_ms: int
    prices: Prices

    @property
    def ticks(self) -> int:
        """Whole ticks before the deadline."""
        return self.deadline_ms // self.tick_ms


class Outcome(NamedTuple):
    """What became of one job: ticks paid by kind, launches, whether it was done after its deadline."""

    spot_ticks: int
    on_demand_ticks: int
    launches: int
    late: bool
    cost_usd_micro: int


class Bounds(NamedTuple):
    """The least that one job could have cost, in micro-USD: in the published script's units, and exactly."""

    script: float
    exact: float


def replay(asked: Asked, progress: Progress) -> Replay:
    """Every start of the job through the live decider. Raises TraceError."""
    _check(asked)
    count = len(asked.zone)
    dropped: Counter[str] = Counter(dict.fromkeys((*DROPS, UNUSABLE, FEWER), 0))
    zones = read_zones(asked.zone, dropped, lambda at: progress(READING * at / count, "reading"))
    case = case_of(asked, zones, dropped)
    starts = starts_of(len(zones[0].up), case.ticks, asked.starts)
    if not starts:
        hours = len(zones[0].up) * case.tick_ms / HOUR_MS
        message = f"the record holds {hours:.1f} h, and a deadline of {asked.deadline_h:g} h needs more"
        raise TraceError(message, hint="give a longer record or a nearer deadline")
    dropped[FEWER] += asked.starts - len(starts)
    found, bounds = [], []
    for number, start in enumerate(starts):
        progress(READING + (1 - READING) * number / len(starts), f"start {number + 1} of {len(starts)}")
        part = window(zones, start, case.ticks)
        found.append(simulate(part, case, steersman(case)))
        bounds.append(bounds_of(part, case))
    progress(1.0, "done")
    return Replay(
        problem=PROBLEM,
        files=tuple(path.name for path in asked.zone),
        dropped=dict(dropped),
        policies={"steersman": {**metrics(case, found, bounds), "zones": _zones(zones)}},
    )


def _check(asked: Asked) -> None:
    """Raises TraceError on options that make no sense together or by themselves."""
    if not asked.zone:
        raise TraceError("no zone was given", hint="--zone FILE, once for each zone")
    for flag, hours in (("--work-h", asked.work_h), ("--deadline-h", asked.deadline_h)):
        if not 0 < hours <= HOURS_MAX:
            raise TraceError(f"{flag} is {hours:g}", hint=f"hours above 0 and at most {HOURS_MAX:,.0f}")
    if not 0 <= asked.overhead_h <= HOURS_MAX:
        raise TraceError(f"--overhead-h is {asked.overhead_h:g}", hint="hours of at least 0")
    if not 1 <= asked.starts <= STARTS_MAX:
        raise TraceError(f"--starts is {asked.starts}", hint=f"1 to {STARTS_MAX:,}")
    for flag, usd in (("--price-spot", asked.price_spot), ("--price-on-demand", asked.price_on_demand)):
        if not 0 < usd <= USD_MAX:
            raise TraceError(
                f"{flag} is {usd:g}", hint="USD an hour, above 0; there is no replay without a price"
            )


def case_of(asked: Asked, zones: Sequence[Zone], dropped: Counter[str]) -> Case:
    """The job that is asked for, over these zones; pools without a price are counted. Raises TraceError."""
    on_demand, spot = _usd_micro(asked.price_on_demand), _usd_micro(asked.price_spot)
    judged = judge_prices(on_demand, tuple((zone.name, spot) for zone in zones))
    faults = {fault for _, fault in judged.refused}
    if judged.prices is None or faults - {"not below on-demand"}:
        flag = "--price-on-demand" if judged.prices is None else "--price-spot"
        usd = asked.price_on_demand if judged.prices is None else asked.price_spot
        words = ", ".join(sorted(faults))
        raise TraceError(f"{flag} is {usd:g}: {words}", hint="say what an hour costs in USD")
    dropped[UNUSABLE] += len(judged.refused)
    case = Case(
        work_ms=round(asked.work_h * HOUR_MS),
        deadline_ms=round(asked.deadline_h * HOUR_MS),
        overhead_ms=round(asked.overhead_h * HOUR_MS),
        tick_ms=zones[0].tick_ms,
        prices=judged.prices,
    )
    if case.work_ms < 1 or case.ticks * case.tick_ms < case.work_ms + case.overhead_ms:
        message = (
            f"{asked.work_h:g} h of work and a launch of {asked.overhead_h:g} h do not fit into the "
            f"{case.ticks} ticks of {case.tick_ms / 1000:g} s before a deadline of {asked.deadline_h:g} h"
        )
        raise TraceError(message, hint="even on-demand alone would be late; set a later --deadline-h")
    return case


def _usd_micro(usd: float) -> int:
    return round(usd * USD_MICRO)


def starts_of(length: int, span: int, wanted: int) -> tuple[int, ...]:
    """Evenly spaced first ticks of jobs that span so many ticks; none when the record is too short.

    As the published script spaces them; a record that holds fewer apart gives fewer.
    """
    last = length - span - 3
    if last < 0:
        return ()
    return tuple(sorted({round(number * last / max(1, wanted - 1)) for number in range(wanted)}))


def window(zones: Sequence[Zone], start: int, ticks: int) -> tuple[Zone, ...]:
    """The part of the record that a job may see before it is done or late."""
    return tuple(zone._replace(first=start, up=zone.up[start : start + ticks + 2]) for zone in zones)


def simulate(zones: Sequence[Zone], case: Case, choose: Chooser) -> Outcome:
    """One job from the first tick of these zones on. What a chooser cannot have is an error of its own."""
    paid: Counter[str] = Counter()
    held, launch_left, done, launches = IDLE, 0, 0, 0
    for tick, up in enumerate(zip(*(zone.up for zone in zones), strict=True)):
        now_ms = tick * case.tick_ms
        available = tuple((zone.name, bool(here)) for zone, here in zip(zones, up, strict=True))
        can_hold = {IDLE, ON_DEMAND, *(name for name, is_open in available if is_open)}
        if held != IDLE:
            paid[held] += 1
            worked = max(case.tick_ms - launch_left, 0)
            launch_left -= case.tick_ms - worked
            done += worked
        if held not in can_hold:
            held, launch_left = IDLE, 0
        if done >= case.work_ms:
            return _outcome(paid, launches, case, late=now_ms > case.deadline_ms)
        job = JobView(
            now_ms=now_ms,
            deadline_ms=case.deadline_ms,
            work_left_ms=case.work_ms - done,
            overhead_ms=case.overhead_ms,
            held=held,
            launch_left_ms=launch_left,
            period_ms=case.tick_ms,
        )
        want = choose(job, available)
        assert want in can_hold, f"chose {want!r} of {sorted(can_hold)}"
        if want != held:
            launches += want != IDLE
            held, launch_left = want, 0 if want == IDLE else case.overhead_ms
    return _outcome(paid, launches, case, late=True)


def _outcome(paid: Mapping[str, int], launches: int, case: Case, *, late: bool) -> Outcome:
    on_demand = paid.get(ON_DEMAND, 0)
    spot = dict(case.prices.spot)
    money = on_demand * case.prices.on_demand + sum(
        ticks * spot[name] for name, ticks in paid.items() if name != ON_DEMAND
    )
    return Outcome(sum(paid.values()) - on_demand, on_demand, launches, late, money * case.tick_ms // HOUR_MS)


def steersman(case: Case) -> Chooser:
    """The live decider: it folds what it sees, and keeps its table while that fits."""
    history = SpotHistory()
    table: Table | None = None

    def choose(job: JobView, available: Open) -> str:
        nonlocal history, table
        history = observe(history, job.now_ms, available)
        table = plan(history, job, case.prices, table)
        return decide(history, job, case.prices, table).action

    return choose


def bounds_of(zones: Sequence[Zone], case: Case, least_of: LeastOf = least_cost) -> Bounds:
    """The least cost of this job with its window of the record known. `least_of`: a faster `least_cost`."""
    priced = dict(case.prices.spot)
    pools = [zone.up for zone in zones if zone.name in priced]
    prices = (min(priced.values(), default=0) * case.tick_ms, case.prices.on_demand * case.tick_ms)
    exact = exact_grain(case.tick_ms, case.overhead_ms, case.work_ms, case.ticks)
    script = script_grain(case.tick_ms, case.overhead_ms, case.work_ms)
    least = least_of(pools, case.ticks, exact, prices) / HOUR_MS
    if script == exact:
        return Bounds(least, least)
    other = least_of(pools, case.ticks, script, prices) / HOUR_MS
    return Bounds(other if math.isfinite(other) else least, least)


def metrics(case: Case, found: Sequence[Outcome], bounds: Sequence[Bounds]) -> dict[str, Any]:
    """Means over the jobs; ratios are of means. Money in USD, times in hours."""
    count = len(found)
    cost = sum(one.cost_usd_micro for one in found) / count
    script = sum(one.script for one in bounds) / count
    exact = sum(one.exact for one in bounds) / count
    hours = case.work_ms / HOUR_MS
    dear = hours * case.prices.on_demand
    cheap = hours * min((price for _, price in case.prices.spot), default=case.prices.on_demand)
    tick_h = case.tick_ms / HOUR_MS
    return {
        "cost_over_optimum": round(cost / script, 6),
        "cost_over_optimum_exact": round(cost / exact, 6),
        "late_jobs": sum(one.late for one in found),
        "cost_usd": round(cost / USD_MICRO, 6),
        "adrs_score": round(100 * (dear - cost) / (dear - cheap), 4) if cheap < dear else 0.0,
        "launches": round(sum(one.launches for one in found) / count, 4),
        "jobs": count,
        "cost_over_on_demand": round(cost / dear, 6),
        "optimum_usd": round(script / USD_MICRO, 6),
        "optimum_exact_usd": round(exact / USD_MICRO, 6),
        "spot_h": round(sum(one.spot_ticks for one in found) * tick_h / count, 4),
        "on_demand_h": round(sum(one.on_demand_ticks for one in found) * tick_h / count, 4),
    }


def _zones(zones: Sequence[Zone]) -> dict[str, dict[str, float]]:
    return {
        zone.name: {
            "tick_s": zone.tick_ms / 1000,
            "record_h": round(len(zone.up) * zone.tick_ms / HOUR_MS, 4),
            "available": round(sum(zone.up) / len(zone.up), 4),
        }
        for zone in zones
    }
