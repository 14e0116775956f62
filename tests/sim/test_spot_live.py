"""Jobs on spot capacity, live: the real engine over simulated pools that come and go."""

from typing import TypeVar

import pytest
from tests.sim.spot_world import (
    BEGIN_MS,
    HOUR_MS,
    JOB,
    ON_DEMAND_MICRO,
    SPOT_MICRO,
    Outcome,
    SpotWorld,
    fleet_of,
    job_of,
    node,
)

from steersman.model.decisions import Choose, Decision, Requeue, SetCheckpointInterval, Start, Stop
from steersman.model.events import CheckpointSaved, Decided, InterruptionNotice
from steersman.model.snapshot import Phase
from steersman.sim.pools import PoolRecord, drawn

ZONES = ("spot-a", "spot-b", "spot-c")
TICK_MS = 600_000
WORK_H = 3.0
MEANS = ((9, 9), (2, 2), (30, 10), (3, 20))
NOTICES_MS = (0, 30_000, 120_000)


def record(*spans: tuple[bool, int], prices: tuple[tuple[int, int | None], ...] = ()) -> PoolRecord:
    """A record from (is it up, for how many ticks)."""
    return PoolRecord(BEGIN_MS, TICK_MS, b"".join(bytes([up]) * ticks for up, ticks in spans), prices)


def drawn_world(seed: int, deadline_h: float) -> SpotWorld:
    """Three zones of one kind of weather, notices of one kind."""
    means = MEANS[seed % len(MEANS)]
    records = {zone: drawn(f"{seed}/{zone}", BEGIN_MS, TICK_MS, means, 60) for zone in ZONES}
    world = SpotWorld(fleet_of(ZONES), records, job_of(WORK_H, deadline_h))
    world.pools.notice_ms = NOTICES_MS[seed % len(NOTICES_MS)]
    return world


D = TypeVar("D", bound=Decision)


def decisions_of(outcome: Outcome, kind: type[D]) -> list[D]:
    """All that was decided of one kind, in order."""
    decided = (one for event in outcome.events if isinstance(event, Decided) for one in event.decisions)
    return [one for one in decided if isinstance(one, kind)]


def refusals_of(outcome: Outcome) -> set[tuple[str, str | int]]:
    """Who was refused in any choice, and why."""
    facts = (fact for one in decisions_of(outcome, Choose) for fact in one.reason.facts)
    return {(name, why) for name, why in facts if name.startswith("refused:")}


ON_DEMAND_COST = round(WORK_H * ON_DEMAND_MICRO)


@pytest.mark.parametrize("deadline_h", [3.2, 3.5, 5.0])
def test_across_three_zones_it_is_never_late_and_on_average_cheaper_than_on_demand(deadline_h: float) -> None:
    costs = []
    for seed in range(12):
        outcome = drawn_world(seed, deadline_h).outcome(8)
        assert outcome.state.phase is Phase.SUCCEEDED, seed
        assert outcome.done_ms is not None
        assert outcome.done_ms <= deadline_h * HOUR_MS, seed
        assert outcome.state.attempts == 0, "no interruption was counted as a try"
        costs.append(outcome.cost_usd_micro / ON_DEMAND_COST)
    assert sum(costs) / len(costs) < (1.0 if deadline_h < 4 else 0.75)


def test_the_same_world_is_lived_through_the_same_way() -> None:
    one, other = drawn_world(4, 5.0).outcome(8), drawn_world(4, 5.0).outcome(8)
    assert one == other


