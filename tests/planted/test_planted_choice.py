"""Every law of the choice between spot and on-demand bites: a bug is planted, and its law finds it.

Theory: as in `test_planted`; fixed lives of `choice_laws` are looked at until the named law is broken. That a
job is never late is asked of worlds of `spot_world`, where the real engine runs it.
"""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tests.properties.choice_laws import LAWS, Story, broken, play
from tests.sim.spot_world import HOUR_MS
from tests.sim.test_spot_live import drawn_world

from steersman.decide import choose, fit, placer, recover, spot
from steersman.decide.spot import JobView
from steersman.model.decisions import Requeue
from steersman.model.fleet import Node
from steersman.model.snapshot import Run, Snapshot, WorkloadState
from steersman.state import derive

Patch = pytest.MonkeyPatch
LIVES_MAX = 40
WORLDS_MAX = 24


def _puts_spot_work_anywhere(patch: Patch) -> None:
    patch.setattr(fit, "serves", lambda _node, _pools, _infra: True)
    patch.setattr(placer.Flavor, "serves", lambda _flavor, _pools, _infra: True)


def _takes_anybody_on_spot(patch: Patch) -> None:
    def serves(node: Node, names: tuple[str, ...], _infra: str) -> bool:
        return not names or node.pool in names

    patch.setattr(fit, "serves", serves)
    patch.setattr(placer.Flavor, "serves", lambda flavor, pools, _: not pools or flavor.pool in pools)


def _asks_nobody_how_a_node_is(patch: Patch) -> None:
    for module in (derive, placer):
        patch.setattr(module, "takes_work", lambda state: state.declared and state.health != "dead")


def _forgets_the_notice(patch: Patch) -> None:
    real = recover._doomed

    def doomed(snapshot: Snapshot, state: WorkloadState, run: Run):  # type: ignore[no-untyped-def]  # as the real one
        return real(snapshot, state, replace(run, goes_ms=None))

    patch.setattr(recover, "_doomed", doomed)


def _gives_the_whole_grace(patch: Patch) -> None:
    real = recover._doomed

    def doomed(snapshot: Snapshot, state: WorkloadState, run: Run):  # type: ignore[no-untyped-def]  # as the real one
        stop = real(snapshot, state, run)
        return None if stop is None else replace(stop, grace_ms=state.spec.body.stop_grace_ms)

    patch.setattr(recover, "_doomed", doomed)


def _counts_a_move(patch: Patch) -> None:
    real = recover._uncounted

    def counted(*arguments):  # type: ignore[no-untyped-def]  # as the real one
        found = real(*arguments)
        return replace(found, counted=True) if isinstance(found, Requeue) else found

    patch.setattr(recover, "_uncounted", counted)


def _takes_a_pool_that_is_down(patch: Patch) -> None:
    patch.setattr(
        spot, "best_pool", lambda _history, _job, prices: prices.spot[0][0] if prices.spot else None
    )


def _takes_a_missing_price_for_nothing(patch: Patch) -> None:
    real = choose.offers_of

    def offers(snapshot: Snapshot, spec):  # type: ignore[no-untyped-def]  # as the real one
        found = real(snapshot, spec)
        free = tuple(
            replace(pool, price_usd_micro_per_hour=pool.price_usd_micro_per_hour or 1) for pool in found.spot
        )
        return found._replace(spot=free)

    patch.setattr(choose, "offers_of", offers)


def _never_judges_again(patch: Patch) -> None:
    real = choose._recorded

    def recorded(*arguments):  # type: ignore[no-untyped-def]  # as the real one
        return replace(real(*arguments), until_ms=None)

    patch.setattr(choose, "_recorded", recorded)


def _forgets_an_index(patch: Patch) -> None:
    real = derive.workload_entries

    def entries(state: WorkloadState | None, run: Run | None) -> derive.WorkloadEntries:
        found = real(state, run)
        return found._replace(chooser=False) if state is not None and state.runs else found

    patch.setattr("steersman.state.draft.workload_entries", entries)


PLANTED: tuple[tuple[str, Callable[[Patch], None]], ...] = (
    ("the_books_are_right", _forgets_an_index),
    ("spot_takes_only_who_chose_it", _puts_spot_work_anywhere),
    ("spot_takes_only_who_chose_it", _takes_anybody_on_spot),
    ("nothing_is_placed_where_a_notice_was_given", _asks_nobody_how_a_node_is),
    ("who_was_noticed_is_told_to_save_in_time", _forgets_the_notice),
    ("who_was_noticed_is_told_to_save_in_time", _gives_the_whole_grace),
    ("a_move_is_no_try", _counts_a_move),
    ("only_what_is_there_and_has_a_price_is_chosen", _takes_a_pool_that_is_down),
    ("only_what_is_there_and_has_a_price_is_chosen", _takes_a_missing_price_for_nothing),
    ("who_runs_on_spot_is_judged_again", _never_judges_again),
)


@pytest.mark.parametrize(("law", "plant"), PLANTED, ids=lambda one: getattr(one, "__name__", one))
def test_a_planted_bug_is_caught_by_its_law(
    law: str, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """One of the lives breaks the law."""
    plant(monkeypatch)
    assert any(law in broken(play(Story(seed, 25))) for seed in range(LIVES_MAX))


def test_every_law_has_its_bug() -> None:
    """No law goes without proof that it bites."""
    assert {law for law, _ in PLANTED} == set(LAWS)


def test_without_a_bug_no_law_is_broken() -> None:
    """The same lives, untouched."""
    assert [name for seed in range(10) for name in broken(play(Story(seed, 25)))] == []


# ---- never late -----------------------------------------------------------------------------------------


def _waits_too_long(patch: Patch) -> None:
    real = choose.view

    def view(*arguments):  # type: ignore[no-untyped-def]  # as the real one
        return replace(real(*arguments), wait_ms=-600_000)

    patch.setattr(choose, "view", view)


def _forgets_the_launch(patch: Patch) -> None:
    real = choose.view

    def view(*arguments):  # type: ignore[no-untyped-def]  # as the real one
        return replace(real(*arguments), overhead_ms=0)

    patch.setattr(choose, "view", view)


def _credits_what_is_not_saved(patch: Patch) -> None:
    real = choose.view

    def view(snapshot: Snapshot, state: WorkloadState, run: Run | None) -> JobView:
        return real(snapshot, replace(state, saved_work_ms=2 * state.saved_work_ms), run)

    patch.setattr(choose, "view", view)


def _takes_spot_however_late_it_is(patch: Patch) -> None:
    real = spot.feasible

    def feasible(job: JobView, action: str) -> bool:
        return action not in (spot.IDLE, spot.ON_DEMAND) or real(job, action)

    patch.setattr(spot, "feasible", feasible)


LATE: tuple[Callable[[Patch], None], ...] = (
    _waits_too_long,
    _forgets_the_launch,
    _credits_what_is_not_saved,
    _takes_spot_however_late_it_is,
)


@pytest.mark.parametrize("plant", LATE, ids=lambda one: str(one.__name__))
def test_a_job_that_is_late_is_noticed(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """In one of the worlds in which no job is late otherwise."""
    plant(monkeypatch)
    outcomes = (drawn_world(seed, 3.5).outcome(8) for seed in range(WORLDS_MAX))
    assert any(one.done_ms is None or one.done_ms > 3.5 * HOUR_MS for one in outcomes)
