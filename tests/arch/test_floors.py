"""Benchmarks are held to their floors, and a floor that is missed, or not measured, is seen."""

from collections.abc import Mapping
from importlib.util import find_spec

import msgspec
import pytest
from bench import run

TEXT = """
[thing]
full = { size = 10 }
short = { size = 1 }

[thing.floors.wait_ms]
at_most = 5
stretch = 1
provenance = "target: somewhere"

[thing.floors.events_per_s]
at_least = 100
stretch = 200
provenance = "target: elsewhere"
"""


def _verdicts(figures: Mapping[str, float]) -> dict[str, str]:
    lines = run.judge("thing", run.read_floors(TEXT)["thing"], figures)
    return {line.figure: line.verdict for line in lines}


def test_floors_that_hold() -> None:
    """The floor itself is good enough, in both directions; a figure without a floor has no verdict."""
    figures = {"wait_ms": 5, "events_per_s": 100, "size": 10}

    assert _verdicts(figures) == {"wait_ms": "pass", "events_per_s": "pass", "size": ""}
    assert run.failures(run.judge("thing", run.read_floors(TEXT)["thing"], figures), "full") == 0


@pytest.mark.parametrize(
    ("figures", "verdicts"),
    [
        ({"wait_ms": 5.001, "events_per_s": 99.9}, {"wait_ms": "FAIL", "events_per_s": "FAIL"}),
        (
            {"wait_ms": float("nan"), "events_per_s": float("nan")},
            {"wait_ms": "FAIL", "events_per_s": "FAIL"},
        ),
        ({}, {"wait_ms": "not measured", "events_per_s": "not measured"}),
    ],
)
def test_floors_that_are_missed(figures: dict[str, float], verdicts: dict[str, str]) -> None:
    """Too slow, not a number, and a benchmark that failed all end the run with 1."""
    lines = run.judge("thing", run.read_floors(TEXT)["thing"], figures)

    assert _verdicts(figures) == verdicts
    assert run.failures(lines, "full") == run.failures(lines, "short") == 2


def test_a_short_run_may_leave_floors_out() -> None:
    """What was not measured is no miss in short, but in full; what was measured is held to its floor."""
    left_out = run.judge("thing", run.read_floors(TEXT)["thing"], {"wait_ms": 5})
    missed = run.judge("thing", run.read_floors(TEXT)["thing"], {"wait_ms": 6})

    assert (run.failures(left_out, "short"), run.failures(left_out, "full")) == (0, 1)
    assert (run.failures(missed, "short"), run.failures(missed, "full")) == (1, 2)


@pytest.mark.parametrize(
    ("target", "figures", "verdict"),
    [
        ("wait_ms", {"wait_ms": 2, "events_per_s": 100}, "pass"),
        ("wait_ms", {"wait_ms": 3, "events_per_s": 100}, "target missed"),
        ("wait_ms", {"wait_ms": 6, "events_per_s": 100}, "FAIL"),
        ("events_per_s", {"wait_ms": 1, "events_per_s": 150}, "pass"),
        ("events_per_s", {"wait_ms": 1, "events_per_s": 140}, "target missed"),
        ("events_per_s", {"wait_ms": 1, "events_per_s": 90}, "FAIL"),
    ],
)
def test_a_target_out_of_reach_is_shown_and_the_floor_still_holds(
    target: str, figures: dict[str, float], verdict: str
) -> None:
    before = {"wait_ms": "at_most = 5", "events_per_s": "at_least = 100"}[target]
    text = TEXT.replace(before, f"{before}\ntarget = {2 if target == 'wait_ms' else 150}")
    lines = run.judge("thing", run.read_floors(text)["thing"], figures)
    (line,) = (line for line in lines if line.figure == target)

    assert line.verdict == verdict
    assert "(target " in line.floor
    assert run.failures(lines, "full") == (verdict == "FAIL")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("at_most", "atmost"),
        ("at_most = 5", ""),
        ("stretch = 1\n", "at_least = 1\nstretch = 1\n"),
        ("full", "all"),
    ],
)
def test_a_floor_that_is_written_wrong_is_refused(before: str, after: str) -> None:
    """A misspelt floor must not be one that always holds."""
    with pytest.raises(msgspec.ValidationError):
        run.read_floors(TEXT.replace(before, after, 1))


def test_every_floor_has_its_benchmark_and_its_provenance() -> None:
    """floors.toml names modules that exist, and says of each number where it comes from."""
    benches = run.read_floors(run.FLOORS.read_text(encoding="utf-8"))
    for name, bench in benches.items():
        assert find_spec(f"bench.{name}") is not None, name
        assert bench.floors, name
        for figure, floor in bench.floors.items():
            assert len(floor.provenance) > 20, figure