def test_without_capacity_it_waits_to_the_point_of_no_return_and_goes_back_when_there_is_some() -> None:
    """All pools are down for long; on-demand begins exactly when it must, and is left again."""
    records = {zone: record((False, 12), (True, 40)) for zone in ZONES}
    outcome = SpotWorld(fleet_of(ZONES), records, job_of(WORK_H, 5.0)).outcome(8)
    assert outcome.kinds() == ["spot", "wait", "on-demand", "spot"] or outcome.kinds() == [
        "wait",
        "on-demand",
        "spot",
    ]
    began = next(at for at, capacity, _ in outcome.chosen if capacity == "on-demand")
    code = next(code for _, capacity, code in outcome.chosen if capacity == "on-demand")
    overhead_ms = 300_000 + 30_000 + 10_000
    latest_ms = round((5.0 - WORK_H) * HOUR_MS) - overhead_ms
    assert code in ("point-of-no-return", "chose-on-demand")
    assert began <= latest_ms + 100
    if code == "point-of-no-return":
        assert began >= latest_ms - 100
    assert outcome.stops == ("moved",)
    assert outcome.done_ms is not None
    assert outcome.done_ms <= 5.0 * HOUR_MS


def test_when_no_pool_ever_comes_on_demand_is_launched_at_the_point_of_no_return() -> None:
    records = {zone: record((False, 60)) for zone in ZONES}
    outcome = SpotWorld(fleet_of(ZONES), records, job_of(WORK_H, 3.5)).outcome(8)
    assert outcome.kinds()[-2:] == ["wait", "on-demand"]
    assert outcome.done_ms is not None
    assert outcome.done_ms <= 3.5 * HOUR_MS


def test_a_deadline_that_cannot_be_kept_is_told_and_on_demand_begins_at_once() -> None:
    records = {zone: record((True, 60)) for zone in ZONES}
    outcome = SpotWorld(fleet_of(ZONES), records, job_of(WORK_H, 2.0)).outcome(8)
    assert outcome.chosen[0] == (outcome.chosen[0][0], "on-demand", "deadline-at-risk")
    assert outcome.starts == ("dear-0",)
    assert outcome.state.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("price", [None, ON_DEMAND_MICRO, 2 * ON_DEMAND_MICRO, 700_000_000])
def test_a_pool_without_a_price_below_on_demand_is_refused_by_name(price: int | None) -> None:
    records = {zone: record((True, 60)) for zone in ZONES}
    outcome = SpotWorld(fleet_of(ZONES, price), records, job_of(1.0, 3.0)).outcome(5)
    assert {(capacity, code) for _, capacity, code in outcome.chosen} == {("on-demand", "no-price")}
    assert outcome.starts == ("dear-0",)
    assert {name for name, _ in refusals_of(outcome)} == {f"refused:{zone}" for zone in ZONES}


def test_without_a_price_of_on_demand_nothing_is_compared_and_nothing_waits() -> None:
    nodes = [node("dear-0", "dear"), *fleet_of(ZONES)[1:]]
    outcome = SpotWorld(nodes, {zone: record((True, 60)) for zone in ZONES}, job_of(1.0, 3.0)).outcome(5)
    assert {(capacity, code) for _, capacity, code in outcome.chosen} == {("on-demand", "no-price")}
    assert ("refused:on-demand", "missing") in refusals_of(outcome)


def test_a_price_that_falls_below_on_demand_is_used_from_then_on() -> None:
    prices = ((BEGIN_MS, None), (BEGIN_MS + HOUR_MS, SPOT_MICRO))
    records = {"spot-a": record((True, 60), prices=prices)}
    outcome = SpotWorld(fleet_of(["spot-a"], None), records, job_of(WORK_H, 5.0)).outcome(8)
    assert outcome.kinds() == ["on-demand", "spot"]
    assert outcome.state.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("notice_ms", [30_000, 120_000])
