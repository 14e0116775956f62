"""The baselines of `autoscale` keep to the rules that their projects document."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from bench.decide.scalers import SCALERS, Scaled, hpa, keda, knative, ray_serve

from steersman.sim.replay.autoscale import Asked, Decider, Second, simulate

WEB = Scaled(capacity=10.0, service_s=1, least=1, most=100)
"""A replica at its target has 7 in flight."""


def told(decider: Decider, rates: list[tuple[int, float]], replicas: int, *, cold_s: int = 0) -> list[int]:
    """Replicas after each second, in the simulator's own queue; rates are (seconds, work a second)."""
    after = []

    def look(seen: Second) -> int | None:
        target = decider(seen)
        after.append(seen.replicas if target is None else target)
        return target

    asked = Asked(requests=Path(), capacity=10.0, slo_s=1.0, cold_start_s=cold_s)
    simulate(asked, [rate for seconds, rate in rates for _ in range(seconds)], replicas, look)
    return after


def test_hpa_wants_the_share_of_its_target_and_nothing_within_a_tenth() -> None:
    assert told(hpa(WEB), [(60, 70.0)], 10)[-1] == 10
    assert told(hpa(WEB), [(60, 76.0)], 10)[-1] == 10  # 8.6 % above
    assert told(hpa(WEB), [(15, 90.0)], 10)[-1] == 13  # ceil(10 * 0.9 / 0.7)


def test_hpa_grows_at_once_and_shrinks_after_300_s() -> None:
    grown = told(hpa(WEB), [(45, 1_000.0)], 5)
    assert (grown[13], grown[14]) == (5, 8)  # busy replicas tell no more than 1 / 0.7
    assert told(hpa(Scaled(10.0, 1, 1, 9)), [(45, 1_000.0)], 5)[-1] == 9
    shrunk = told(hpa(WEB), [(60, 70.0), (400, 7.0)], 10)
    first = next(second for second, number in enumerate(shrunk) if number < 10)
    assert 59 + 300 <= first <= 59 + 300 + 30
    assert shrunk[-1] == 2  # ceil(10 * 0.1 / 0.7)
    assert told(hpa(Scaled(10.0, 1, 0, 9)), [(900, 0.0)], 1)[-1] == 1  # never zero


def test_hpa_counts_pods_that_are_not_ready_as_idle() -> None:
    grown = told(hpa(WEB), [(60, 20.0)], 1, cold_s=600)
    assert grown[14] == 2
    assert grown[-1] == 2  # one of two busy: 0.5 is below the target


def test_keda_polls_every_30_s_and_doubles_at_most() -> None:
    after = told(keda(Scaled(capacity=10.0, service_s=1, least=0, most=100)), [(31, 0.0), (100, 1_000.0)], 0)
    assert after[:74] == [0] * 74  # polled at 30, when there was nothing, and at 60; asked every 15 s
    assert [after[second] for second in (74, 89, 104, 119)] == [1, 5, 10, 20]


def test_keda_wants_zero_300_s_after_the_last_work_and_remembers_300_more() -> None:
    after = told(keda(Scaled(capacity=10.0, service_s=1, least=0, most=100)), [(90, 70.0), (600, 0.0)], 10)
    assert set(after[:90]) == {10}
    first = after.index(0)
    assert 90 + 500 <= first <= 90 + 600


def test_ray_serve_waits_30_s_before_more_and_600_s_before_less() -> None:
    grown = told(ray_serve(WEB), [(200, 70.0)], 1)
    first = next(second for second, number in enumerate(grown) if number > 1)
    assert 29 <= first <= 32
    shrunk = told(ray_serve(WEB), [(60, 70.0), (800, 7.0)], 10)
    first = next(second for second, number in enumerate(shrunk) if number < 10)
    assert 600 <= first - 60 <= 631


def test_knative_panics_at_twice_what_is_ready_and_only_grows_for_a_minute() -> None:
    calm = told(knative(WEB), [(300, 70.0)], 10)
    assert set(calm[60:]) == {10}
    burst = told(knative(WEB), [(120, 70.0), (10, 300.0), (200, 70.0)], 10)
    peak = max(burst)
    assert peak >= 40
    at = burst.index(peak)
    assert at <= 134  # within seconds; the mean of a minute alone would ask for less
    assert all(number == peak for number in burst[at : at + 55])
    assert burst[-1] == 10


def test_knative_halves_at_most_and_keeps_30_s_of_grace_before_zero() -> None:
    zero = Scaled(capacity=10.0, service_s=1, least=0, most=100)
    after = told(knative(zero), [(120, 70.0), (300, 0.0)], 10)
    gone = after.index(0)
    assert 120 + 88 <= gone <= 120 + 92
    assert told(knative(WEB), [(120, 70.0), (300, 0.0)], 10)[-1] == 1
    drops = [(one, two) for one, two in pairwise(after[:gone]) if two < one]
    assert drops
    assert all(two >= one // 2 for one, two in drops)


@pytest.mark.parametrize("name", list(SCALERS))
def test_all_of_them_keep_to_fewest_and_most(name: str) -> None:
    make: Callable[[Scaled], Decider] = SCALERS[name]
    after = told(make(Scaled(10.0, 4, 2, 6)), [(100, 5.0), (200, 500.0), (1_500, 0.0)], 2)
    assert (min(after), max(after)) == (2, 6)
