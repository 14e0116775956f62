"""Every law of the spot decider bites: a bug is planted in it, and the law meant for it finds it.

Theory: as in `test_planted`; fixed stories of `spot_laws` are played until the named law is broken.
"""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.properties.spot_laws import LAWS, broken, play, told

from steersman.decide import hazard, spot
from steersman.decide.spot import IDLE, ON_DEMAND, JobView, Prices
from steersman.model.pools import PoolHistory, SpotHistory
from steersman.state import pools

STORIES_MAX = 60
Patch = pytest.MonkeyPatch


def _forgets_the_launch_of_on_demand(patch: Patch) -> None:
    def feasible(job: JobView, action: str) -> bool:
        return action == ON_DEMAND or spot.whole_slack_ms(job) >= job.period_ms

    patch.setattr(spot, "feasible", feasible)


def _counts_to_the_deadline_itself(patch: Patch) -> None:
    def slack(job: JobView) -> int:
        return job.deadline_ms - job.now_ms - job.work_left_ms

    patch.setattr(spot, "whole_slack_ms", slack)


def _takes_a_pool_that_is_closed(patch: Patch) -> None:
    def best(history: SpotHistory, job: JobView, prices: Prices) -> str | None:
        return prices.spot[0][0] if prices.spot else None

    patch.setattr(spot, "best_pool", best)


def _leaves_the_pool_that_is_held(patch: Patch) -> None:
    real = spot.best_pool

    def best(history: SpotHistory, job: JobView, prices: Prices) -> str | None:
        others = tuple((name, pool) for name, pool in history.pools if name != job.held)
        return real(replace(history, pools=others), replace(job, held=IDLE), prices) or real(
            history, job, prices
        )

    patch.setattr(spot, "best_pool", best)


def _waits_a_period_too_long(patch: Patch) -> None:
    real = spot.feasible

    def feasible(job: JobView, action: str) -> bool:
        if action == IDLE:
            return spot.whole_slack_ms(job) >= job.overhead_ms
        return real(job, action)

    patch.setattr(spot, "feasible", feasible)


def _says_a_later_point_of_no_return(patch: Patch) -> None:
    real = spot.no_return_ms
    patch.setattr(spot, "no_return_ms", lambda job: real(job) + job.period_ms)


def _forgets_the_oldest_bucket_s_end(patch: Patch) -> None:
    real = pools.observe_pool

    def observe_pool(state: PoolHistory, now_ms: int, is_up: bool) -> PoolHistory:
        return real(replace(state, seen_ms=max(state.since_ms, state.seen_ms - 1)), now_ms, is_up)

    patch.setattr(pools, "observe_pool", observe_pool)


def _counts_no_ending(patch: Patch) -> None:
    real = pools.observe_pool

    def observe_pool(state: PoolHistory, now_ms: int, is_up: bool) -> PoolHistory:
        now = real(state, now_ms, is_up)
        return replace(now, up_endings=state.up_endings)

    patch.setattr(pools, "observe_pool", observe_pool)


def _learns_the_level_alone_and_upside_down(patch: Patch) -> None:
    real = hazard.hazards
    patch.setattr(hazard, "hazards", lambda endings, exposed: tuple(1 / x for x in real(endings, exposed)))


def _chooses_the_dearest(patch: Patch) -> None:
    real = spot._costs

    def costs(*arguments: Any) -> Any:
        found, why = real(*arguments)
        return {action: -cost for action, cost in found.items()}, why

    def rounded(found: dict[str, float], action: str) -> int | None:
        return -round(found[action]) if action in found else None

    patch.setattr(spot, "_costs", costs)
    patch.setattr(spot, "_rounded", rounded)


PLANTED: tuple[tuple[str, Callable[[Patch], None]], ...] = (
    ("never_late", _forgets_the_launch_of_on_demand),
    ("never_late", _counts_to_the_deadline_itself),
    ("never_late", _waits_a_period_too_long),
    ("only_what_is_there", _takes_a_pool_that_is_closed),
    ("pools_are_not_swapped", _leaves_the_pool_that_is_held),
    ("waiting_ends_at_the_point_of_no_return", _waits_a_period_too_long),
    ("waiting_ends_at_the_point_of_no_return", _says_a_later_point_of_no_return),
    ("all_time_is_accounted_for", _forgets_the_oldest_bucket_s_end),
    ("all_time_is_accounted_for", _counts_no_ending),
    ("more_endings_are_more_hazard", _learns_the_level_alone_and_upside_down),
    ("the_cheapest_is_chosen", _chooses_the_dearest),
)


@pytest.mark.parametrize(("law", "plant"), PLANTED, ids=lambda one: getattr(one, "__name__", one))
def test_a_planted_bug_is_caught_by_its_law(
    law: str, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """One of the stories breaks the law."""
    plant(monkeypatch)
    assert any(law in broken(play(told(seed))) for seed in range(STORIES_MAX))


def test_every_law_has_its_bug() -> None:
    """No law goes without proof that it bites."""
    assert {law for law, _ in PLANTED} == set(LAWS)


def test_without_a_bug_no_law_is_broken() -> None:
    """The same stories, untouched."""
    assert [name for seed in range(STORIES_MAX) for name in broken(play(told(seed)))] == []
