"""Forecasts, backtests and the target they come to, in small numbers."""

import pytest
from tests.properties.capacity_laws import Play, service, steps

from steersman.decide import backtest, capacity, forecast
from steersman.decide.backtest import BY_RATE, CANDIDATES, HEADROOMS, Leader, Tick
from steersman.decide.forecast import FORECASTS, NOTHING, Pace, Past
from steersman.decide.levels import LEVELS, held_levels, needed_again, needed_now

PACE = Pace(slo_s=10, cold_start_s=60, tick_s=5)


def after(loads: list[int], pace: Pace = PACE) -> Past:
    past = NOTHING
    for load in loads:
        past = forecast.come(past, pace, load)
    return past


def test_all_forecasts_of_a_steady_rate_are_the_rate() -> None:
    assert after([5_000] * 200).now == pytest.approx((1_000.0,) * FORECASTS)


def test_a_line_leads_a_ramp_to_the_end_of_the_cold_start_and_means_lag() -> None:
    past = after([5 * 10 * tick for tick in range(200)])
    half, ten_minutes, line, rise = past.now
    assert ten_minutes < past.minute < half < 1_990 < line
    assert line == pytest.approx(1_990 + 2 * (60 + 5) + 5, abs=6)
    assert rise == pytest.approx(line, abs=1), "the same ramp, fitted to longer"


def test_a_line_that_falls_ends_at_nothing_and_a_rise_does_not_believe_it() -> None:
    past = after([100_000] * 60 + [0] * 8)
    assert past.now[2] < past.minute <= past.now[3]
    assert after([100_000] * 30 + [0] * 20).now[2] == 0.0


def test_short_history_is_not_averaged_with_what_was_not_seen() -> None:
    assert after([0, 0, 0, 0, 10_000, 10_000]).now == (2_000.0,) * FORECASTS


@pytest.mark.parametrize(
    ("cold_s", "ticks"),
    [(0, (1, 1, 120, 360)), (60, (1, 12, 120, 360)), (600, (1, 120, 240, 360))],
)
def test_holds_are_a_tick_a_cold_start_and_at_least_two_of_them(cold_s: int, ticks: tuple[int, ...]) -> None:
    assert forecast.hold_ticks(PACE._replace(cold_start_s=cold_s)) == ticks


def test_a_burst_is_held_and_then_forgotten() -> None:
    burst = after([1_000] * 10 + [90_000] + [1_000] * 11)
    held = [max(series[0]) for series in burst.holds]
    assert held[0] < held[1] == held[2]
    gone = after([1_000] * 10 + [90_000] + [1_000] * 40)
    assert max(gone.holds[1][0]) == pytest.approx(200)


def test_the_floor_serves_every_window_within_the_objective() -> None:
    assert max(after([0] * 20 + [30_000]).holds[0][-1]) == pytest.approx(30_000 / (5 + 10))


@pytest.mark.parametrize(("slo_s", "tick_s"), [(1, 1), (5, 2), (10, 5), (60, 5)])
def test_a_service_is_looked_at_twice_within_its_objective(slo_s: int, tick_s: int) -> None:
    assert capacity.tick_of(slo_s) == tick_s


def test_candidates_are_all_combinations_once() -> None:
    assert len({backtest.choice(one) for one in range(BY_RATE)}) == BY_RATE == CANDIDATES - len(LEVELS)
    assert len(set(LEVELS)) == len(LEVELS)
    assert backtest.choice(len(HEADROOMS)) == (0, 1, 0)


def test_the_leader_is_lean_without_violations_and_fat_with_them() -> None:
    given = service()
    past = after([5_000] * 200)
    zero = (0.0,) * CANDIDATES
    costs = tuple(100.0 + place for place in range(CANDIDATES))
    fleets = backtest.fleets_of(given, 1)._replace(costs=costs, violations=zero, requests=1e9, work=50.0)
    assert backtest.lead(fleets, past, given, Leader(7, 0.0, 0.0)).candidate == 0
    late = (1e9, *zero[1:])
    assert backtest.lead(fleets._replace(violations=late), past, given, Leader(7, 0.0, 0.0)).candidate == 1
    assert backtest.lead(fleets._replace(work=0.0), past, given, Leader(7, 0.0, 0.0)).candidate == 7


