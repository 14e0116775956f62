"""The choice of waiting, spot or on-demand: prices, the point of no return, when a table is made anew."""

import pytest
from msgspec.structs import replace

from steersman.decide.hazard import HOUR_MS
from steersman.decide.spot import (
    IDLE,
    ON_DEMAND,
    Choice,
    JobView,
    Prices,
    best_pool,
    decide,
    feasible,
    judge_prices,
    no_return_ms,
    plan,
    whole_slack_ms,
)
from steersman.decide.spot_plan import STEPS_MAX, Table
from steersman.model.pools import SpotHistory
from steersman.state.pools import observe

TICK_MS = 600_000
PRICES = Prices(on_demand=3_060_000, spot=(("a", 973_100), ("b", 973_100)))
JOB = JobView(
    now_ms=0,
    deadline_ms=20 * TICK_MS,
    work_left_ms=10 * TICK_MS,
    overhead_ms=360_000,
    held=IDLE,
    launch_left_ms=0,
    period_ms=TICK_MS,
)
TIGHT = replace(JOB, work_left_ms=20 * TICK_MS - 360_000)


def looked(*available: tuple[str, bool]) -> SpotHistory:
    return observe(SpotHistory(), 0, available)


def chosen(job: JobView, history: SpotHistory, prices: Prices = PRICES) -> Choice:
    return decide(history, job, prices, plan(history, job, prices, None))


def test_prices_that_are_none_are_refused_by_name() -> None:
    spot = [("a", None), ("b", 0), ("c", -1), ("d", 700_000_000), ("e", 3_060_000), ("f", 973_100)]
    judged = judge_prices(3_060_000, spot)
    assert judged.prices == Prices(on_demand=3_060_000, spot=(("f", 973_100),))
    assert judged.refused == (
        ("a", "missing"),
        ("b", "not above zero"),
        ("c", "not above zero"),
        ("d", "a sentinel"),
        ("e", "not below on-demand"),
    )


@pytest.mark.parametrize(
    ("price", "fault"), [(None, "missing"), (0, "not above zero"), (700_000_000, "a sentinel")]
)
def test_without_a_price_of_on_demand_there_are_no_prices(price: int | None, fault: str) -> None:
    judged = judge_prices(price, [("a", 1)])
    assert judged.prices is None
    assert judged.refused == ((ON_DEMAND, fault),)


def test_no_pool_is_called_like_an_action() -> None:
    with pytest.raises(AssertionError):
        judge_prices(2, [(ON_DEMAND, 1)])


def test_slack_counts_to_the_last_decision_before_the_deadline() -> None:
    assert whole_slack_ms(JOB) == 10 * TICK_MS
    assert whole_slack_ms(replace(JOB, deadline_ms=21 * TICK_MS - 1)) == 10 * TICK_MS
    assert no_return_ms(JOB) == 9 * TICK_MS
    assert no_return_ms(TIGHT) == 0
    assert no_return_ms(replace(JOB, now_ms=15 * TICK_MS)) == 15 * TICK_MS


@pytest.mark.parametrize("action", [IDLE, "a", ON_DEMAND])
@pytest.mark.parametrize("short_ms", [0, 1])
def test_the_point_of_no_return_is_exact_to_the_millisecond(action: str, short_ms: int) -> None:
    """With one millisecond less than each needs, it is not allowed."""
    need = {IDLE: TICK_MS + 360_000, "a": 2 * 360_000, ON_DEMAND: 360_000}[action]
    job = replace(JOB, work_left_ms=20 * TICK_MS - need + short_ms)
    assert feasible(job, action) is (short_ms == 0)


def test_what_is_left_of_a_launch_is_all_that_the_held_one_needs() -> None:
    job = replace(JOB, work_left_ms=20 * TICK_MS - 60_000, held=ON_DEMAND, launch_left_ms=60_000)
    assert feasible(job, ON_DEMAND)
    assert not feasible(replace(job, launch_left_ms=60_001), ON_DEMAND)


def test_a_run_that_finishes_within_the_period_needs_no_way_back() -> None:
    job = replace(JOB, deadline_ms=TICK_MS, work_left_ms=TICK_MS - 360_000)
    assert feasible(job, "a")
    assert not feasible(replace(job, work_left_ms=TICK_MS - 359_999), "a")
    assert not feasible(replace(job, deadline_ms=TICK_MS - 1), "a")


