"""The programme of least expected cost: known values at its ends, and the order of its states."""

import itertools

import pytest
from msgspec.structs import replace

from steersman.decide.hazard import HOUR_MS
from steersman.decide.spot_plan import (
    DOWN_IDLE,
    DOWN_ON_DEMAND,
    SLACK_POINTS,
    STEP_MS,
    UP_IDLE,
    UP_ON_DEMAND,
    UP_SPOT,
    Basis,
    Table,
    solve,
    value,
)
from steersman.model.pools import AGES, PoolHistory, SpotHistory

SPOT, ON_DEMAND = 1_000_000, 3_000_000
NEVER = PoolHistory(
    down_ms=(1_000_000 * HOUR_MS,) * AGES, up_endings=(10_000,) * AGES, up_ms=(HOUR_MS,) * AGES
)
ALWAYS = PoolHistory(
    up_ms=(1_000_000 * HOUR_MS,) * AGES, down_endings=(10_000,) * AGES, down_ms=(HOUR_MS,) * AGES
)


def basis(pool: PoolHistory, *more: PoolHistory, steps: int = 30, overhead_ms: int = 360_000) -> Basis:
    pools = tuple((f"pool-{at}", one) for at, one in enumerate((pool, *more)))
    return Basis(
        history=SpotHistory(pools=pools, anyone=pool),
        steps=steps,
        step_ms=STEP_MS,
        overhead_ms=overhead_ms,
        spot_usd_micro_per_hour=SPOT,
        on_demand_usd_micro_per_hour=ON_DEMAND,
    )


def cost(table: Table, state: int, slack_ms: int, bucket: int = AGES - 1) -> float:
    return value(table, table.values[-1][state][bucket], slack_ms)


def test_nothing_is_left_to_pay_at_the_deadline() -> None:
    table = solve(basis(PoolHistory()))
    assert len(table.values) == 31
    assert {cell for state in table.values[0] for row in state for cell in row} == {0.0}


def test_without_slack_every_hour_is_on_demand_when_spot_never_comes() -> None:
    table = solve(basis(NEVER))
    assert cost(table, DOWN_ON_DEMAND, 0) == pytest.approx(10 * ON_DEMAND, rel=1e-6)
    assert cost(table, DOWN_IDLE, 0) == pytest.approx(10 * ON_DEMAND, rel=1e-6), "its launch is paid too"


def test_with_a_pool_that_is_always_up_every_hour_is_spot() -> None:
    table = solve(basis(ALWAYS))
    assert cost(table, UP_SPOT, 2 * HOUR_MS) == pytest.approx(7.9 * SPOT, rel=0.02)


def test_more_slack_never_costs_more() -> None:
    table = solve(basis(PoolHistory()))
    for state in table.values[-1]:
        for row in state:
            assert len(row) == SLACK_POINTS
            assert all(later <= before + 1e-6 for before, later in itertools.pairwise(row))


def test_a_pool_that_is_up_is_worth_something_and_so_is_a_machine_that_runs() -> None:
    table = solve(basis(PoolHistory()))
    slack_ms = 2 * HOUR_MS
    assert cost(table, UP_IDLE, slack_ms) < cost(table, DOWN_IDLE, slack_ms)
    assert cost(table, UP_SPOT, slack_ms) <= cost(table, UP_IDLE, slack_ms)
    assert cost(table, UP_ON_DEMAND, slack_ms) < cost(table, DOWN_ON_DEMAND, slack_ms)


def test_another_pool_that_covers_losses_makes_it_cheaper() -> None:
    alone = solve(basis(PoolHistory(), PoolHistory()))
    covered = basis(PoolHistory(), PoolHistory())
    covered = replace(covered, history=replace(covered.history, losses=100, covered=100))
    assert cost(solve(covered), UP_SPOT, HOUR_MS) < cost(alone, UP_SPOT, HOUR_MS)


def test_a_launch_that_takes_no_time_is_planned_for() -> None:
    table = solve(basis(PoolHistory(), overhead_ms=0))
    assert cost(table, UP_IDLE, 2 * HOUR_MS) == pytest.approx(cost(table, UP_SPOT, 2 * HOUR_MS))


def test_values_are_read_between_the_points_and_at_the_ends() -> None:
    table = solve(basis(PoolHistory()))
    row = [float(at) for at in range(SLACK_POINTS)]
    assert value(table, row, -5) == 0.0
    assert value(table, row, round(table.slack_hours[1] * HOUR_MS) // 2) == pytest.approx(0.5, rel=1e-4)
    assert value(table, row, 1_000 * HOUR_MS) == pytest.approx(SLACK_POINTS - 1)


def test_the_same_basis_gives_the_same_table() -> None:
    assert solve(basis(ALWAYS)) == solve(basis(ALWAYS))
