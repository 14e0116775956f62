"""The laws of backfill, over random lives in which every run keeps to what it said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.backfill_laws import LAWS, Life, lived, nobody_is_held_back

from steersman.model.events import Event
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), known=st.booleans(), patience_ms=st.sampled_from((0, 4_000)))
def test_every_law_of_backfill_holds(seed: int, known: bool, patience_ms: int) -> None:
    home = lived(Life(seed, known=known, patience_ms=patience_ms))
    for law in LAWS:
        law(home)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), known=st.booleans())
def test_with_the_knob_off_nobody_is_held_back(seed: int, known: bool) -> None:
    nobody_is_held_back(lived(Life(seed, known=known, patience_ms=None)))


@pytest.mark.parametrize("known", [True, False])
def test_the_lives_are_eventful(known: bool) -> None:
    codes: dict[Code, int] = {}
    for seed in range(20):
        home = lived(Life(seed, known=known))
        for cycle in home.cycles:
            for decision in cycle.plan.decisions:
                codes[decision.reason.code] = codes.get(decision.reason.code, 0) + 1
        assert all(item.phase is not Phase.QUEUED for _, item in home.snapshot.workloads.sorted_items())
    assert min(codes.get(code, 0) for code in (Code.ROOM_PROMISED, Code.WAITING_BACKFILL)) > 10, codes


def test_the_same_life_twice_gives_the_same_journal() -> None:
    def told() -> list[Event]:
        return [record.event for record in lived(Life(3, known=False)).log]

    assert told() == told()
