"""The forecast in whole cycles of a home: what it sees, asks for and remembers, and when it is silent."""

from math import pi, sin

from msgspec.structs import replace
from tests.properties.forecast_laws import CAPACITY, LARGE, MANY, forecast, seen, shop
from tests.scenarios.serving import Shop, replicas, service, up

from steersman.decide.autoscale import ballot
from steersman.decide.capacity import tick_of
from steersman.decide.foresight import (
    LEARN_TICKS,
    POLICY,
    RESIZE_TICKS,
    SETTLED_MS,
    TICK_S,
    foresee,
)
from steersman.engine.validate import still_valid
from steersman.model.decisions import Learn
from steersman.model.demand import TICK_MS, TICKS_KEPT_MAX, Ticks
from steersman.model.events import ControlPlaneStarted
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code
from steersman.model.service import Scaling
from steersman.model.snapshot import ServiceState
from steersman.model.table import Table


def learnt(made: Shop) -> list[Learn]:
    return [item for cycle in made.cycles for item in cycle.plan.decisions if isinstance(item, Learn)]


# ---- ticks ----------------------------------------------------------------------------------------------


def test_a_steady_rate_is_one_entry_however_long() -> None:
    """Four requests a second are twenty a tick; ticks that are alike are counted, and two hours are kept."""
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=4_000)
    made.cycle(after_ms=3_600_000)
    made.cycle(after_ms=100)
    demand = made.service().demand
    assert demand is not None
    assert demand.ticks == (Ticks(count=720, work_milli=20_000, backlog_milli=0, ready=1, replicas=1),)
    made.cycle(after_ms=7_200_000)
    assert made.service().demand.end - made.service().demand.first == TICKS_KEPT_MAX  # type: ignore[union-attr]  # it has one
    assert made.service().demand.first == 720  # type: ignore[union-attr]  # it has one


def test_a_rate_that_moves_within_a_tick_is_added_up() -> None:
    """Two seconds of four a second, three of ten."""
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=4_000)
    made.tell(arrivals_milli=10_000, after_ms=2_000)
    made.cycle(after_ms=3_000)
    assert seen(made) == (38_000,)


def test_while_it_is_not_known_no_tick_passes() -> None:
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=4_000)
    made.tell(arrivals_milli=None, after_ms=7_000)
    made.cycle(after_ms=60_000)
    made.tell(arrivals_milli=1_000)
    made.cycle(after_ms=5_000)
    assert seen(made) == (20_000, 5_000)


def test_while_no_control_plane_lives_no_tick_passes() -> None:
    """Eight hours without anybody who looks are not eight hours of the last rate."""
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=4_000)
    made.cycle(after_ms=5_000)
    made.fold(*(ControlPlaneStarted(epoch=epoch, build="test", boot_id="b") for epoch in (2, 3)))
    made.cycle(after_ms=8 * 3_600_000)
    assert seen(made) == (20_000,)
    made.cycle(after_ms=5_000)
    assert seen(made) == (20_000, 20_000)


def test_backlog_and_replicas_are_those_at_the_end_of_the_tick() -> None:
    made = up(LARGE, spec=service(scaling=replicas(2, 9)))
    made.tell(arrivals_milli=4_000, queued_milli=3_000)
    made.kill("digits.1")
    made.cycle(after_ms=5_000)
    demand = made.service().demand
    assert demand is not None
    assert [(run.backlog_milli, run.ready, run.replicas) for run in demand.ticks] == [(3_000, 1, 2)]


def test_what_is_fixed_or_wants_no_forecast_keeps_no_ticks() -> None:
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=4_000)
    made.cycle(after_ms=20_000)
    assert made.snapshot.indexes.foreseen.first() == ("digits",)
    made.serve(service(scaling=replace(MANY, forecast=False)), restarts=False)
    assert made.service().demand is None
    assert made.snapshot.indexes.foreseen.first() is None
    made.tell(arrivals_milli=9_000)
    assert made.service().demand is None
    made.serve(service(scaling=MANY), restarts=False)
    made.cycle(after_ms=1_000)
    made.cycle(after_ms=5_000)
    assert seen(made) == (45_000,)
    made.down("digits")
    made.rest()
    assert made.snapshot.indexes.foreseen.first() is None


# ---- what is learnt -------------------------------------------------------------------------------------


def test_without_a_measured_capacity_there_is_no_forecast() -> None:
    made = up(LARGE, spec=service(scaling=MANY))
    plan = made.tell(arrivals_milli=4_000, ongoing_milli=500)
    made.pass_ms(60_000)
    assert (plan.wake_at_ms, forecast(made), learnt(made)) == (None, 0, [])


def test_what_came_before_the_capacity_was_known_counts_too() -> None:
    made = up(LARGE, spec=service(scaling=MANY))
    made.tell(arrivals_milli=38_000, ongoing_milli=500)
    made.pass_ms(60_000)
    made.tell(capacity_milli=CAPACITY)
    assert forecast(made) >= 4
    assert [item.learned.ticks for item in learnt(made)] == [12]
    assert seen(made) == ()


def test_it_is_recorded_now_and_then_and_goes_on_from_there() -> None:
    """Half an hour between two records; a figure that moves is taken up after a minute."""
    made = shop()
    for at in range(LEARN_TICKS + 20):
        made.tell(arrivals_milli=4_000 + 500 * (at % 2), after_ms=TICK_MS)
    records = [item.learned for item in learnt(made)]
    assert [item.ticks for item in records[:2]] == [1, 1 + LEARN_TICKS]
    assert records[0].policy == POLICY
    made.tell(capacity_milli=2 * CAPACITY)
    for _ in range(RESIZE_TICKS + 1):
        made.tell(arrivals_milli=4_100 + made.now_ms % 7, after_ms=TICK_MS)
    newest = learnt(made)[-1].learned
    assert newest.sizing.capacity_milli == 2 * CAPACITY
    assert newest.ticks > records[-1].ticks
    assert newest.evidence != records[-1].evidence


