"""Replay of `spot-job`: small made-up records with known costs, every bad option, what is counted."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from steersman.decide.spot import IDLE, ON_DEMAND, Prices
from steersman.model.errors import TraceError
from steersman.sim.replay import spot_job
from steersman.sim.replay.result import Replay, silent
from steersman.sim.replay.spot_job import Asked, Case, simulate, starts_of
from steersman.sim.replay.spot_zones import GUESSED, Zone

HEAD = "start_tick,ticks,available\n"
INDEX = "trace,gap_s\nalways,600\nnever,600\nhalf,600\nother,600\nslow,900\n"
TICK_MS = 600_000


def zone(folder: Path, name: str, *runs: tuple[int, int]) -> Path:
    """A file of runs (ticks, available) one after another, with an index beside it."""
    (folder / "INDEX.csv").write_text(INDEX)
    rows, start = [], 0
    for ticks, available in runs:
        rows.append(f"{start},{ticks},{available}\n")
        start += ticks
    path = folder / f"{name}.csv.gz"
    path.write_bytes(gzip.compress((HEAD + "".join(rows)).encode()))
    return path


def small(*zones: Path, **changes: Any) -> Asked:
    """Four hours of work in six."""
    asked = Asked(zone=zones, work_h=4, deadline_h=6, overhead_h=0.1, starts=3)
    return replace(asked, **changes)


def of(found: Replay) -> dict[str, Any]:
    return dict(found.policies["steersman"])


def test_the_options_have_the_defaults_of_the_published_protocol(tmp_path: Path) -> None:
    asked = Asked(zone=(tmp_path,))
    assert (asked.work_h, asked.deadline_h, asked.overhead_h, asked.starts) == (48, 52, 0.1, 12)
    assert (asked.price_spot, asked.price_on_demand) == (0.9731, 3.06)


def test_a_pool_that_is_always_there_costs_spot_and_one_launch(tmp_path: Path) -> None:
    found = spot_job.replay(small(zone(tmp_path, "always", (100, 1))), silent)
    metrics = of(found)
    cost = 25 / 6 * 0.9731  # 4 h of work and 0.1 h of launch are 25 ticks
    assert metrics["cost_usd"] == pytest.approx(cost, abs=1e-6)
    assert metrics["optimum_exact_usd"] == pytest.approx(cost)
    assert metrics["cost_over_optimum_exact"] == pytest.approx(1)
    assert metrics["adrs_score"] == pytest.approx(100 * (12.24 - cost) / (12.24 - 3.8924), abs=1e-3)
    assert (metrics["late_jobs"], metrics["launches"], metrics["jobs"]) == (0, 1, 3)
    assert (metrics["spot_h"], metrics["on_demand_h"]) == (pytest.approx(25 / 6, abs=1e-4), 0)
    assert metrics["zones"] == {"always": {"tick_s": 600, "record_h": pytest.approx(16.6667), "available": 1}}
    assert (found.problem, found.files) == ("spot-job", ("always.csv.gz",))
    assert set(found.dropped.values()) == {0}


def test_a_pool_that_is_never_there_costs_on_demand_and_is_not_late(tmp_path: Path) -> None:
    metrics = of(spot_job.replay(small(zone(tmp_path, "never", (100, 0))), silent))
    assert metrics["cost_usd"] == pytest.approx(25 / 6 * 3.06, abs=1e-6)
    assert metrics["cost_over_optimum_exact"] == pytest.approx(1)
    assert (metrics["late_jobs"], metrics["spot_h"], metrics["launches"]) == (0, 0, 1)
    assert metrics["adrs_score"] < 0


def test_a_known_optimum_of_spot_and_on_demand(tmp_path: Path) -> None:
    """Two hours of spot, then none: 12 ticks of spot do 1.9 h, 2.2 h of on-demand are 14 ticks."""
    path = zone(tmp_path, "half", (12, 1), (28, 0))
    metrics = of(spot_job.replay(small(path, starts=1), silent))
    assert metrics["optimum_exact_usd"] == pytest.approx((12 * 0.9731 + 14 * 3.06) / 6)
    assert metrics["cost_over_optimum_exact"] >= 1
    assert metrics["late_jobs"] == 0


def test_two_zones_are_two_pools_of_one_job(tmp_path: Path) -> None:
    """Each is there half of the time, one of them always."""
    first = zone(tmp_path, "half", *[(30, 1), (30, 0)] * 3)
    second = zone(tmp_path, "other", *[(30, 0), (30, 1)] * 3)
    both = of(spot_job.replay(small(first, second), silent))
    alone = of(spot_job.replay(small(first), silent))
    assert both["cost_usd"] < alone["cost_usd"]
    assert both["on_demand_h"] == 0
    assert list(both["zones"]) == ["half", "other"]


def test_a_ten_times_longer_record_has_the_same_metrics(tmp_path: Path) -> None:
    pattern = [(30, 1), (30, 0)]
    once = of(spot_job.replay(small(zone(tmp_path, "half", *pattern * 2), starts=1), silent))
    tenfold = of(spot_job.replay(small(zone(tmp_path, "half", *pattern * 20), starts=1), silent))
    once["zones"]["half"].pop("record_h")
    tenfold["zones"]["half"].pop("record_h")
    assert once == tenfold


def test_the_same_record_gives_the_same_replay(tmp_path: Path) -> None:
    asked = small(zone(tmp_path, "half", *[(7, 1), (5, 0)] * 9))
    assert spot_job.replay(asked, silent) == spot_job.replay(asked, silent)


def test_what_goes_on_is_told(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    spot_job.replay(
        small(zone(tmp_path, "always", (100, 1))), lambda share, words: told.append((share, words))
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[0] == (0.0, "reading")
    assert told[1][1] == "start 1 of 3"
    assert told[-1] == (1.0, "done")


def test_spot_that_is_not_cheaper_is_not_used_and_counted(tmp_path: Path) -> None:
    found = spot_job.replay(small(zone(tmp_path, "always", (100, 1)), price_spot=3.06), silent)
    assert found.dropped[spot_job.UNUSABLE] == 1
    metrics = of(found)
    assert (metrics["spot_h"], metrics["adrs_score"], metrics["late_jobs"]) == (0, 0, 0)
    assert metrics["cost_over_optimum_exact"] == pytest.approx(1)


def test_starts_that_do_not_fit_apart_are_counted(tmp_path: Path) -> None:
    found = spot_job.replay(small(zone(tmp_path, "always", (40, 1)), starts=12), silent)
    assert of(found)["jobs"] == 2
    assert found.dropped[spot_job.FEWER] == 10


def test_a_zone_without_a_tick_is_counted(tmp_path: Path) -> None:
    found = spot_job.replay(small(zone(tmp_path, "unknown", (100, 1))), silent)
    assert found.dropped[GUESSED] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"work_h": 0.0}, "--work-h is 0"),
        ({"work_h": -1.0}, "--work-h is -1"),
        ({"work_h": 1e-9}, "do not fit"),
        ({"work_h": float("nan")}, "--work-h is nan"),
        ({"deadline_h": -3.0}, "--deadline-h is -3"),
        ({"deadline_h": float("inf")}, "--deadline-h is inf"),
        ({"deadline_h": 3.9}, "do not fit"),
        ({"deadline_h": 4.05}, "do not fit"),
        ({"deadline_h": 60.0}, "needs more"),
        ({"overhead_h": -0.1}, "--overhead-h is -0.1"),
        ({"starts": 0}, "--starts is 0"),
        ({"starts": 10**9}, "--starts is 1000000000"),
        ({"price_spot": 0.0}, "--price-spot is 0"),
        ({"price_spot": -1.0}, "--price-spot is -1"),
        ({"price_spot": 1e-9}, "--price-spot is 1e-09: not above zero"),
        ({"price_spot": 700.0}, "--price-spot is 700: a sentinel"),
        ({"price_on_demand": 0.0}, "--price-on-demand is 0"),
        ({"price_on_demand": float("nan")}, "--price-on-demand is nan"),
        ({"price_on_demand": 700.0}, "--price-on-demand is 700: a sentinel"),
        ({"zone": ()}, "no zone"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = zone(tmp_path, "always", (100, 1))
    with pytest.raises(TraceError) as refused:
        spot_job.replay(small(**{"zone": (path,), **changes}), silent)
    assert words in refused.value.message
    assert refused.value.hint


def _case(**changes: Any) -> Case:
    prices = Prices(on_demand=3_000_000, spot=(("a", 1_200_000),))
    case = Case(work_ms=TICK_MS, deadline_ms=4 * TICK_MS, overhead_ms=360_000, tick_ms=TICK_MS, prices=prices)
    return replace(case, **changes)


def test_what_a_pool_did_before_it_was_lost_is_kept_and_paid() -> None:
    """Spot does 4 min in the first tick and is lost; on-demand does 4 min in the second, then the rest."""
    record = [Zone("a", TICK_MS, 0, bytes([1, 0, 0, 0, 0]))]
    actions = iter(["a", ON_DEMAND, ON_DEMAND])
    outcome = simulate(record, _case(), lambda _job, _open: next(actions))
    assert (outcome.spot_ticks, outcome.on_demand_ticks, outcome.launches) == (1, 2, 2)
    assert outcome.cost_usd_micro == 200_000 + 2 * 500_000
    assert outcome.late is False


def test_a_job_that_never_runs_is_late_and_a_launch_may_take_longer_than_a_tick() -> None:
    record = [Zone("a", TICK_MS, 0, bytes(6))]
    assert simulate(record, _case(), lambda _job, _open: IDLE).late is True
    slow = simulate(record, _case(overhead_ms=2 * TICK_MS), lambda _job, _open: ON_DEMAND)
    assert (slow.on_demand_ticks, slow.late) == (3, False)


def test_a_pool_that_is_closed_cannot_be_chosen() -> None:
    record = [Zone("a", TICK_MS, 0, bytes(6))]
    with pytest.raises(AssertionError, match="chose 'a'"):
        simulate(record, _case(), lambda _job, _open: "a")


def test_the_bound_in_the_script_s_units_is_the_exact_one_where_these_are_equal_or_too_coarse() -> None:
    """Ticks of 195 s have the same units; at 160 s the script rounds a job away that just fits."""
    record = [Zone("a", 195_000, 0, bytes([1] * 12))]
    same = spot_job.bounds_of(record, _case(tick_ms=195_000, deadline_ms=10 * 195_000))
    assert same.script == same.exact == pytest.approx(5 * 1_200_000 * 195_000 / 3_600_000)
    tight = _case(tick_ms=160_000, deadline_ms=1_600_000, work_ms=1_240_000)
    bounds = spot_job.bounds_of([Zone("a", 160_000, 0, bytes(12))], tight)
    assert bounds.script == bounds.exact == pytest.approx(10 * 3_000_000 * 160_000 / 3_600_000)


def test_starts_are_spaced_as_in_the_published_script() -> None:
    assert starts_of(3895, 312, 12) == (0, 325, 651, 976, 1302, 1627, 1953, 2278, 2604, 2929, 3255, 3580)
    assert starts_of(315, 312, 1) == (0,)
    assert starts_of(314, 312, 12) == ()
