"""A job with a deadline over spot pools and on-demand: wait, take spot, or pay on-demand.

Theory of operation. The problem is that of "Can't Be Late" (Z. Wu et al., NSDI 2024): work that can be
saved and moved, a deadline that must hold, spot capacity that comes and goes, on-demand that is always
there at a higher price, and a launch that costs time on each change. Uniform Progress, the policy of that
paper, spends the slack evenly and needs no hazard. Here the hazards of the pools are learned while the job
runs (`hazard`), the least expected cost follows from them by a dynamic programme (`spot_plan`), and the
cheapest of what is allowed is chosen (`decide`).

What is allowed is no matter of expectation. With the time until the last decision not after the deadline
less the work left as the slack, an action is `feasible` when on-demand, launched at the next decision, is
still in time, whatever the pools do until then; once nothing else is, on-demand is launched. That is the
point of no return, exact to the millisecond. A job that starts feasible therefore is never late, as long as
decisions come once a period and launches take no longer than said.

The table is solved anew only when the evidence grew by a quarter (`plan`); each decision reads it. With
several pools the one with the cheapest expected useful hour is taken, and one that is held is kept.

Everything is pure: a decision follows from history, job, prices and table. Times are milliseconds, prices
micro-USD an hour. A price that is no price is refused by name (`judge_prices`), and a pool without one is
never taken.
"""

from collections.abc import Sequence
from math import inf
from typing import Literal

import msgspec

from steersman.decide.hazard import HOUR_MS, exposure_ms, run_bucket, useful_hour_price
from steersman.decide.hazard import hazards as rates
from steersman.decide.spot_plan import (
    DOWN_IDLE,
    DOWN_ON_DEMAND,
    STEP_MS,
    STEPS_MAX,
    UP_IDLE,
    UP_ON_DEMAND,
    UP_SPOT,
    Basis,
    Table,
    ahead,
    solve,
    value,
)
from steersman.model.pools import RESERVED_NAMES, SENTINELS_USD_MICRO_PER_HOUR, PoolHistory, SpotHistory

IDLE = ""
ON_DEMAND = "on-demand"
RESOLVE_AFTER_MS = HOUR_MS
"""Evidence younger than this is not worth a new table."""
RESOLVE_GROWTH_NUM, RESOLVE_GROWTH_DEN = 5, 4
"""A new table when the evidence grew by a quarter; 1.12 to 1.5 cost the same within 0.2 %."""

PriceFault = Literal["missing", "not above zero", "a sentinel", "not below on-demand"]
Why = Literal["cheapest", "point of no return", "no spot price", "too late"]
"""Why an action: the least expected cost; nothing else keeps the deadline; no pool may be taken at its
price; nothing keeps the deadline any more, and this loses the least."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job at a decision. `held` is IDLE, ON_DEMAND or a pool's name; a pool that was lost is not held.

    The next decision comes after `period_ms`, or `wait_ms` when nothing is held (None: the same); each launch
    takes `overhead_ms`, of which `launch_left_ms` are left of the present one. Its end is seen at whole
    multiples of `grain_ms` from now (None: of the period). A pool that is lost takes `at_risk_ms` of work
    with it; `unsaved_ms` of work are done beyond `work_left_ms`, and are lost when what is held is left.
    """

    now_ms: int
    deadline_ms: int
    work_left_ms: int
    overhead_ms: int
    held: str
    launch_left_ms: int
    period_ms: int
    wait_ms: int | None = None
    grain_ms: int | None = None
    at_risk_ms: int = 0
    unsaved_ms: int = 0


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Micro-USD an hour: on-demand, and spot by name of pool. A pool that is not listed is never taken."""

    on_demand: int
    spot: tuple[tuple[str, int], ...]


class JudgedPrices(msgspec.Struct, frozen=True, kw_only=True):
    """Prices that can be used, None when on-demand has none; and what was refused, by name, with why."""

    prices: Prices | None
    refused: tuple[tuple[str, PriceFault], ...]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to do until the next decision, and why.

    `no_return_ms`: the last decision at which an idle job may launch on-demand; None without a deadline.
    Hazard in endings per million hours of the present run (up or down). Costs are expected micro-USD to go,
    or of the next useful hour without a deadline; None: not allowed.
    """

    action: str
    why: Why
    no_return_ms: int | None
    free_slack_ms: int | None
    hazard_micro_per_hour: int
    cost_wait: int | None
    cost_spot: int | None
    cost_on_demand: int | None


