"""The optimum with arrays is the product's own, to the last bit."""

import random

import pytest
from bench.decide import spot_bound

from steersman.sim.replay import bounds_spot_job
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
