"""Running storms, and planting bugs in what they run over."""

import asyncio
import contextlib
from collections.abc import Iterator

from steersman.journal import MemoryJournal
from steersman.sensors.runs import RunSensor
from steersman.sim import storm as module
from steersman.sim.checkers import always
from steersman.sim.storm import Outcome, Storm

CALM_MS_MAX = 60_000
Plant = tuple[object, str, object]


def run_storm(world: Storm) -> Outcome:
    """A storm to its end."""
    return asyncio.run(world.whole())


@contextlib.contextmanager
def planted(*plants: Plant) -> Iterator[None]:
    """(owner, name, what stands there instead), for as long as the block lasts."""
    with contextlib.ExitStack() as undo:
        for owner, name, bug in plants:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, bug)
        yield


def found(seeds: int, *plants: Plant) -> tuple[int, str]:
    """The first seed that finds the planted bug, and its first words; fails when none does."""
    with planted((module, "CALM_MS_MAX", CALM_MS_MAX), *plants):
        for seed in range(seeds):
            world = Storm(seed, MemoryJournal(), RunSensor)
            try:
                outcome = run_storm(world)
            except AssertionError as error:  # the core's own, or the engine's: it stops, at what is recorded
                return seed, next(iter(always(world.evidence())), f"asserted: {error}")
            if outcome.violations:
                return seed, outcome.violations[0]
    raise AssertionError(f"{seeds} seeds do not find it")