def test_another_cold_start_or_another_policy_begins_the_evidence_anew() -> None:
    """The slowest within a factor of two is kept; beyond it, fleets of another pace are tried."""
    made = shop()
    made.pass_ms(60_000)
    state = made.service()
    assert state.cold_start_ms is not None
    assert state.demand is not None
    first = state.demand.learned
    assert first is not None
    slow = replace(state, cold_start_ms=90_000)
    found = foresee(slow, made.now_ms)
    assert found is not None
    demand = replace(state.demand, learned=replace(first, policy=POLICY + 1))
    other = foresee(replace(state, demand=demand), made.now_ms)
    assert other is not None
    assert other.state.past.ticks == found.ticks - first.ticks < found.state.past.ticks
    made.snapshot = replace(made.snapshot, services=_with(made, slow))
    for _ in range(RESIZE_TICKS + 1):
        made.tell(arrivals_milli=4_000 + made.now_ms % 7, after_ms=TICK_MS)
    newest = learnt(made)[-1].learned
    assert newest.sizing.cold_start_s == 90
    now = foresee(made.service(), made.now_ms)
    assert now is not None
    assert now.state.past.ticks == now.ticks - newest.ticks


def _with(made: Shop, state: ServiceState) -> Table[ServiceState]:
    editor = made.snapshot.services.edit()
    editor["digits"] = state
    return editor.freeze()


# ---- when one looks -------------------------------------------------------------------------------------


def test_the_longer_nothing_moves_the_rarer_one_looks_and_then_not_at_all() -> None:
    made = shop()
    looks, began_ms = [], made.now_ms
    while True:
        plan = made.cycle(after_ms=0)
        if plan.wake_at_ms is None:
            break
        assert plan.wake_at_ms > made.now_ms or plan.decisions
        made.cycle(after_ms=max(plan.wake_at_ms - made.now_ms, 0))
        looks.append(made.now_ms - began_ms)
        assert len(looks) < 200
    assert looks[-1] - SETTLED_MS < 2 * TICK_MS
    assert len(set(looks)) < 60


def test_ticks_are_as_long_as_the_policy_asks() -> None:
    assert {tick_of(slo_s) for slo_s in range(2 * TICK_S, 3_601)} == {TICK_S}


def test_when_it_is_not_known_what_comes_the_number_is_held() -> None:
    made = shop()
    for _ in range(30):
        made.tell(arrivals_milli=38_000 + made.now_ms % 5, after_ms=TICK_MS)
    target = made.service().target
    assert target >= 4
    made.tell(arrivals_milli=None, ongoing_milli=0)
    made.pass_ms(600_000, step_ms=60_000)
    assert made.service().target == target
    assert Code.SCALE_UNKNOWN in {vote.reason.code for vote in ballot(made.snapshot, made.service()).votes}


# ---- what it is for -------------------------------------------------------------------------------------


def _ramped(scaling: Scaling, cold_start_s: int = 60) -> int:
    """Second-milliseconds of missing capacity while the load rises to eighteen replicas, twice."""
    made = up(LARGE, spec=service(scaling=scaling))
    pending: dict[str, int] = {}
    missing = 0
    made.tell(capacity_milli=CAPACITY, queued_milli=0)
    for step in range(2 * 150):
        rate = round(95_000 - 85_000 * sin(pi / 2 + 2 * pi * step / 150))
        ready = made.ready()
        busy = min(rate, ready * CAPACITY)
        made.tell(arrivals_milli=rate, ongoing_milli=busy // 10 + max(rate - busy, 0), after_ms=TICK_MS)
        for event in made.world():
            run = getattr(event, "run", "")
            begun = pending.setdefault(f"{type(event).__name__} {run}", made.now_ms)
            late = type(event).__name__ == "RankReady"
            if not late or made.now_ms - begun >= cold_start_s * 1_000:
                made.cycle(event, after_ms=0)
        missing += max(rate - made.ready() * CAPACITY, 0)
    return missing


def test_a_rising_load_is_met_earlier_with_a_forecast() -> None:
    """A load that swings between one and eighteen replicas, with a cold start of a minute: what the forecast
    leaves unserved is a small part of what is left without it."""
    scaling = replicas(1, 30, downscale_delay_ms=60_000)
    with_it, without = _ramped(scaling), _ramped(replace(scaling, forecast=False))
    assert with_it * 2 < without, (with_it, without)


def test_what_is_learnt_of_ticks_that_are_not_there_is_dropped() -> None:
    """Late news may end the forecast, or its service, between the decision and its record."""
    made = shop()
    made.pass_ms(10_000)
    (first, *_) = learnt(made)
    end = made.service().demand.end  # type: ignore[union-attr]  # it has one

    def holds(ticks: int, name: str = "digits") -> bool:
        learned = replace(first.learned, ticks=ticks)
        decision = replace(first, workload=WorkloadName(name), learned=learned)
        return bool(still_valid(made.snapshot, [decision]))

    assert [holds(ticks) for ticks in (0, 1, end, end + 1)] == [False, True, True, False]
    assert not holds(end, "ghost")
    made.serve(service(scaling=replace(MANY, forecast=False)), restarts=False)
    assert not holds(end)