def test_violations_are_what_came_in_a_tick_and_still_waits_when_it_is_due() -> None:
    due = backtest._Due(later_milli=100, work_milli=200, requests=10)
    assert backtest._violations((0.0, 1.0, 1.0, 0.0), (100, 200, 500, 0), due, 1.0) == (0.0, 6.0, 11.0, 0.0)
    assert backtest._violations((2.0,), (500,), backtest._Due(0, 0, 0), 0.5) == (1.0,)


def test_a_steady_service_comes_to_little_more_than_its_work() -> None:
    given = service()
    *_, (_, _, last) = steps(Play(given, [(25, 10)] * 400))
    said = capacity.decide(last, given)
    assert 5 <= said.target <= 8
    assert said.code == "forecast"
    facts = dict(said.facts)
    assert facts["forecast_milli"] == 5_000
    assert facts["cold_start_s"] == 60
    assert facts["cost_over_work_milli"] >= 1_000


def test_the_record_leaves_the_last_ten_minutes_out() -> None:
    steady = [5_000] * 130
    assert after(steady[:119]).record == 0
    assert after(steady).record == pytest.approx(1_000)
    assert after(steady + [50_000] * 108).record == pytest.approx(1_000), "the minute ends nine minutes ago"
    assert after(steady + [50_000] * 120).record == pytest.approx(10_000)


@pytest.mark.parametrize(("least", "hour", "unseen"), [(1, 720, True), (1, 700, False), (0, 720, False)])
def test_a_load_that_is_higher_than_ever_is_told(least: int, hour: int, *, unseen: bool) -> None:
    given = service(cold_s=600, least=least)._replace(budget_ppm=100_000)
    play = Play(given, [(50, 10)] * hour + [(52, 10)] * 15)
    codes = [capacity.decide(state, given).code for *_, state in steps(play)]
    assert ("unseen" in codes) == unseen


def test_what_is_said_of_a_target() -> None:
    given = service()
    codes = [
        capacity.decide(state, given).code
        for *_, state in steps(Play(given, [(50, 10)] * 60 + [(0, 10)] * 600))
    ]
    assert codes[0] == "warm-up"
    assert {"held", "forecast"} <= set(codes)


def test_a_service_that_may_go_to_zero_does_and_comes_back() -> None:
    given = service(least=0)
    found = [
        state.target for *_, state in steps(Play(given, [(10, 10)] * 30 + [(0, 10)] * 2_000 + [(10, 10)] * 3))
    ]
    assert found[-4] == 0
    assert found[-1] > 0


def test_without_a_cold_start_there_is_no_warming_up() -> None:
    given = service(cold_s=0)
    state = capacity.observe(capacity.start(given, 1), given, Tick(5_000, 5, 0, 1, 1))
    assert capacity.decide(state, given).code != "warm-up"


def test_a_higher_level_is_let_go_sooner() -> None:
    """Four were needed, then none: the k-th stays for the hold over k, or over k squared."""
    past = after([5 * 4_000] * 12)
    needed = needed_again((), past, 1_000)
    assert (needed_now(past, 1_000), needed) == (4, (12,) * 4)
    for idle_s, expected in ((60, 4), (500, 3), (1_000, 1), (1_801, 0)):
        later = past._replace(ticks=past.ticks + idle_s // 5 + (idle_s % 5 > 0), minute=0.0)
        held = held_levels(needed_again(needed, later, 1_000), later, 5, 0)
        assert held[LEVELS.index((1_800, 1, 0))] == expected, idle_s
        assert held[LEVELS.index((1_800, 1, 1))] == (expected + 1 if expected else 0)
        assert held[LEVELS.index((1_800, 2, 0))] <= expected
        assert held[LEVELS.index((14_400, 1, 0))] == (4 if idle_s <= 3_600 else 3)


def test_what_is_needed_now_is_held_whatever_the_levels_say() -> None:
    past = after([5 * 2_000] * 40)
    assert set(held_levels((0, 0), past, 5, 2)) == {2, 3}
