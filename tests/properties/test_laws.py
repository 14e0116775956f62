"""The laws of `checkers`, held over random lives of a home.

Theory: one search over all laws at once (any story, any law), and each law by name over the same fixed lives,
so that a report says which laws were tried and a broken one is named.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from tests.properties import checkers
from tests.properties.checkers import CYCLE_LAWS, HOME_LAWS, SNAPSHOT_LAWS
from tests.properties.counting import Turn, View
from tests.properties.strategies import Story, played, stories
from tests.scenarios.home import Home

from steersman.model.snapshot import Snapshot

LIVES = 24
"""Homes that each law is shown by name; the search meets others."""


@pytest.fixture(scope="module")
def lives() -> list[tuple[Home, list[Turn]]]:
    """Homes that were played once, cycle by cycle laid open."""
    made = []
    for seed in range(LIVES):
        home = played(Story(seed, 30))
        turns: list[Turn] = []
        for cycle in home.cycles:
            turns.append(Turn(cycle, turns[-1].after if turns else View(Snapshot())))
        made.append((home, turns))
    return made


@settings(max_examples=settings().max_examples * 2)
@given(story=stories())
def test_every_law_holds_in_every_story(story: Story) -> None:
    """Whatever happens to a home, in whatever order, every law holds at every position, then and at rest."""
    home = played(story)
    home.settle()
    checkers.check(home)
    checkers.nobody_waits_in_vain(View(home.snapshot))


@pytest.mark.parametrize("law", SNAPSHOT_LAWS, ids=lambda law: str(law.__name__))
def test_law_of_a_state(law: Callable[[View], None], lives: list[tuple[Home, list[Turn]]]) -> None:
    """One law, of what stands at a position; its docstring says it."""
    for _, turns in lives:
        for turn in turns:
            law(turn.seen)
            law(turn.after)


@pytest.mark.parametrize("law", CYCLE_LAWS, ids=lambda law: str(law.__name__))
def test_law_of_a_cycle(law: Callable[[Turn], None], lives: list[tuple[Home, list[Turn]]]) -> None:
    """One law, of what a plan does to what it saw; its docstring says it."""
    for _, turns in lives:
        for turn in turns:
            law(turn)


@pytest.mark.parametrize("law", HOME_LAWS, ids=lambda law: str(law.__name__))
def test_law_of_a_history(law: Callable[[Home], None], lives: list[tuple[Home, list[Turn]]]) -> None:
    """One law, of a home's whole life; its docstring says it."""
    for home, _ in lives:
        law(home)


def test_the_lives_are_eventful(lives: list[tuple[Home, list[Turn]]]) -> None:
    """The laws above were tried on something: every kind of decision and most reasons occur."""
    kinds, codes = set(), set()
    for home, _ in lives:
        for cycle in home.cycles:
            kinds |= {type(item).__name__ for item in cycle.plan.decisions}
            codes |= {item.reason.code.value for item in cycle.plan.decisions}
    assert kinds == {
        "Admit", "Hold", "Reserve", "Start", "Stop", "Requeue", "Finish", "Forget", "SetCheckpointInterval",
        "Scale", "Learn", "Revise", "Promote", "FailRollout", "Spawn", "Retire",
    }  # fmt: skip
    assert len(codes) >= 40, sorted(codes)
