"""The search of `small_scope` in short; `make small-world` looks further."""

from collections.abc import Callable

import pytest
from tests.properties.small_scope import FAULTS, Broken, explore, main

from steersman.decide import fit, recover, start
from steersman.model.policy import Policy
from steersman.state import apply

Patch = pytest.MonkeyPatch
STATES_MAX = 900


@pytest.mark.timeout(120)
def test_every_law_holds_in_every_small_story() -> None:
    """Exhaustive up to a bound: all laws at each state that a small alphabet of events can reach."""
    found = explore(STATES_MAX)
    assert found.states >= STATES_MAX
    assert found.decided.keys() >= {
        "Admit",
        "Start",
        "Stop",
        "Reserve",
        "Requeue",
        "Finish",
        "Forget",
        "Hold",
    }
    assert found.faults.keys() == set(FAULTS)


def test_the_command_says_what_it_looked_at(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--states", "30"]) == 0
    assert "states by" in capsys.readouterr().out
    _starts_half_a_gang(monkeypatch)
    assert main(["--states", "30"]) == 1
    assert capsys.readouterr().out.startswith("broken by: up gang: gangs_start_whole")


def _starts_half_a_gang(patch: Patch) -> None:
    real = fit.placements
    patch.setattr(start, "placements", lambda *given: real(*given)[:1])


def _keeps_what_was_reserved(patch: Patch) -> None:
    patch.setattr(start, "end_reservations", lambda *_: None)
    patch.setattr(apply, "end_reservations", lambda *_: None)


def _waits_for_nothing(patch: Patch) -> None:
    def backoff(policy: Policy, failures: int) -> int:
        del policy, failures
        return 0

    patch.setattr(recover, "backoff_ms", backoff)


CASES: list[tuple[Callable[[Patch], None], str]] = [
    (_starts_half_a_gang, "up gang: gangs_start_whole"),
    (_keeps_what_was_reserved, "up low, up gang, up top, stop top: reservations_are_counted_right"),
    (_waits_for_nothing, "up low, dead b: unfinished_tries_are_bounded"),
]


@pytest.mark.parametrize(("plant", "story"), CASES, ids=lambda item: str(getattr(item, "__name__", "")))
def test_a_planted_bug_is_told_by_its_shortest_story(
    plant: Callable[[Patch], None], story: str, monkeypatch: Patch
) -> None:
    """And by the law that is meant for it."""
    plant(monkeypatch)
    with pytest.raises(Broken, match=story):
        explore(STATES_MAX)