def test_with_notice_no_step_is_done_twice(notice_ms: int) -> None:
    """The job is told to save, and begins elsewhere where it ended; nothing is placed on a node that goes."""
    records = {"spot-a": record((True, 6), (False, 60)), "spot-b": record((True, 60))}
    world = SpotWorld(fleet_of(list(records)), records, job_of(WORK_H, 5.0))
    world.pools.notice_ms = notice_ms
    outcome = world.outcome(8)
    assert outcome.stops[0] == "interrupted"
    assert outcome.starts[:2] == ("spot-a-0", "spot-b-0")
    assert decisions_of(outcome, Stop)[0].grace_ms <= notice_ms
    worked_ms = 6 * TICK_MS - notice_ms - 120_000
    assert outcome.steps[1][1] >= worked_ms // 10_000 - 1, "all was saved that was done until the notice"
    assert outcome.state.interruptions == 1
    assert outcome.state.attempts == 0
    noticed = next(at for at, one in enumerate(outcome.events) if isinstance(one, InterruptionNotice))
    since = outcome._replace(events=outcome.events[noticed:])
    later = [placement.node for one in decisions_of(since, Start) for placement in one.placements]
    assert later
    assert "spot-a-0" not in later


def test_without_notice_it_goes_on_from_its_newest_checkpoint_at_once() -> None:
    records = {"spot-a": record((True, 6), (False, 60)), "spot-b": record((True, 60))}
    outcome = SpotWorld(fleet_of(list(records)), records, job_of(WORK_H, 5.0)).outcome(8)
    assert outcome.starts[:2] == ("spot-a-0", "spot-b-0")
    assert outcome.steps[1][0] - BEGIN_MS <= 6 * TICK_MS + 5_000
    assert outcome.steps[1][1] > 0
    again = decisions_of(outcome, Requeue)[0]
    assert (again.counted, again.reason.code.value) == (False, "retry-interrupted")


def test_the_checkpoint_interval_follows_from_the_hazard_of_the_pool() -> None:
    """In a pool that is lost again and again a job saves more often than in one that stays."""
    flaky = record(*((True, 3), (False, 1)) * 15)
    steady = record((True, 60))
    intervals = []
    for one in (flaky, steady):
        outcome = SpotWorld(fleet_of(["spot-a"]), {"spot-a": one}, job_of(6.0, 11.0)).outcome(10)
        tuned = decisions_of(outcome, SetCheckpointInterval)
        assert any("hazard_micro_per_hour" in dict(item.reason.facts) for item in tuned)
        intervals.append(max(item.interval_ms for item in tuned))
    assert intervals[0] < intervals[1]


def test_spot_alone_never_takes_on_demand_and_waits_for_a_pool() -> None:
    records = {"spot-a": record((False, 3), (True, 3), (False, 4), (True, 60))}
    outcome = SpotWorld(fleet_of(["spot-a"], None), records, job_of(1.0, None, "spot")).outcome(8)
    assert set(outcome.starts) == {"spot-a-0"}
    assert outcome.state.phase is Phase.SUCCEEDED


def test_without_a_deadline_auto_takes_what_is_there_and_never_waits() -> None:
    records = {"spot-a": record((False, 6), (True, 60))}
    outcome = SpotWorld(fleet_of(["spot-a"]), records, job_of(WORK_H, None)).outcome(8)
    assert "wait" not in {capacity for _, capacity, _ in outcome.chosen}
    assert outcome.kinds()[-2:] == ["on-demand", "spot"]


def test_a_highest_price_rules_out_what_costs_more() -> None:
    records = {"spot-a": record((True, 60))}
    job = job_of(1.0, None, "on-demand", price_max=1_000_000)
    outcome = SpotWorld(fleet_of(["spot-a"]), records, job).outcome(0.5)
    assert outcome.starts == ()
    assert outcome.state.phase is Phase.QUEUED
    assert outcome.chosen[-1][1:] == ("wait", "no-price")
    assert outcome.state.spec.name == JOB


def test_checkpoints_are_counted_as_work_by_time() -> None:
    outcome = SpotWorld(fleet_of(["spot-a"]), {"spot-a": record((True, 60))}, job_of(WORK_H, 5.0)).outcome(8)
    saved = [event for event in outcome.events if isinstance(event, CheckpointSaved)]
    assert 0.8 * WORK_H * HOUR_MS <= outcome.state.saved_work_ms <= saved[-1].step * 10_000
