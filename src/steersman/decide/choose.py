"""What a workload runs on that may choose: wait, a spot pool, or on-demand. A part of `recover`.

Theory of operation. `spot` knows what is cheapest and what still is in time; here the state of the home is
made into its question, and its answer into a recorded decision. A queued workload is judged when it has no
choice yet and when a pool changes, a running one once a period, both at the point of no return, exactly.

    spot_policy auto, with a deadline      the least expected cost of what is sure to be in time
    spot_policy auto, without one          the cheapest next useful hour; never waits
    spot_policy spot                       the pool with the cheapest useful hour, or waits
    on-demand with a max_price             any pool that costs no more

The work left is what was declared less what checkpoints hold; what a run has done since is nobody's until it
is saved. A pool chosen and not found to have room within a period is passed over once.

The table of `spot_plan` is dear and follows from a basis that is the same for long: the evidence of the last
change, extended by whole steps of a ladder. So a `SpotMemo` may keep tables, and changes no decision.
"""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from steersman.decide import spot
from steersman.decide.hazard import HOUR_MS, exposure_ms, hazards, run_bucket
from steersman.decide.spot import IDLE, ON_DEMAND, Choice, JobView, Prices
from steersman.decide.spot_plan import STEP_MS, STEPS_MAX, Basis, Table, solve
from steersman.model.decisions import Choose
from steersman.model.pools import PoolState, SpotHistory
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import ALTERNATIVES, ANY_KIND
from steersman.model.snapshot import Run, Snapshot, WorkloadState
from steersman.model.workload import Workload
from steersman.state.derive import chooses
from steersman.state.pools import as_of

TABLES_MAX = 8
"""A memo keeps so many tables, of about 3 MB each at most."""
STEPS_MIN = 32
"""Jobs with deadlines that are nearer share a table of so many steps."""
LADDER_MS, LADDER_NUM, LADDER_DEN = HOUR_MS, 5, 4
"""Evidence without a change counts once it is an hour old, and then whenever it is a quarter older."""
REFUSED_SHOWN_MAX = 5
WORK_UNKNOWN_MS = 24 * HOUR_MS
"""Without a word on the work, it is taken to last so long that a launch is worth it."""

_CODES = {
    "cheapest": Code.CHOSE_ON_DEMAND,
    "point of no return": Code.POINT_OF_NO_RETURN,
    "no spot price": Code.NO_PRICE,
    "too late": Code.DEADLINE_AT_RISK,
}


class SpotMemo:
    """Tables by what they follow from. It may be thrown away at any time: decisions are the same without."""

    def __init__(self) -> None:
        self._tables: dict[Basis, Table] = {}

    def table(self, basis: Basis) -> Table:
        """The table of a basis, solved when it is not kept."""
        found = self._tables.pop(basis, None) or solve(basis)
        self._tables[basis] = found
        while len(self._tables) > TABLES_MAX:
            del self._tables[next(iter(self._tables))]
        return found


class Offers(NamedTuple):
    """The pools that could hold a workload and may be paid, and those refused, by name, with why."""

    spot: tuple[PoolState, ...]
    on_demand: tuple[PoolState, ...]
    refused: tuple[tuple[str, str], ...]


def choose(snapshot: Snapshot, state: WorkloadState, run: Run | None, memo: SpotMemo) -> Choose:
    """What the workload should run on now, and when to judge again."""
    if not chooses(state):
        return _on_demand(state, (), reason(Code.CHOSE_ON_DEMAND))
    offers = offers_of(snapshot, state.spec)
    policy = state.spec.body.spot_policy
    fleet_has_spot = any(pool.market == "spot" for pool in snapshot.pools)
    fits_on_demand_alone = policy == "auto" and offers.on_demand and not offers.spot
    if policy == "on-demand" or not fleet_has_spot or fits_on_demand_alone:
        return _anywhere(state, offers)
    if policy == "spot" or not offers.on_demand:
        return _spot_alone(snapshot, state, run, offers)
    return _auto(snapshot, state, run, (offers, memo))


def held_of(run: Run | None) -> str:
    """What a run holds, in the words of `spot`. One whose node is about to go holds nothing."""
    if run is None or run.goes_ms is not None:
        return IDLE
    return run.pool if run.market == "spot" else ON_DEMAND


