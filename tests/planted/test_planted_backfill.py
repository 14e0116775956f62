"""Every law of backfill bites: a bug is planted in promise, guard or walk, and its law finds it."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.properties import backfill_laws as laws
from tests.properties.backfill_laws import Life, lived

from steersman.decide import vacancy
from steersman.decide.backfill import Guard, Promise
from steersman.state import derive

Patch = pytest.MonkeyPatch
LIVES_MAX = 40


def _everybody_may_pass(patch: Patch) -> None:
    patch.setattr(Promise, "allows", lambda *_: True)


def _a_minute_more_is_in_time(patch: Patch) -> None:
    real = Promise.allows

    def allows(self: Promise, placements: Any, end_ms: int | None) -> bool:
        return real(self, placements, None if end_ms is None else end_ms - 60_000)

    patch.setattr(Promise, "allows", allows)


def _what_is_not_known_ends_now(patch: Patch) -> None:
    real = derive.finish_ms
    patch.setattr(vacancy, "finish_ms", lambda *given: real(*given) or given[2])


def _newcomers_count_on_each_other(patch: Patch) -> None:
    patch.setattr(Promise, "_goes", lambda *_, **__: True)


def _part_of_the_room_is_kept(patch: Patch) -> None:
    real = vacancy._kept
    patch.setattr(
        vacancy,
        "_kept",
        lambda *given: tuple(
            replace(
                item, amount=replace(item.amount, cpu_milli=item.amount.cpu_milli // 1_000 * 1_000 - 1_000)
            )
            for item in real(*given)
        ),
    )


def _the_grace_is_forgotten_in_the_fix(patch: Patch) -> None:
    real = Guard._held

    def held(self: Guard, state: Any, refusing: Any) -> Any:
        return real(self, replace(state, spec=_without_grace(state.spec)), refusing)

    patch.setattr(Guard, "_held", held)


def _without_grace(spec: Any) -> Any:
    return replace(spec, body=replace(spec.body, stop_grace_ms=0))


def _the_urgent_are_held_back(patch: Patch) -> None:
    real = Promise.__init__

    def begin(self: Promise, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        self.spec = replace(self.spec, priority=10)

    patch.setattr(Promise, "__init__", begin)


BUGS: tuple[tuple[Callable[[Patch], None], Callable[[Any], None]], ...] = (
    (_everybody_may_pass, laws.who_is_promised_a_start_starts_by_then),
    (_a_minute_more_is_in_time, laws.a_promised_start_never_moves_later),
    (_what_is_not_known_ends_now, laws.a_promised_start_never_moves_later),
    (_newcomers_count_on_each_other, laws.unknown_ends_are_waited_for_and_no_others),
    (_part_of_the_room_is_kept, laws.who_is_promised_a_start_starts_by_then),
    (_the_grace_is_forgotten_in_the_fix, laws.what_is_suggested_works),
    (_the_urgent_are_held_back, laws.who_is_held_back_is_held_for_somebody_before_it),
)


def _life(seed: int) -> Life:
    return Life(seed, known=seed % 2 == 0)


@pytest.mark.parametrize(("plant", "law"), BUGS, ids=lambda item: str(item.__name__).strip("_"))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[[Any], None], monkeypatch: Patch
) -> None:
    """The law that is meant for it fails on some life."""
    plant(monkeypatch)
    assert any(_breaks(law, seed) for seed in range(LIVES_MAX))


def _breaks(law: Callable[[Any], None], seed: int) -> bool:
    try:
        home = lived(_life(seed))
    except (AssertionError, KeyError):
        return False  # the core noticed by itself
    try:
        law(home)
    except AssertionError:
        return True
    return False


def test_holding_back_with_the_knob_off_is_caught(monkeypatch: Patch) -> None:
    """A guard that takes None for its default promises room all the same."""
    real = Guard.__init__

    def begin(self: Guard, draft: Any, *given: Any) -> None:
        draft.policy = replace(draft.policy, backfill_patience_ms=0)
        real(self, draft, *given)

    monkeypatch.setattr(Guard, "__init__", begin)
    home = lived(Life(0, patience_ms=None))
    with pytest.raises(AssertionError):
        laws.nobody_is_held_back(home)