def judge_prices(on_demand: int | None, spot: Sequence[tuple[str, int | None]]) -> JudgedPrices:
    """Which prices are prices (micro-USD an hour): a spot price also must lie below on-demand."""
    fault = _price_fault(on_demand)
    if on_demand is None or fault is not None:
        return JudgedPrices(prices=None, refused=((ON_DEMAND, fault or "missing"),))
    good, refused = [], []
    for name, price in spot:
        assert name not in RESERVED_NAMES, f"a pool is called {name!r}"
        fault = _price_fault(price)
        if price is None or fault is not None:
            refused.append((name, fault or "missing"))
        elif price >= on_demand:
            refused.append((name, "not below on-demand"))
        else:
            good.append((name, price))
    return JudgedPrices(prices=Prices(on_demand=on_demand, spot=tuple(good)), refused=tuple(refused))


def _price_fault(price: int | None) -> PriceFault | None:
    if price is None:
        return "missing"
    if price <= 0:
        return "not above zero"
    return "a sentinel" if price in SENTINELS_USD_MICRO_PER_HOUR else None


def whole_slack_ms(job: JobView) -> int:
    """Time to the last decision that is not after the deadline, less the work left."""
    grain_ms = job.period_ms if job.grain_ms is None else job.grain_ms
    return (job.deadline_ms - job.now_ms) // grain_ms * grain_ms - job.work_left_ms


def no_return_ms(job: JobView) -> int:
    """The last decision at which on-demand still is in time when nothing runs until then; now, if past."""
    free = whole_slack_ms(job) - job.overhead_ms
    grain_ms = job.period_ms if job.grain_ms is None else job.grain_ms
    return job.now_ms + max(0, free) // grain_ms * grain_ms


def feasible(job: JobView, action: str) -> bool:
    """Whether the deadline is still sure after one period of this action, whatever the pools do then."""
    slack = whole_slack_ms(job)
    launch = job.launch_left_ms if action == job.held else job.overhead_ms
    if action == ON_DEMAND:
        return slack + (job.unsaved_ms if job.held == ON_DEMAND else 0) >= launch
    if action == IDLE:
        return slack >= (job.period_ms if job.wait_ms is None else job.wait_ms) + job.overhead_ms
    done = max(0, job.period_ms - launch - job.at_risk_ms)
    finishes = done >= job.work_left_ms and job.deadline_ms - job.now_ms >= job.period_ms
    return finishes or slack >= job.period_ms - done + job.overhead_ms