def target_of(choice: Choose) -> str:
    """What a choice asks to hold, in the words of `spot`."""
    if choice.capacity == "wait":
        return IDLE
    return choice.pools[0] if choice.capacity == "spot" else ON_DEMAND


def offers_of(snapshot: Snapshot, spec: Workload) -> Offers:
    """Every pool of the fleet that could hold the workload if it were empty, judged by its price."""
    most = spec.body.price_usd_micro_per_hour_max
    free = not _any_price(snapshot)  # a fleet that names no price has none that could be too high
    good: list[PoolState] = []
    refused: list[tuple[str, str]] = []
    for pool in snapshot.pools:
        price = pool.price_usd_micro_per_hour
        if not _could_hold(pool, spec):
            refused.append((pool.name, "too small"))
        elif most is not None and not free and (price is None or price > most):
            refused.append((pool.name, "missing" if price is None else "above max_price"))
        else:
            good.append(pool)
    spot_pools = tuple(pool for pool in good if pool.market == "spot")
    return Offers(spot_pools, tuple(pool for pool in good if pool.market != "spot"), tuple(refused))


def _any_price(snapshot: Snapshot) -> bool:
    return any(pool.price_usd_micro_per_hour is not None for pool in snapshot.pools)


def _could_hold(pool: PoolState, spec: Workload) -> bool:
    asked = spec.resources
    ranks = 0
    for kind in pool.kinds:
        limits = [spec.body.num_nodes]
        if asked.cpu_milli:
            limits.append(kind.cpu_milli // asked.cpu_milli)
        if asked.memory_bytes:
            limits.append(kind.memory_bytes // asked.memory_bytes)
        for name, count in asked.accelerators:
            names = name.split(ALTERNATIVES)
            limits.append(
                max(
                    (have // count for has, have in kind.accelerators if has in names or name == ANY_KIND),
                    default=0,
                )
            )
        ranks += kind.nodes * min(limits)
    return ranks >= spec.body.num_nodes


def _on_demand(state: WorkloadState, pools: tuple[str, ...], why: Reason) -> Choose:
    return Choose(workload=state.spec.name, capacity="on-demand", pools=pools, until_ms=None, reason=why)


def _anywhere(state: WorkloadState, offers: Offers) -> Choose:
    """Capacity that is not spot, without comparing: what may be paid, or nothing while nothing may."""
    facts = dict(_refusals(offers.refused))
    if not offers.on_demand:
        why = reason(Code.NO_PRICE, **facts)
        return Choose(workload=state.spec.name, capacity="wait", pools=(), until_ms=None, reason=why)
    code = Code.CHOSE_ON_DEMAND if state.spec.body.spot_policy == "on-demand" else Code.NO_SPOT_POOL
    return _on_demand(state, _names(state, offers), reason(code, **facts))


def _names(state: WorkloadState, offers: Offers) -> tuple[str, ...]:
    """The pools on-demand stands for: all that are not spot, unless there is a highest price."""
    if state.spec.body.price_usd_micro_per_hour_max is None:
        return ()
    return tuple(pool.name for pool in offers.on_demand)


def _refusals(refused: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    for name, fault in refused[:REFUSED_SHOWN_MAX]:
        yield f"refused:{name or 'unnamed'}", fault


def _history(snapshot: Snapshot, names: set[str], at_ms: int) -> SpotHistory:
    """What was seen of these pools. Of one alone, its own times tell when any of them is there."""
    seen = as_of(snapshot, at_ms)
    pools = tuple(item for item in seen.pools if item[0] in names)
    return replace(seen, pools=pools, anyone=pools[0][1] if len(pools) == 1 else seen.anyone)


def _open(history: SpotHistory, state: WorkloadState, now_ms: int) -> SpotHistory:
    """The pools now, without the one in which a period was spent in the queue."""
    choice = state.choice
    if state.run is not None or choice is None or choice.capacity != "spot":
        return history
    if choice.until_ms is None or choice.until_ms > now_ms:
        return history
    full = choice.pools[0]
    pools = tuple(
        (name, replace(pool, available=False) if name == full else pool) for name, pool in history.pools
    )
    return replace(history, pools=pools)


def _spot_alone(snapshot: Snapshot, state: WorkloadState, run: Run | None, offers: Offers) -> Choose:
    """The pool with the cheapest useful hour; those without a price come last."""
    now_ms = snapshot.now_ms
    prices = [pool.price_usd_micro_per_hour for pool in offers.spot]
    last = max((price for price in prices if price is not None), default=0) + 1
    priced = tuple((pool.name, pool.price_usd_micro_per_hour or last) for pool in offers.spot)
    history = _open(_history(snapshot, {pool.name for pool in offers.spot}, now_ms), state, now_ms)
    job = view(snapshot, state, run)
    pool = spot.best_pool(history, job, Prices(on_demand=last, spot=priced))
    facts: dict[str, str | int] = dict(_refusals(offers.refused))
    if pool is None:
        code = Code.WAITING_SPOT if offers.spot else Code.NO_PRICE
        return Choose(
            workload=state.spec.name, capacity="wait", pools=(), until_ms=None, reason=reason(code, **facts)
        )
    facts |= {"pool": pool, "hazard_micro_per_hour": round(hazard_of(snapshot, pool) * 1_000_000)}
    return Choose(
        workload=state.spec.name,
        capacity="spot",
        pools=(pool,),
        until_ms=now_ms + job.period_ms,
        reason=reason(Code.CHOSE_SPOT, **facts),
    )


def _auto(
    snapshot: Snapshot, state: WorkloadState, run: Run | None, means: tuple[Offers, SpotMemo]
) -> Choose:
    offers, memo = means
    dear = [p.price_usd_micro_per_hour for p in offers.on_demand if p.price_usd_micro_per_hour is not None]
    judged = spot.judge_prices(
        min(dear, default=None), [(p.name, p.price_usd_micro_per_hour) for p in offers.spot]
    )
    refused = (*offers.refused, *judged.refused)
    job = view(snapshot, state, run)
    if judged.prices is None:
        facts = dict(_refusals(refused))
        return _on_demand(state, _names(state, offers), reason(Code.NO_PRICE, **facts))
    names = {name for name, _ in judged.prices.spot}
    history = _open(_history(snapshot, names, snapshot.now_ms), state, snapshot.now_ms)
    if state.spec.body.deadline_ms is None:
        choice = spot.decide_now(history, job, judged.prices)
    else:
        basis = basis_of(snapshot, state, job, judged.prices)
        choice = spot.decide(history, job, judged.prices, memo.table(basis))
        choice = _unless_there(choice, spot.decide_now(history, job, judged.prices), job)
    choice = _unless_lost(state, run, choice)
    return _recorded(state, job, choice, (offers, refused))


def _unless_there(choice: Choice, now: Choice, job: JobView) -> Choice:
    """Who waits takes a pool that is there, may be taken, and whose next useful hour is worth its price.

    What waiting would save is an estimate, and a small one; to be done early is worth something to people.
    """
    allowed = choice.cost_spot is not None and now.action != ON_DEMAND
    waits = job.held == IDLE and choice.action == IDLE
    return replace(choice, action=now.action) if waits and allowed else choice


def _unless_lost(state: WorkloadState, run: Run | None, choice: Choice) -> Choice:
    """On-demand that runs is not left before it has saved anything: what it did would be lost."""
    if held_of(run) != ON_DEMAND or choice.action == ON_DEMAND:
        return choice
    saves = state.spec.body.checkpoint.enabled and run is not None and run.saved_ms is not None
    return choice if saves else replace(choice, action=ON_DEMAND)


def _recorded(
    state: WorkloadState, job: JobView, choice: Choice, means: tuple[Offers, tuple[tuple[str, str], ...]]
) -> Choose:
    offers, refused = means
    action = choice.action
    facts: dict[str, str | int] = dict(_refusals(refused))
    facts["hazard_micro_per_hour"] = choice.hazard_micro_per_hour
    for name in ("cost_wait", "cost_spot", "cost_on_demand"):
        cost = getattr(choice, name)
        if cost is not None:
            facts[name] = cost
    until_ms = job.now_ms + job.period_ms
    if choice.no_return_ms is not None:
        facts["no_return_ms"] = choice.no_return_ms - job.now_ms
        if action == IDLE:
            until_ms = job.now_ms + (job.wait_ms or job.period_ms)
    pools: tuple[str, ...] = ()
    if action == IDLE:
        code = Code.WAITING_SPOT
    elif action == ON_DEMAND:
        code, pools = _CODES[choice.why], _names(state, offers)
    else:
        code, pools = Code.CHOSE_SPOT, (action,)
        facts["pool"] = action
    return Choose(
        workload=state.spec.name,
        capacity="wait" if action == IDLE else "on-demand" if action == ON_DEMAND else "spot",
        pools=pools,
        until_ms=until_ms,
        reason=reason(code, **facts),
    )


def view(snapshot: Snapshot, state: WorkloadState, run: Run | None) -> JobView:
    """The workload as `spot` sees it. Without a deadline its end is as far away as can be."""
    policy, body, now_ms = snapshot.policy, state.spec.body, snapshot.now_ms
    held = held_of(run)
    overhead_ms = max(policy.launch_ms_prior, state.launch_ms) + body.stop_grace_ms + policy.launch_ms_spare
    total_ms = WORK_UNKNOWN_MS if body.work_ms is None else body.work_ms
    work_left_ms = max(total_ms - state.saved_work_ms, 1)
    deadline_ms = now_ms + total_ms if body.deadline_ms is None else state.declared_ms + body.deadline_ms
    launch_left_ms = unsaved_ms = 0
    if held != IDLE and run is not None:
        works_ms = run.decided_ms + overhead_ms if run.saved_ms is None else run.saved_ms
        launch_left_ms = max(works_ms - now_ms, 0)
        unsaved_ms = min(max(now_ms - works_ms, 0), work_left_ms - 1)
    free_ms = deadline_ms - now_ms - work_left_ms - overhead_ms
    return JobView(
        now_ms=now_ms,
        deadline_ms=deadline_ms,
        work_left_ms=work_left_ms,
        overhead_ms=overhead_ms,
        held=held,
        launch_left_ms=launch_left_ms,
        period_ms=policy.spot_period_ms,
        wait_ms=max(1, min(policy.spot_period_ms, free_ms)),
        grain_ms=1,
        at_risk_ms=_at_risk_ms(snapshot, state, run),
        unsaved_ms=unsaved_ms,
    )


def _at_risk_ms(snapshot: Snapshot, state: WorkloadState, run: Run | None) -> int:
    """The most work that goes with a pool: what is done between two saves; all when nothing is saved."""
    declared = state.spec.body.checkpoint
    if not declared.enabled:
        return snapshot.policy.spot_period_ms
    interval_ms = declared.interval_ms_min if declared.interval_ms is None else declared.interval_ms
    if run is not None and run.market == "spot" and run.interval_ms is not None:
        interval_ms = run.interval_ms
    return interval_ms + (state.save_ms or 0)


def basis_of(snapshot: Snapshot, state: WorkloadState, job: JobView, prices: Prices) -> Basis:
    """What the table follows from: the same until evidence, prices or launches are others."""
    changed_ms = snapshot.spot.anyone.seen_ms
    passed_ms, extended_ms, rung_ms = job.now_ms - changed_ms, 0, LADDER_MS
    while rung_ms <= passed_ms:
        extended_ms, rung_ms = rung_ms, rung_ms * LADDER_NUM // LADDER_DEN
    span_ms = state.spec.body.deadline_ms or 1
    step_ms = max(STEP_MS, -(-span_ms // STEPS_MAX))
    needed, steps = -(-span_ms // step_ms), STEPS_MIN
    while steps < needed:
        steps *= 2
    return Basis(
        history=_history(snapshot, {name for name, _ in prices.spot}, changed_ms + extended_ms),
        steps=min(steps, STEPS_MAX),
        step_ms=step_ms,
        overhead_ms=job.overhead_ms,
        spot_usd_micro_per_hour=min((price for _, price in prices.spot), default=prices.on_demand),
        on_demand_usd_micro_per_hour=prices.on_demand,
    )


def hazard_of(snapshot: Snapshot, pool: str) -> float:
    """Endings per hour of the present run of a pool; 0 when nothing was seen of it."""
    seen = dict(as_of(snapshot, snapshot.now_ms).pools).get(pool)
    if seen is None or not exposure_ms(seen):
        return 0.0
    return hazards(seen.up_endings, seen.up_ms)[run_bucket(seen)]