def test_spot_is_taken_when_it_is_there_and_awaited_when_there_is_time() -> None:
    up, down = chosen(JOB, looked(("a", True))), chosen(JOB, looked(("a", False)))
    assert (up.action, up.why) == ("a", "cheapest")
    assert up.cost_spot is not None
    assert up.cost_wait is not None
    assert up.cost_spot < up.cost_wait
    assert (down.action, down.cost_spot) == (IDLE, None)
    assert down.hazard_micro_per_hour > 0


def test_at_the_point_of_no_return_on_demand_is_launched() -> None:
    choice = chosen(TIGHT, looked(("a", True)))
    assert (choice.action, choice.why) == (ON_DEMAND, "point of no return")
    assert (choice.cost_wait, choice.cost_spot, choice.free_slack_ms) == (None, None, 0)


def test_spot_that_runs_is_kept_where_a_launch_of_on_demand_would_be_late() -> None:
    job = replace(JOB, deadline_ms=TICK_MS, work_left_ms=TICK_MS, held="a")
    choice = chosen(job, looked(("a", True)))
    assert (choice.action, choice.why, choice.cost_on_demand) == ("a", "point of no return", None)


def test_a_job_that_must_be_late_goes_on_with_on_demand() -> None:
    choice = chosen(replace(JOB, work_left_ms=21 * TICK_MS), looked(("a", True)))
    assert (choice.action, choice.why) == (ON_DEMAND, "too late")


def test_without_a_price_of_spot_there_is_on_demand_alone() -> None:
    prices = Prices(on_demand=3_060_000, spot=())
    choice = chosen(JOB, looked(("a", True)), prices)
    assert (choice.action, choice.why, choice.cost_spot) == (ON_DEMAND, "no spot price", None)


def test_the_pool_with_the_cheapest_useful_hour_is_taken_and_the_held_one_kept() -> None:
    history = looked(("a", True), ("b", True), ("c", True))
    dear = Prices(on_demand=3_060_000, spot=(("a", 973_100), ("b", 500_000)))
    assert best_pool(history, JOB, PRICES) == "a"
    assert best_pool(history, JOB, dear) == "b"
    assert best_pool(history, replace(JOB, held="a"), dear) == "a"
    assert best_pool(looked(("a", False), ("c", True)), JOB, PRICES) is None
    assert best_pool(history, replace(JOB, now_ms=1), PRICES) is None, "seen earlier is not seen now"


def test_a_pool_that_flaps_is_passed_over() -> None:
    history = looked(("a", True), ("b", True))
    for look in range(1, 31):
        history = observe(history, look * TICK_MS, (("a", look % 2 == 0), ("b", True)))
    job = replace(JOB, now_ms=30 * TICK_MS, deadline_ms=90 * TICK_MS)
    assert best_pool(history, job, PRICES) == "b"


def _held(history: SpotHistory, job: JobView, prices: Prices, table: Table) -> bool:
    return plan(history, job, prices, table) is table


def test_a_table_is_kept_until_something_changed() -> None:
    history = looked(("a", True))
    table = plan(history, JOB, PRICES, None)
    assert _held(history, JOB, PRICES, table)
    assert not _held(history, replace(JOB, overhead_ms=1), PRICES, table)
    assert not _held(history, replace(JOB, deadline_ms=40 * TICK_MS), PRICES, table)
    assert not _held(history, JOB, replace(PRICES, on_demand=4_000_000), table)
    assert not _held(history, JOB, replace(PRICES, spot=(("a", 1),)), table)
    assert not _held(history, JOB, replace(PRICES, spot=()), table)


def test_a_table_is_made_anew_when_the_evidence_grew_by_a_quarter() -> None:
    def after(hours: int) -> SpotHistory:
        return observe(looked(("a", True)), hours * HOUR_MS, (("a", True),))

    table = plan(after(8), JOB, PRICES, None)
    assert _held(after(9), JOB, PRICES, table)
    assert not _held(after(10), JOB, PRICES, table)
    first = plan(looked(("a", True)), JOB, PRICES, None)
    assert not _held(after(1), JOB, PRICES, first)


def test_far_deadlines_are_planned_in_longer_steps() -> None:
    table = plan(looked(("a", True)), replace(JOB, deadline_ms=2_000 * HOUR_MS), PRICES, None)
    assert table.basis.steps <= STEPS_MAX
    assert table.basis.steps * table.basis.step_ms >= 2_000 * HOUR_MS


@pytest.mark.parametrize("job", [replace(JOB, work_left_ms=0), replace(JOB, period_ms=0)])
def test_a_decision_about_nothing_is_a_bug(job: JobView) -> None:
    history = looked(("a", True))
    with pytest.raises(AssertionError):
        decide(history, job, PRICES, plan(history, JOB, PRICES, None))
