"""The yardstick: the units of the published script, exact units, and optima known by hand."""

from math import inf

import pytest

from steersman.sim.replay import bounds_spot_job
from steersman.sim.replay.bounds_spot_job import Grain, exact_grain, least_cost, script_grain

HOUR_MS = 3_600_000


def test_the_units_of_the_script_do_more_in_a_tick_than_there_is() -> None:
    assert script_grain(600_000, 360_000, 48 * HOUR_MS) == Grain(17, 10, 4800)
    assert script_grain(195_000, 360_000, 48 * HOUR_MS) == Grain(13, 24, 11_520)
    assert exact_grain(195_000, 360_000, 48 * HOUR_MS, 960) == Grain(13, 24, 11_520)
    assert exact_grain(600_000, 360_000, 48 * HOUR_MS, 312) == Grain(5, 3, 1440)
    assert exact_grain(600_000, 0, 48 * HOUR_MS + 1, 312) == Grain(1, 0, 289)


def test_units_that_are_too_fine_are_rounded_in_the_job_s_favour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exact_grain(600_000, 359_999, HOUR_MS, 312) == Grain(60, 35, 360)
    monkeypatch.setattr(bounds_spot_job, "CELLS_MAX", 10_000)
    assert exact_grain(600_000, 359_999, HOUR_MS, 60) == Grain(3, 1, 18)
    assert exact_grain(600_000, 360_000, HOUR_MS, 1_000) == Grain(1, 0, 6)


@pytest.mark.parametrize(
    ("pools", "ticks", "grain", "cost"),
    [
        ([], 3, Grain(1, 0, 3), 15),
        ([], 2, Grain(1, 0, 3), inf),
        ([], 3, Grain(1, 1, 3), inf),
        ([b"\1\1\1"], 3, Grain(1, 0, 3), 6),
        ([b"\1\1\1\1"], 4, Grain(1, 1, 3), 8),
        ([b"\1\0\1"], 3, Grain(1, 0, 2), 4),
        ([b"\1\0\1\1"], 4, Grain(2, 1, 4), 6),  # waiting costs nothing but time
        ([b"\1\0\0", b"\0\1\0"], 3, Grain(1, 0, 2), 4),
        ([b"\1\1\0", b"\0\0\1"], 3, Grain(4, 1, 10), 6),  # moving to the other pool is a launch
        ([b"\1\0\1\1\1"], 5, Grain(2, 4, 2), 6),  # a launch of two ticks
        ([b"\1\0\1\1\0"], 5, Grain(2, 4, 2), 15),  # no run of three: on-demand
    ],
)
def test_known_optima(pools: list[bytes], ticks: int, grain: Grain, cost: float) -> None:
    assert least_cost(pools, ticks, grain, (2, 5)) == cost
