"""Laws of the spot decider on any job against any pool; its yardstick against every way to run a job."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import spot_laws
from tests.properties.spot_laws import Story, play, stories

from steersman.decide.spot import IDLE, ON_DEMAND, JobView, Prices
from steersman.sim.replay.bounds_spot_job import exact_grain, least_cost
from steersman.sim.replay.spot_job import Case, Chooser, Open, bounds_of, simulate, starts_of, steersman
from steersman.sim.replay.spot_zones import Zone

TICK_MS = 600_000
HELD = (IDLE, ON_DEMAND, "a", "b")


@given(story=stories())
@settings(max_examples=150)
def test_every_law_holds_of_every_story(story: Story) -> None:
    """Never late, never what is not there, never past the point of no return…"""
    played = play(story)
    for law in spot_laws.LAWS.values():
        law(played)


@given(story=stories())
def test_the_same_story_gives_the_same_play(story: Story) -> None:
    """A decision follows from what was seen, and from nothing else."""
    assert play(story) == play(story)


def _case(ticks: int, work_ms: int, overhead_ms: int) -> Case:
    prices = Prices(on_demand=3_000_000, spot=(("a", 1_000_000), ("b", 1_000_000)))
    return Case(
        work_ms=work_ms, deadline_ms=ticks * TICK_MS, overhead_ms=overhead_ms, tick_ms=TICK_MS, prices=prices
    )


def _following(actions: tuple[str, ...]) -> Chooser:
    turn = iter(actions)

    def choose(_job: JobView, available: Open) -> str:
        want = next(turn, IDLE)
        return want if want in {IDLE, ON_DEMAND} or (want, True) in available else IDLE

    return choose


pools = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=5)


@given(up=pools, work=st.integers(1, 4), overhead_ms=st.sampled_from((0, 200_000, 360_000, 700_000)))
@settings(max_examples=25)
def test_the_bound_is_the_least_of_all_ways_to_run(
    up: list[tuple[bool, bool]], work: int, overhead_ms: int
) -> None:
    """Every sequence of actions over five ticks, simulated: none is cheaper, one is as cheap."""
    case = _case(5, work * TICK_MS - 100_000, overhead_ms)
    closed = ((False, False), (False, False))
    zones = [Zone(name, TICK_MS, 0, bytes(row[at] for row in (*up, *closed))) for at, name in enumerate("ab")]
    costs = []
    for actions in product(HELD, repeat=5):
        outcome = simulate(zones, case, _following(actions))
        if not outcome.late:
            costs.append(outcome.cost_usd_micro)
    grain = exact_grain(TICK_MS, overhead_ms, case.work_ms, 5)
    prices = (1_000_000, 3_000_000)
    least = least_cost([zone.up for zone in zones], 5, grain, prices) / 6
    assert least == pytest.approx(min(costs, default=float("inf")), abs=1)


@given(
    up=st.lists(st.booleans(), min_size=32, max_size=32),
    work=st.integers(1, 28),
    overhead_ms=st.sampled_from((0, 72_000, 360_000)),
)
def test_no_job_is_cheaper_than_its_bound_nor_late(up: list[bool], work: int, overhead_ms: int) -> None:
    """The decider through the simulator, on any record."""
    case = _case(30, work * TICK_MS, overhead_ms)
    zones = [Zone("a", TICK_MS, 0, bytes(up))]
    outcome = simulate(zones, case, steersman(case))
    assert not outcome.late
    assert outcome.cost_usd_micro >= bounds_of(zones, case).exact - 1


@given(length=st.integers(0, 500), span=st.integers(1, 300), wanted=st.integers(1, 40))
def test_starts_lie_apart_and_leave_the_span(length: int, span: int, wanted: int) -> None:
    """As many as are asked for or fit, in order, the first at 0."""
    starts = starts_of(length, span, wanted)
    assert list(starts) == sorted(set(starts))
    assert len(starts) <= wanted
    assert all(0 <= start <= length - span - 3 for start in starts)
    assert bool(starts) == (length >= span + 3)