def plan(history: SpotHistory, job: JobView, prices: Prices, table: Table | None) -> Table:
    """The table to decide with: the given one while it fits, else a new one on today's evidence."""
    span = max(job.deadline_ms - job.now_ms, 1)
    spot = min((price for _, price in prices.spot), default=prices.on_demand)
    if table is not None and _fits(table.basis, history, job) and _priced_so(table.basis, spot, prices):
        return table
    step = max(STEP_MS, -(-span // STEPS_MAX))
    return solve(
        Basis(
            history=history,
            steps=-(-span // step),
            step_ms=step,
            overhead_ms=job.overhead_ms,
            spot_usd_micro_per_hour=spot,
            on_demand_usd_micro_per_hour=prices.on_demand,
        )
    )


def _fits(basis: Basis, history: SpotHistory, job: JobView) -> bool:
    seen, then = exposure_ms(history.anyone), exposure_ms(basis.history.anyone)
    grown = seen >= max(then + RESOLVE_AFTER_MS, then * RESOLVE_GROWTH_NUM // RESOLVE_GROWTH_DEN)
    reaches = job.deadline_ms - job.now_ms <= basis.steps * basis.step_ms
    return reaches and not grown and basis.overhead_ms == job.overhead_ms


def _priced_so(basis: Basis, spot: int, prices: Prices) -> bool:
    planned = (basis.spot_usd_micro_per_hour, basis.on_demand_usd_micro_per_hour)
    return planned == (spot, prices.on_demand)


def best_pool(history: SpotHistory, job: JobView, prices: Prices) -> str | None:
    """The pool seen up now with the cheapest useful hour; the held one is kept while it is up."""
    price, known = dict(prices.spot), dict(history.pools)
    ready = [
        name
        for name, pool in history.pools
        if pool.available and pool.seen_ms == job.now_ms and name in price
    ]
    if job.held in ready:
        return job.held
    if len(ready) < 2:
        return ready[0] if ready else None

    def rank(name: str) -> tuple[float, int, str]:
        hour = useful_hour_price(known[name], price[name], job.overhead_ms, job.work_left_ms)
        return (hour, price[name], name)

    return min(ready, key=rank)


def decide(history: SpotHistory, job: JobView, prices: Prices, table: Table) -> Choice:
    """The cheapest allowed action until the next decision. `table`: what `plan` returned for this moment."""
    assert job.work_left_ms > 0, "a job that is done needs no decision"
    assert job.period_ms > 0, f"a period of {job.period_ms} ms"
    pool = best_pool(history, job, prices)
    seen = history.anyone if pool is None else dict(history.pools)[pool]
    hazards = table.down_hazards if pool is None else table.up_hazards
    costs, why = _costs(job, prices, table, (pool, seen))
    order = (job.held, IDLE, pool, ON_DEMAND)
    action = min(costs, key=lambda one: (costs[one], order.index(one)))
    return Choice(
        action=action,
        why=why,
        no_return_ms=no_return_ms(job),
        free_slack_ms=whole_slack_ms(job) - _launch_ms(job, ON_DEMAND),
        hazard_micro_per_hour=round(hazards[run_bucket(seen)] * 1_000_000),
        cost_wait=_rounded(costs, IDLE),
        cost_spot=None if pool is None else _rounded(costs, pool),
        cost_on_demand=_rounded(costs, ON_DEMAND),
    )


def decide_now(history: SpotHistory, job: JobView, prices: Prices) -> Choice:
    """The cheapest next useful hour, for a job that nobody waits for by a time; it never waits itself.

    A change from on-demand to a pool is paid for twice: there and, once it is lost, back.
    """
    pool = best_pool(history, job, prices)
    seen = history.anyone if pool is None else dict(history.pools)[pool]
    endings, exposed = (seen.down_endings, seen.down_ms) if pool is None else (seen.up_endings, seen.up_ms)
    costs: dict[str, float] = {ON_DEMAND: prices.on_demand}
    if pool is not None:
        launches = 0 if job.held == pool else 2 if job.held == ON_DEMAND else 1
        price = dict(prices.spot)[pool]
        costs[pool] = useful_hour_price(seen, price, launches * job.overhead_ms, job.work_left_ms)
    action = min(costs, key=lambda one: (costs[one], one != job.held, one))
    return Choice(
        action=action,
        why="cheapest" if prices.spot else "no spot price",
        no_return_ms=None,
        free_slack_ms=None,
        hazard_micro_per_hour=round(rates(endings, exposed)[run_bucket(seen)] * 1_000_000),
        cost_wait=None,
        cost_spot=None if pool is None or costs[pool] == inf else round(costs[pool]),
        cost_on_demand=prices.on_demand,
    )


def _costs(
    job: JobView, prices: Prices, table: Table, found: tuple[str | None, PoolHistory]
) -> tuple[dict[str, float], Why]:
    """Expected micro-USD to go of each allowed action, and why it is these."""
    pool, seen = found
    basis, slack = table.basis, whole_slack_ms(job)
    steps = min(max(1, -(-(slack + job.work_left_ms) // basis.step_ms)), basis.steps)
    after = ahead(table.values[steps - 1], run_bucket(seen), table.odds)
    billed = min(basis.step_ms, job.work_left_ms) / HOUR_MS
    idle, on_demand = (DOWN_IDLE, DOWN_ON_DEMAND) if pool is None else (UP_IDLE, UP_ON_DEMAND)
    later = value(table, after[on_demand], slack - _launch_ms(job, ON_DEMAND))
    costs = {ON_DEMAND: prices.on_demand * billed + later}
    if not prices.spot:
        return costs, "no spot price"
    if feasible(job, IDLE):
        costs[IDLE] = value(table, after[idle], slack - basis.step_ms - job.overhead_ms)
    if pool is not None and feasible(job, pool):
        later = value(table, after[UP_SPOT], slack - _launch_ms(job, pool) - job.overhead_ms)
        costs[pool] = dict(prices.spot)[pool] * billed + later
    in_time = feasible(job, ON_DEMAND)
    if not in_time and pool in costs:
        del costs[ON_DEMAND]
    if len(costs) > 1:
        return costs, "cheapest"
    return costs, "point of no return" if in_time or pool in costs else "too late"


def _launch_ms(job: JobView, action: str) -> int:
    return job.launch_left_ms if job.held == action else job.overhead_ms


def _rounded(costs: dict[str, float], action: str) -> int | None:
    return round(costs[action]) if action in costs else None
