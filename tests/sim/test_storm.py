"""Storms over the real engine: every seed must come through with all checkers silent, and converge.

`STEERSMAN_SIM_SEEDS` asks for more seeds, `STEERSMAN_SIM_FIRST` says where to begin. A seed is a bug report.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from tests.sim.planting import run_storm

from steersman.journal import MemoryJournal, SqliteJournal
from steersman.sensors.runs import RunSensor
from steersman.sim.plane import Plane
from steersman.sim.storm import PLACES, Outcome, Storm, storm

SEEDS = int(os.environ.get("STEERSMAN_SIM_SEEDS", "24"))
FIRST = int(os.environ.get("STEERSMAN_SIM_FIRST", "0"))
ENOUGH_EVENTS = 25


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_every_storm_ends_in_calm(seed: int) -> None:
    outcome = storm(seed, MemoryJournal(), RunSensor)
    assert outcome.violations == ()
    assert outcome.events >= ENOUGH_EVENTS


@pytest.mark.parametrize("seed", [1013, 1119])
def test_what_ends_while_it_is_looked_at_is_waited_for(seed: int) -> None:
    """In these a replica tires in the very second in which all else is calm: that is no calm yet."""
    assert storm(seed, MemoryJournal(), RunSensor).violations == ()


@pytest.mark.parametrize("seed", [55, 89])
def test_services_of_a_home_without_nodes_wait_in_calm(seed: int) -> None:
    """In these nobody ever declares a fleet: no replica can start, and that is no fault of the plane."""
    assert storm(seed, MemoryJournal(), RunSensor).violations == ()


def test_one_seed_is_one_history() -> None:
    first, second = (MemoryJournal(), MemoryJournal())
    assert storm(3, first, RunSensor) == storm(3, second, RunSensor)
    assert [record.body for record in first.read()] == [record.body for record in second.read()]


def test_a_storm_over_the_journal_on_disk(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path / "home")
    try:
        assert storm(5, journal, RunSensor).violations == ()
        assert journal.verify().problems == ()
    finally:
        journal.close()


class Enumerated(Storm):
    """The first planes die at the nth arrival at one place; the rest of the storm is ordinary work."""

    place, nth, died = "*", 1, 0
    planes_killed = 3

    def _draw_swarm(self) -> dict[str, int]:
        return {"client": 8, "kill-rank": 1, "pass": 8}

    async def _plane(self) -> Plane:
        plane = await super()._plane()
        if len(self.planes) <= self.planes_killed and not plane.arrivals["armed"]:
            plane.arm(self.place, self.nth)
            plane.arrivals["armed"] += 1
        self.died = max(self.died, self.crashes)
        return plane


ARRIVALS: Counter[str] = Counter()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("place", [place for place in PLACES if place != "*"])
def test_a_plane_that_dies_at_a_place_leaves_nothing_behind(place: str, nth: int) -> None:
    world = Enumerated(11, MemoryJournal(), RunSensor, steps=40)
    world.place, world.nth = place, nth
    outcome: Outcome = run_storm(world)
    assert outcome.violations == ()
    ARRIVALS[place] += world.crashes


def test_every_place_was_died_at() -> None:
    """Whoever runs the tests in parts gets no verdict on the whole."""
    if len(ARRIVALS) == len(PLACES) - 1:
        assert [place for place in PLACES if place != "*" and not ARRIVALS[place]] == []
