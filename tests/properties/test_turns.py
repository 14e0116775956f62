"""The laws of taking turns, in lives that Hypothesis makes up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import turn_laws
from tests.properties.strategies import Story, play, stories, told_by
from tests.properties.turn_laws import LAWS, Law, Life, lived, outranked
from tests.properties.turn_world import World

from steersman.model.events import PolicySet
from steersman.model.policy import Policy

LIVES = 12
"""Worlds that each law is shown by name; the search meets others."""


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [lived(Life(seed)) for seed in range(LIVES)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Law, worlds: list[World]) -> None:
    for world in worlds:
        law(world)


def test_the_lives_are_eventful(worlds: list[World]) -> None:
    """Turns were taken, by gangs and beyond full quotas too."""
    stops = [stop for world in worlds for cycle in world.home.cycles for stop in outranked(cycle)]
    assert len(stops) >= LIVES


@settings(max_examples=settings().max_examples // 5 + 1)
@given(life=st.builds(Life, st.integers(0, 2**32 - 1), st.integers(4, 18)))
def test_every_law_holds_in_every_life(life: Life) -> None:
    world = lived(life)
    for law in LAWS:
        law(world)


@settings(max_examples=settings().max_examples // 10 + 1)
@given(life=st.builds(Life, st.integers(0, 2**32 - 1), st.integers(4, 16)))
def test_by_age_nothing_changes(life: Life) -> None:
    turn_laws.age_is_left_as_it_was(life)


def test_nobody_starves_behind_a_stream() -> None:
    turn_laws.who_was_out_ranked_comes_back()


@given(story=stories(30))
def test_the_laws_of_any_home_hold_where_jobs_take_turns(story: Story) -> None:
    """Any story, with faults, changed fleets and changed minds: books, gangs and ends are as by age."""
    home, batches = told_by(story)
    turned = Policy(order="gittins", order_period_ms=1_000, preempt_run_ms_min=500, restart_ms_prior=1_000)
    home.fold(PolicySet(policy=turned))
    for batch in batches:
        steps = tuple(step for step in batch.steps if step.kind != "policy")
        play(home, batch._replace(steps=steps))
    home.settle()
    turn_laws.stories_of_home(home)
