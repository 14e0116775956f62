"""What is learned of spot pools: exposure and endings to the bucket, hazards, and what follows from them."""

from math import inf

import pytest
from msgspec.structs import replace

from steersman.decide.hazard import (
    HOUR_MS,
    checkpoint_interval_ms,
    cover,
    down_hazards,
    exposure_ms,
    hazards,
    prior_hazards,
    run_bucket,
    up_hazards,
    useful_hour_price,
)
from steersman.model.pools import AGE_EDGES_MS, AGES, PoolHistory, SpotHistory
from steersman.state.pools import age_bucket, observe, observe_pool

MINUTE_MS = 60_000


def seen(*looks: tuple[int, bool]) -> PoolHistory:
    """A pool after looks at (minutes, up)."""
    pool = PoolHistory()
    for minutes, is_up in looks:
        pool = observe_pool(pool, minutes * MINUTE_MS, is_up)
    return pool


def minutes(values: tuple[int, ...]) -> list[int]:
    return [value // MINUTE_MS for value in values]


def test_the_first_look_only_dates_a_run() -> None:
    assert seen((5, True)) == PoolHistory(available=True, since_ms=5 * MINUTE_MS, seen_ms=5 * MINUTE_MS)


def test_exposure_is_split_over_the_ages_it_spans() -> None:
    pool = seen((0, True), (15, True), (45, True), (700, True))
    assert minutes(pool.up_ms) == [10, 10, 20, 40, 80, 160, 380]
    assert exposure_ms(pool) == 700 * MINUTE_MS
    assert sum(pool.up_endings) == 0
    assert run_bucket(pool) == AGES - 1


def test_a_change_is_an_ending_at_the_age_of_the_run_and_begins_the_next() -> None:
    pool = seen((0, True), (10, True), (20, False), (50, False), (60, True))
    assert pool.up_endings == (0, 1, 0, 0, 0, 0, 0)
    assert pool.down_endings == (0, 0, 1, 0, 0, 0, 0)
    assert minutes(pool.down_ms) == [10, 10, 20, 0, 0, 0, 0]
    assert (pool.available, pool.since_ms) == (True, 60 * MINUTE_MS)


def test_time_that_goes_back_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="a look at 0 ms"):
        seen((1, True), (0, True))


def test_ages() -> None:
    assert [age_bucket(edge) for edge in AGE_EDGES_MS] == list(range(AGES))
    assert age_bucket(AGE_EDGES_MS[1] - 1) == 0
    assert age_bucket(-1) == 0


def test_nothing_looked_at_changes_nothing() -> None:
    assert observe(SpotHistory(), 7, ()) == SpotHistory()


def test_pools_stand_in_order_of_name_and_anyone_is_any_of_them() -> None:
    history = observe(SpotHistory(), 0, (("b", True), ("a", False)))
    history = observe(history, MINUTE_MS, (("a", True),))
    assert [name for name, _ in history.pools] == ["a", "b"]
    assert history.anyone.available is True
    assert dict(history.pools)["b"].seen_ms == 0


def test_a_loss_is_covered_when_another_pool_is_up() -> None:
    history = observe(SpotHistory(), 0, (("a", True), ("b", True)))
    history = observe(history, 1, (("a", False), ("b", True)))
    history = observe(history, 2, (("a", False), ("b", False)))
    assert (history.losses, history.covered) == (2, 1)
    assert cover(history) == pytest.approx(1.5 / 3)


def test_one_pool_covers_no_loss() -> None:
    assert cover(observe(SpotHistory(), 0, (("a", True),))) == 0.0


def test_hazards_begin_at_the_prior_and_fall_with_age() -> None:
    prior = prior_hazards()
    assert list(prior) == sorted(prior, reverse=True)
    assert prior[0] == pytest.approx(1 / (1 / 12 + 1 / 6))
    assert hazards((0,) * AGES, (0,) * AGES) == pytest.approx(prior)
    assert up_hazards(SpotHistory()) == pytest.approx(prior)
    assert down_hazards(SpotHistory()) == pytest.approx(prior)


def test_hazards_follow_much_evidence() -> None:
    counts, exposed = (2_000,) + (0,) * 6, (1_000 * HOUR_MS,) + (0,) * 6
    assert hazards(counts, exposed)[0] == pytest.approx(2.0, rel=0.01)


def test_up_runs_of_all_pools_are_evidence_together() -> None:
    one = PoolHistory(up_endings=(3,) + (0,) * 6, up_ms=(HOUR_MS,) + (0,) * 6)
    history = SpotHistory(pools=(("a", one), ("b", one)))
    assert up_hazards(history) == hazards((6,) + (0,) * 6, (2 * HOUR_MS,) + (0,) * 6)


def test_a_useful_hour_costs_more_on_a_pool_that_ends_soon() -> None:
    steady = PoolHistory(up_ms=(100 * HOUR_MS,) * AGES, available=True)
    flaky = replace(steady, up_endings=(1_000,) * AGES)
    price = [useful_hour_price(pool, 100, 6 * MINUTE_MS, 10 * HOUR_MS) for pool in (steady, flaky)]
    assert 100 < price[0] < price[1]
    assert useful_hour_price(steady, 100, 0, 10 * HOUR_MS) == pytest.approx(100)
    old = replace(steady, seen_ms=100 * HOUR_MS)
    assert 100 < useful_hour_price(old, 100, 6 * MINUTE_MS, 10 * HOUR_MS) < price[1]


def test_a_run_that_does_not_outlive_its_launch_is_worth_nothing() -> None:
    flaky = PoolHistory(up_endings=(10_000,) * AGES, up_ms=(HOUR_MS,) * AGES, available=True)
    assert useful_hour_price(flaky, 100, HOUR_MS, 10 * HOUR_MS) == inf


@pytest.mark.parametrize(
    ("save_ms", "hazard", "interval_ms"),
    [
        (0, 1.0, 60_000),
        (10_000, 0.0, HOUR_MS),
        (10_000, 1.0, 258_328),  # sqrt(2 * 10 s * 1 h) - 10 s
        (10_000, 0.001, HOUR_MS),
        (HOUR_MS, 4.0, 900_000),  # a save longer than two lives: the mean life
    ],
)
def test_the_interval_of_checkpoints(save_ms: int, hazard: float, interval_ms: int) -> None:
    assert checkpoint_interval_ms(save_ms, hazard, 60_000, HOUR_MS) == interval_ms


@pytest.mark.parametrize(("save_ms", "least_ms", "most_ms"), [(-1, 1, 2), (0, 0, 2), (0, 3, 2)])
def test_an_interval_without_sense_is_a_bug(save_ms: int, least_ms: int, most_ms: int) -> None:
    with pytest.raises(AssertionError):
        checkpoint_interval_ms(save_ms, 1.0, least_ms, most_ms)
