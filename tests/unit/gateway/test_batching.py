"""The latency model: what it learns, what it promises, and the size that follows."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.gateway.exchange.batching import PROBE_EVERY, QUANTILE, LatencyModel


def _serve(
    model: LatencyModel, a: float, b: float, batches: int, waiting: int = 64, noise: float = 0.0
) -> list[int]:
    """Run so many batches of a model that takes a·n + b; the sizes it chose."""
    dice, sizes = random.Random(1), []
    for number in range(batches):
        rows = min(model.size(waiting, 1), waiting)
        sizes.append(rows)
        model.observe(rows, (a * rows + b) * (1 + noise * dice.random()), float(number))
    return sizes


def test_it_doubles_until_it_knows_and_stops_at_the_knee() -> None:
    model = LatencyModel(64, None)
    assert model.predict(8) == 0
    sizes = _serve(model, 0.001, 0.0005, 40)
    assert sizes[:4] == [1, 2, 4, 8]
    assert set(sizes[4:31]) <= {12, 13}  # (b + 100 µs) / (5 % of a) = 12, but for rounding
    assert model.predict(12) == pytest.approx(0.0125, rel=1e-3)


def test_when_rows_are_all_that_costs_small_batches_are_best() -> None:
    sizes = _serve(LatencyModel(64, None), 0.01, 0.0, 50)
    assert set(sizes[5:]) <= {1, 2}  # 2 is a probe


def test_when_the_batch_is_all_that_costs_it_takes_all() -> None:
    sizes = _serve(LatencyModel(64, None), 0.0, 0.01, 50)
    assert sizes[10:].count(64) > 35


def test_an_objective_bounds_the_size_to_half_of_it() -> None:
    model = LatencyModel(64, 0.04)
    _serve(model, 0.001, 0.01, 60)
    assert 9 <= model.star <= 10
    assert model.promise(model.star) <= 0.02


def test_sizes_probe_now_and_then_and_follow_drift() -> None:
    model = LatencyModel(64, None)
    sizes = _serve(model, 0.001, 0.0005, 4 * PROBE_EVERY)
    assert min(sizes[10:]) <= 7
    assert max(sizes) <= 17
    sizes = _serve(model, 0.001, 0.002, 40 * PROBE_EVERY)
    assert model.predict(20) == pytest.approx(0.022, rel=0.05)
    assert max(sizes[-PROBE_EVERY:]) > 30


def test_constant_sizes_do_not_turn_noise_into_a_slope() -> None:
    model = LatencyModel(64, None)
    _serve(model, 0.001, 0.004, 60, noise=0.02)
    before = model.b / model.a
    _serve(model, 0.001, 0.004, 3_000, waiting=1, noise=0.3)
    assert model.b / model.a == pytest.approx(before, rel=0.3)
    assert model.predict(1) == pytest.approx(0.005 * 1.15, rel=0.1)


def test_side_by_side_when_rows_outweigh_the_batch() -> None:
    model = LatencyModel(64, None)
    _serve(model, 0.01, 0.002, 20)
    model.star = 8
    assert model.size(8, 2) == 4
    _serve(model, 0.0001, 0.05, 200)
    assert model.size(8, 2) > 4  # the batch outweighs the rows: together


@given(
    st.floats(1e-6, 1e-2),
    st.floats(0, 1e-2),
    st.lists(st.integers(1, 64), min_size=60, max_size=200),
    st.integers(0, 9),
)
def test_it_learns_any_line_from_any_sizes(a: float, b: float, sizes: list[int], seed: int) -> None:
    """What is predicted at the sizes seen is near the truth, and nothing is ever below zero."""
    model, dice = LatencyModel(64, None), random.Random(seed)
    for rows in sizes:
        model.observe(rows, (a * rows + b) * (1 + 0.01 * dice.random()), 0.0)
        assert model.a >= 0
        assert model.b >= 0
        assert model.q >= 0
        assert 1 <= model.star <= 64
    mean = round(sum(sizes[-30:]) / 30)
    assert model.predict(mean) == pytest.approx(a * mean + b, rel=0.1)


def test_the_promise_is_kept_by_99_in_100() -> None:
    model, dice, kept = LatencyModel(64, None), random.Random(3), 0
    for number in range(5_000):
        rows = dice.randint(1, 32)
        seconds = (0.001 * rows + 0.002) * dice.lognormvariate(0, 0.1)
        kept += seconds <= model.promise(rows)
        model.observe(rows, seconds, float(number))
    assert kept / 5_000 == pytest.approx(QUANTILE, abs=0.01)


@given(st.floats(0, 1), st.floats(0, 1e-2), st.floats(0, 1e-1))
def test_rows_within_a_slack_keep_the_promise(slack: float, a: float, b: float) -> None:
    model = LatencyModel(64, None)
    model.a, model.b = a, b
    rows = model.rows_within(slack)
    assert rows == 0 or model.promise(rows) <= slack * (1 + 1e-9)
    assert rows == 64 or model.promise(rows + 1) >= slack * (1 - 1e-9)
