"""What must hold of the forecast and of schedules, as functions that raise AssertionError.

Theory: a law drives whole cycles of a home and reads the result by plain means: sums of rate times time, a
calendar asked minute by minute, the same decision without a memory.
"""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace
from tests.scenarios.home import Home, fleet, node
from tests.scenarios.serving import Shop, replicas, service, up
from tests.unit.model.test_cron import names

from steersman.decide.autoscale import autoscale, ballot, desired
from steersman.decide.foresight import SETTLED_MS, Memo, foresee, look_at_ms, looked_ms
from steersman.model.demand import TICKS_KEPT_MAX, Demand
from steersman.model.events import Observed, Signal
from steersman.model.reasons import Code
from steersman.model.service import Scaling, Window
from steersman.state.fold import fold

LARGE = fleet(node("here", cores=64, gib=128))
CAPACITY = 10_000
"""A replica does ten requests a second."""
MANY = replicas(1, 20)
MINUTE_MS = 60_000

News = list[tuple[int, int | None, bool]]
"""Time that passes, a rate, and whether it is said."""


def shop(scaling: Scaling = MANY) -> Shop:
    """A service that is ready, of which it is known what a replica can do."""
    made = up(LARGE, spec=service(scaling=scaling))
    made.tell(capacity_milli=CAPACITY, ongoing_milli=500, queued_milli=0, arrivals_milli=4_000)
    return made


def demand_of(made: Home) -> Demand:
    demand = made.snapshot.services["digits"].demand
    assert demand is not None
    return demand


def seen(made: Home) -> tuple[int, ...]:
    """Work of the ticks that are kept."""
    return tuple(run.work_milli for run in demand_of(made).ticks for _ in range(run.count))


def forecast(made: Home) -> int:
    """What the forecast votes for."""
    state = made.snapshot.services["digits"]
    found = [vote for vote in ballot(made.snapshot, state).votes if vote.reason.code is Code.SCALE_FORECAST]
    return found[0].replicas if found else 0


def ticks_hold_what_came(news: News) -> None:
    """Ticks and the open one hold the rate times its time; each event alone gives the state of one batch."""
    made = up(LARGE, spec=service(scaling=MANY))
    base, now_ms, events = made.snapshot, made.now_ms, []
    came, rate, unknown = 0, None, False
    for after_ms, value, told in news:
        now_ms += after_ms
        came += (rate or 0) * after_ms
        if told:
            rate = value
            unknown |= value is None
        signals = (Signal(name="arrivals_milli", subject="digits", value=value),) if told else ()
        events.append(Observed(now_ms=now_ms, signals=signals))
    numbered = list(enumerate(events, start=base.position + 1))
    whole, single = fold(base, numbered), base
    for pair in numbered:
        single = fold(single, [pair])
    assert whole == single
    demand = whole.services["digits"].demand
    assert demand is not None
    kept = sum(run.count for run in demand.ticks)
    assert kept <= TICKS_KEPT_MAX
    assert all(run.count > 0 for run in demand.ticks)
    if not unknown and not demand.first:
        in_ticks = 1_000 * sum(run.work_milli * run.count for run in demand.ticks) + demand.came
        assert in_ticks + (rate or 0) * (now_ms - demand.at_ms) * (demand.open_ms is not None) == came


def a_memo_changes_nothing(rates: list[tuple[int, int]]) -> None:
    """With the memo of all cycles before, or with none, one decides the same."""
    made, memo = shop(), Memo()
    for after_ms, rate in rates:
        made.tell(arrivals_milli=rate, after_ms=after_ms)
        assert autoscale(made.snapshot, memo) == autoscale(made.snapshot)
        state, now_ms = made.service(), made.snapshot.now_ms
        assert foresee(state, now_ms, memo) == foresee(state, now_ms)


def the_forecast_only_adds(rates: list[tuple[int, int]]) -> None:
    """What is desired is what would be without a forecast, or what the forecast asks for if that is more."""
    made = shop()
    for after_ms, rate in rates:
        made.tell(arrivals_milli=rate, ongoing_milli=rate // 8, after_ms=after_ms)
        state = made.service()
        mute = replace(state, spec=replace(state.spec, scaling=replace(MANY, forecast=False)), demand=None)
        alone, both = desired(made.snapshot, mute).replicas, desired(made.snapshot, state).replicas
        assert both == min(max(alone, forecast(made)), MANY.max_replicas)
        assert MANY.min_replicas <= state.target <= MANY.max_replicas


def looks_are_as_said(moved_ms: int, still_ms: int) -> None:
    """No look is taken back, and the next one is at the time that was named and not before."""
    demand = Demand(open_ms=moved_ms, at_ms=moved_ms, moved_ms=moved_ms)
    state = replace(_SHOP.service(), demand=demand)
    looked, at_ms = looked_ms(demand, moved_ms + still_ms), look_at_ms(state, moved_ms + still_ms)
    assert 0 <= looked <= still_ms
    if at_ms is None:
        assert looked == SETTLED_MS
    else:
        assert looked_ms(demand, at_ms - 1) == looked < looked_ms(demand, at_ms) == at_ms - moved_ms


_SHOP = shop()


def schedules_are_kept(windows: tuple[Window, ...], gaps_ms: list[int]) -> None:
    """In each minute after which a window lasts, by the calendar, there are as many replicas as it asks for;
    outside all of them, none more are kept than the load asks for; and it wakes when that changes."""
    made = up(LARGE, spec=service(scaling=replace(MANY, schedule=windows, downscale_delay_ms=0)))
    made.tell(ongoing_milli=0)
    made.rest(step_ms=0)
    wake_ms = made.cycle(after_ms=0).wake_at_ms
    for gap_ms in gaps_ms:
        before = _least(windows, made.now_ms)
        until_ms = made.now_ms + gap_ms
        if wake_ms is not None and wake_ms < until_ms:
            until_ms = wake_ms
        else:
            assert _least(windows, until_ms) == before or (wake_ms is not None and wake_ms <= until_ms)
        wake_ms = made.cycle(after_ms=until_ms - made.now_ms).wake_at_ms
        made.settle()
        assert made.service().target == max(_least(windows, made.now_ms), MANY.min_replicas)
        made.rest(step_ms=0)
        wake_ms = made.cycle(after_ms=0).wake_at_ms


def _least(windows: tuple[Window, ...], now_ms: int) -> int:
    return max((window.min_replicas for window in windows if _open(window, now_ms)), default=0)


def _open(window: Window, now_ms: int) -> bool:
    """By asking each minute whose window would last until now."""
    minute_ms = now_ms // MINUTE_MS * MINUTE_MS
    while minute_ms + window.duration_ms > now_ms:
        local = datetime.fromtimestamp(minute_ms / 1_000, UTC) + timedelta(minutes=window.offset_minutes)
        if names(window.cron, local):
            return True
        minute_ms -= MINUTE_MS
    return False
