"""Every law of the forecast and of schedules bites: each finds a bug that is planted in the real core."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.planted.test_planted import Patch
from tests.properties import forecast_laws as laws

from steersman.decide import autoscale, foresight
from steersman.model.service import Window
from steersman.state import demand

NEWS: laws.News = [(400, 4_000, True), (12_345, None, False), (2_000, 9_000, True), (30_000, 0, False)]
RATES = [(5_000, 4_000), (60_000, 50_000), (5_000, 90_000), (300_000, 80_000), (60_000, 0), (300_000, 3_000)]
EVENINGS = (Window(cron="0 22 * * *", duration_ms=180 * 60_000, min_replicas=4, offset_minutes=-210),)
HOURS = [1_000_000] * 60


def _forgets_what_came_before_a_change(patch: Patch) -> None:
    real = demand.hear

    def hear(before: Any, after: Any, now_ms: int) -> Any:
        found = real(before, after, now_ms)
        return found if found.demand is None else replace(found, demand=replace(found.demand, came=0))

    patch.setattr("steersman.state.services.hear", hear)


def _gives_all_ticks_the_work_of_the_first(patch: Patch) -> None:
    real = demand._joined
    patch.setattr(
        demand,
        "_joined",
        lambda ticks, run: real(ticks, replace(run, work_milli=ticks[-1].work_milli) if ticks else run),
    )


def _drops_the_rest_of_a_tick(patch: Patch) -> None:
    real = demand._ended
    patch.setattr(demand, "_ended", lambda *given: replace(real(*given), came=0, at_ms=given[0].now_ms))


def _keeps_a_memo_for_ever(patch: Patch) -> None:
    real = foresight.foresee

    def foresee(state: Any, now_ms: int, memo: Any = None) -> Any:
        if memo is not None and state.spec.name in memo.known:
            return memo.known[state.spec.name].foresight
        return real(state, now_ms, memo)

    patch.setattr(autoscale, "foresee", foresee)


def _learns_twice(patch: Patch) -> None:
    """A memo that goes on from what was learnt, with ticks that this holds already."""
    real = foresight._caught_up
    patch.setattr(
        foresight,
        "_caught_up",
        lambda begun, found, until: real(begun._replace(ticks=max(begun.ticks - 1, 0)), found, until),
    )


def _lets_the_forecast_decide_alone(patch: Patch) -> None:
    real = autoscale.ballot
    patch.setattr(
        autoscale,
        "ballot",
        lambda *given: (lambda found: found._replace(votes=found.votes[-1:]))(real(*given)),
    )


def _forgets_the_time_zone(patch: Patch) -> None:
    real = autoscale._end_ms
    patch.setattr(
        autoscale, "_end_ms", lambda window, now_ms: real(replace(window, offset_minutes=0), now_ms)
    )


def _sleeps_through_the_schedule(patch: Patch) -> None:
    patch.setattr(autoscale, "_window_ends_ms", lambda _state, _now_ms: None)


def _keeps_a_window_open_for_ever(patch: Patch) -> None:
    patch.setattr(autoscale, "_open", lambda scaling, _now_ms: list(scaling.schedule))


CASES: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (_forgets_what_came_before_a_change, lambda: laws.ticks_hold_what_came(NEWS)),
    (_gives_all_ticks_the_work_of_the_first, lambda: laws.ticks_hold_what_came(NEWS)),
    (_drops_the_rest_of_a_tick, lambda: laws.ticks_hold_what_came(NEWS)),
    (_keeps_a_memo_for_ever, lambda: laws.a_memo_changes_nothing(RATES)),
    (_learns_twice, lambda: laws.a_memo_changes_nothing(RATES)),
    (_lets_the_forecast_decide_alone, lambda: laws.the_forecast_only_adds(RATES)),
    (_forgets_the_time_zone, lambda: laws.schedules_are_kept(EVENINGS, HOURS)),
    (_sleeps_through_the_schedule, lambda: laws.schedules_are_kept(EVENINGS, HOURS)),
    (_keeps_a_window_open_for_ever, lambda: laws.schedules_are_kept(EVENINGS, HOURS)),
]


@pytest.mark.parametrize(("plant", "law"), CASES, ids=lambda item: str(item.__name__).lstrip("_"))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[[], None], monkeypatch: Patch
) -> None:
    law()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        law()
