"""Every law of taking turns bites: a bug is planted in line, turn or lesson, and its law finds it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.properties import turn_laws as laws
from tests.properties.turn_laws import Law, Life, lived

from steersman.decide import cycle, lineup, order, preempt, rotate
from steersman.model.snapshot import Run
from steersman.state import durations
from steersman.state.lease import end_reservations

Patch = pytest.MonkeyPatch
LIVES_MAX = 40


def _takes_priorities_for_one(patch: Patch) -> None:
    real = rotate.Field
    patch.setattr(rotate, "Field", lambda kind, _priority, group: real(kind, 0, group))
    patch.setattr(rotate._Yielding, "ceiling", lambda *_: 1_000)


def _takes_queues_for_one(patch: Patch) -> None:
    real = rotate.Field
    patch.setattr(rotate, "Field", lambda kind, priority, _group: real(kind, priority, ""))
    patch.setattr(rotate._Turn, "_is_passed_over", lambda *_: False)
    patch.setattr(rotate._Turn, "_within_quota", lambda _self, _shape, _asked, victims, _runs: victims)


def _everybody_outranks(patch: Patch) -> None:
    real = rotate.value_of

    def value_of(stands: order.Group, *rest: Any) -> int:
        return real(stands, *rest) - (10**9 if stands.stage == order.RUNNING else 0)

    patch.setattr(rotate, "value_of", value_of)


def _lines_are_taken_as_they_come(patch: Patch) -> None:
    patch.setattr(lineup, "base_priority", lambda group, _indices: group.bucket)


def _lines_forget_priority(patch: Patch) -> None:
    real = lineup._in_line
    patch.setattr(lineup, "_in_line", lambda *given: ((0, *entry[1:]) for entry in real(*given)))


def _turns_in_every_cycle(patch: Patch) -> None:
    patch.setattr(cycle, "is_turn", lambda snapshot: snapshot.policy.order != "age")


def _anybody_yields(patch: Patch) -> None:
    patch.setattr(rotate, "can_yield", lambda *_: True)
    patch.setattr(preempt, "can_yield", lambda *_: True)

    def running(turn: Any) -> Iterator[Run]:
        for (name,) in turn._snapshot.indexes.live:
            run = turn._snapshot.runs[name]
            if durations.is_ordered(turn._snapshot.workloads[run.workload].spec) and run.stop is None:
                yield run

    patch.setattr(rotate._Turn, "_running", running)


def _asks_again_while_they_leave(patch: Patch) -> None:
    """Who was yielded to is held against the others anew: what is kept for it is forgotten."""
    _turns_in_every_cycle(patch)
    real = rotate._Turn._settle

    def settle(turn: Any, field: Any, rivals: Any, winners: list[str], *rest: Any) -> None:
        for name in winners:
            state = turn._draft.workloads[name]
            end_reservations(turn._draft, state.reservations)
            turn._draft.put_workload(name, replace(state, reservations=()), None)
        real(turn, field, rivals, winners, *rest)

    def waiting(turn: Any) -> Iterator[Any]:
        return ((line, entries) for line, entries in turn._snapshot.indexes.lines.items() if line.classes)

    patch.setattr(rotate._Turn, "_waiting", waiting)
    patch.setattr(rotate._Turn, "_settle", settle)


def _keeps_what_was_reserved(patch: Patch) -> None:
    patch.setattr("steersman.state.apply.end_reservations", lambda *_: None)


def _grace_is_forgotten(patch: Patch) -> None:
    real = rotate._Turn._stop
    patch.setattr(rotate._Turn, "_stop", lambda *given: replace(real(*given), grace_ms=0))


def _nothing_is_kept(patch: Patch) -> None:
    real = rotate._Turn._propose
    patch.setattr(rotate._Turn, "_propose", lambda turn, state, victims, _: real(turn, state, victims, ()))


def _remembers_indices_of_the_first(patch: Patch) -> None:
    def indices(self: Any, learned: Any, restart_s: int) -> order.Indices:
        if not self._indices.restart_s:
            self._indices = order.Indices(learned, restart_s)
        return self._indices  # type: ignore[no-any-return]  # of the class that is patched

    patch.setattr(order.Memo, "indices", indices)


def _quotas_are_not_asked(patch: Patch) -> None:
    patch.setattr("steersman.decide.schedule.Book.refusal", lambda *_: None)


def _age_learns_too(patch: Patch) -> None:
    patch.setattr(cycle, "is_turn", lambda snapshot: bool(snapshot.indexes.lines))


def _forgets_age(patch: Patch) -> None:
    for module in (order, lineup):
        patch.setattr(module, "age_bonus", lambda _now, _arrival, _place: 0)


BUGS: tuple[tuple[Callable[[Patch], None], Law], ...] = (
    (_keeps_what_was_reserved, laws.everybody_is_done),
    (_keeps_what_was_reserved, laws.books_are_kept),
    (_asks_again_while_they_leave, laws.nobody_yields_twice_for_one_need),
    (_takes_priorities_for_one, laws.priority_is_never_inverted),
    (_takes_queues_for_one, laws.priority_is_never_inverted),
    (_everybody_outranks, laws.who_yields_is_outranked),
    (_lines_are_taken_as_they_come, laws.best_goes_first_among_alike),
    (_lines_forget_priority, laws.best_goes_first_among_alike),
    (_turns_in_every_cycle, laws.turns_are_a_period_apart),
    (_anybody_yields, laws.no_work_is_lost),
    (_grace_is_forgotten, laws.no_work_is_lost),
    (_nothing_is_kept, laws.who_is_yielded_to_starts),
    (_remembers_indices_of_the_first, laws.plans_follow_from_the_state_alone),
    (_quotas_are_not_asked, laws.quotas_are_never_exceeded),
)


def _search(law: Law, lives: int) -> None:
    for seed in range(lives):
        law(lived(Life(seed)))


@pytest.mark.parametrize(("plant", "law"), BUGS, ids=lambda item: item.__name__.strip("_"))
def test_a_planted_bug_is_caught(plant: Callable[[Patch], None], law: Law, monkeypatch: Patch) -> None:
    _search(law, 2)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        _search(law, LIVES_MAX)


def _look_by_age() -> None:
    for seed in range(LIVES_MAX):
        laws.age_is_left_as_it_was(Life(seed))


def test_age_that_takes_turns_is_caught(monkeypatch: Patch) -> None:
    _age_learns_too(monkeypatch)
    with pytest.raises(AssertionError):
        _look_by_age()


def test_an_order_that_forgets_age_is_caught(monkeypatch: Patch) -> None:
    _forgets_age(monkeypatch)
    with pytest.raises(AssertionError):
        laws.who_was_out_ranked_comes_back()


def test_every_law_is_broken_by_a_bug() -> None:
    assert {law for _, law in BUGS} == set(laws.LAWS)
