"""The optimum with arrays is the product's own, to the last bit; the bound of replicas is a known one."""

import math
import random
from pathlib import Path

import pytest
from bench.decide import autoscale_bound, spot_bound

from steersman.sim.replay import bounds_spot_job
from steersman.sim.replay.autoscale import Asked
from steersman.sim.replay.bounds_spot_job import Grain


@pytest.mark.parametrize("seed", range(60))
def test_with_arrays_and_without(seed: int) -> None:
    dice = random.Random(seed)
    ticks = dice.randint(1, 40)
    pools = [bytes(dice.randint(0, 1) for _ in range(ticks)) for _ in range(dice.randint(0, 3))]
    grain = Grain(dice.randint(1, 6), dice.randint(0, 9), dice.randint(1, 6 * ticks))
    prices = (dice.randint(1, 9), dice.randint(9, 30))
    plain = bounds_spot_job.least_cost(pools, ticks, grain, prices)
    assert spot_bound.least_cost(pools, ticks, grain, prices) == plain


def _asked(least: int = 1) -> Asked:
    return Asked(requests=Path(), capacity=2.0, slo_s=10.0, cold_start_s=60.0, min_replicas=least)


def test_the_bound_of_a_steady_service_is_its_work_and_its_launches() -> None:
    """3 units a second need 2 replicas of 2; what comes in the last seconds may wait beyond the end."""
    whole = autoscale_bound.bound([3.0] * 1_200, _asked())
    assert whole == pytest.approx(2 * 1_200 + 2 * 60, rel=0.03)
    days = autoscale_bound.bound([3.0] * 24_000, _asked())
    assert days == pytest.approx(1.5 * 24_000 + 1.5 * 60, rel=0.01)


def test_a_bound_that_is_not_solved_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a solution would flatter every policy."""
    monkeypatch.setattr(autoscale_bound, "SOLVE_S_MAX", 0)
    assert math.isnan(autoscale_bound.bound([3.0, 9.0] * 600, _asked()))
