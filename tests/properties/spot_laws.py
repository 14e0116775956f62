"""Jobs with a deadline played against pools that answer to what the job holds, and the laws of such a play.

Theory: that a job is never late must hold against every pool, so the pools here are adversaries in a closed
loop: one dies as soon as it is held, one after two ticks, one is there only while on-demand runs, one
follows a list of coin flips. What happened is recorded turn by turn, and every law is asked of the record.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hypothesis import strategies as st

from steersman.decide import hazard, spot
from steersman.decide.hazard import HOUR_MS
from steersman.decide.spot import IDLE, ON_DEMAND, Choice, JobView, Prices
from steersman.decide.spot_plan import Table
from steersman.model.pools import SpotHistory
from steersman.state import pools

MODES = ("dies when held", "dies after two", "there with on-demand", "coins")
TICKS_MS = (60_000, 195_000, 600_000, 1_234_567)
OVERHEADS_MS = (0, 1, 72_000, 360_000, 1_500_000)
PRICES_MICRO = (100_000, 973_100, 3_059_999)
ON_DEMAND_MICRO = 3_060_000
TURNS_MAX = 400


class Story(NamedTuple):
    """A job and its pools. `extra`: ticks more than on-demand alone needs; below 0 the job must be late."""

    tick_ms: int
    overhead_ms: int
    work_ms: int
    extra: int
    odd_ms: int
    mode: str
    coins: tuple[bool, ...]
    prices: tuple[int, ...]

    @property
    def deadline_ms(self) -> int:
        """The deadline, which need not be at the end of a tick."""
        need = -(-(self.work_ms + self.overhead_ms) // self.tick_ms)
        return max(1, (need + self.extra) * self.tick_ms + self.odd_ms % self.tick_ms)


class Turn(NamedTuple):
    """One decision: what was seen, what was known, what was chosen."""

    job: JobView
    open: frozenset[str]
    history: SpotHistory
    choice: Choice


class Play(NamedTuple):
    """A whole job. `done_ms`: None when it was not done within TURNS_MAX."""

    story: Story
    turns: tuple[Turn, ...]
    done_ms: int | None


def stories() -> st.SearchStrategy[Story]:
    """Any story; work of up to three hours."""
    return st.builds(
        Story,
        tick_ms=st.sampled_from(TICKS_MS),
        overhead_ms=st.sampled_from(OVERHEADS_MS),
        work_ms=st.integers(1, 3 * HOUR_MS),
        extra=st.sampled_from((-1, 0, 1, 2, 5, 20)),
        odd_ms=st.integers(0, 2_000_000),
        mode=st.sampled_from(MODES),
        coins=st.lists(st.booleans(), min_size=1, max_size=40).map(tuple),
        prices=st.lists(st.sampled_from(PRICES_MICRO), max_size=3).map(tuple),
    )


def told(seed: int) -> Story:
    """The same story for the same seed; about one in ten leaves no slack at all."""
    rng = random.Random(seed)
    return Story(
        tick_ms=rng.choice(TICKS_MS),
        overhead_ms=rng.choice(OVERHEADS_MS),
        work_ms=rng.randrange(1, 3 * HOUR_MS),
        extra=rng.choice((0, 1, 2, 5, 20)),
        odd_ms=rng.randrange(2_000_000),
        mode=MODES[seed % len(MODES)],
        coins=tuple(rng.random() < 0.6 for _ in range(37)),
        prices=tuple(rng.choice(PRICES_MICRO) for _ in range(rng.choice((1, 2, 3)))),
    )


class _Machine:
    """What the job holds and has done."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.held, self.launch_left_ms, self.done_ms, self.held_ticks = IDLE, 0, 0, 0

    def works(self) -> None:
        """One tick passes."""
        if self.held != IDLE:
            worked = max(self.story.tick_ms - self.launch_left_ms, 0)
            self.launch_left_ms -= self.story.tick_ms - worked
            self.done_ms += worked
            self.held_ticks += 1

    def holds(self, want: str) -> None:
        """From now on."""
        if want != self.held:
            self.held, self.held_ticks = want, 0
            self.launch_left_ms = 0 if want == IDLE else self.story.overhead_ms


def _open(machine: _Machine, tick: int, names: tuple[str, ...]) -> frozenset[str]:
    story = machine.story
    if story.mode == "dies when held":
        return frozenset(name for name in names if name != machine.held)
    if story.mode == "dies after two":
        return frozenset(name for name in names if name != machine.held or machine.held_ticks < 2)
    if story.mode == "there with on-demand":
        return frozenset(names) if machine.held == ON_DEMAND else frozenset()
    coins = story.coins
    return frozenset(name for at, name in enumerate(names) if coins[(tick + at * at) % len(coins)])


def play(story: Story) -> Play:
    """The story from beginning to end, through the functions that decide live."""
    names = tuple(f"pool-{at}" for at in range(max(1, len(story.prices))))
    prices = Prices(on_demand=ON_DEMAND_MICRO, spot=tuple(zip(names, story.prices, strict=False)))
    history, machine = SpotHistory(), _Machine(story)
    turns: list[Turn] = []
    table: Table | None = None
    for tick in range(TURNS_MAX):
        now_ms = tick * story.tick_ms
        machine.works()
        available = _open(machine, tick, names)
        if machine.held not in {IDLE, ON_DEMAND, *available}:
            machine.holds(IDLE)
        if machine.done_ms >= story.work_ms:
            return Play(story, tuple(turns), now_ms)
        history = pools.observe(history, now_ms, tuple((name, name in available) for name in names))
        job = JobView(
            now_ms=now_ms,
            deadline_ms=story.deadline_ms,
            work_left_ms=story.work_ms - machine.done_ms,
            overhead_ms=story.overhead_ms,
            held=machine.held,
            launch_left_ms=machine.launch_left_ms,
            period_ms=story.tick_ms,
        )
        table = spot.plan(history, job, prices, table)
        choice = spot.decide(history, job, prices, table)
        turns.append(Turn(job, available, history, choice))
        machine.holds(choice.action)
    return Play(story, tuple(turns), None)


def never_late(played: Play) -> None:
    """A job that on-demand alone would bring in time is in time."""
    if played.story.extra >= 0:
        assert played.done_ms is not None
        assert played.done_ms <= played.story.deadline_ms


def only_what_is_there(played: Play) -> None:
    """A pool is chosen only while it is open and has a price."""
    priced = {f"pool-{at}" for at in range(len(played.story.prices))}
    for turn in played.turns:
        assert turn.choice.action in {IDLE, ON_DEMAND, *(turn.open & priced)}


def pools_are_not_swapped(played: Play) -> None:
    """A pool that is held and up is not left for another pool."""
    for turn in played.turns:
        if turn.job.held in turn.open:
            assert turn.choice.action in {turn.job.held, IDLE, ON_DEMAND}


def waiting_ends_at_the_point_of_no_return(played: Play) -> None:
    """Who waits is back before the last decision at which on-demand still is in time; and it is exact."""
    for turn in played.turns:
        job, choice = turn.job, turn.choice
        assert choice.no_return_ms is not None
        whole_ms = (job.deadline_ms - choice.no_return_ms) // job.period_ms * job.period_ms
        if choice.action == IDLE:
            assert choice.no_return_ms >= job.now_ms + job.period_ms
            assert whole_ms >= job.work_left_ms + job.overhead_ms
            assert whole_ms - job.period_ms < job.work_left_ms + job.overhead_ms


def all_time_is_accounted_for(played: Play) -> None:
    """Exposure adds up to the time since the first look, and endings to the changes seen."""
    turns = played.turns
    for name, pool in turns[-1].history.pools if turns else ():
        assert hazard.exposure_ms(pool) == turns[-1].job.now_ms
        seen = [name in turn.open for turn in turns]
        changes = [before for before, after in itertools.pairwise(seen) if before != after]
        assert sum(pool.up_endings) == changes.count(True)
        assert sum(pool.down_endings) == changes.count(False)


def more_endings_are_more_hazard(played: Play) -> None:
    """One ending more in a bucket raises its hazard; every hazard is above 0."""
    for _, pool in played.turns[-1].history.pools if played.turns else ():
        rates = hazard.hazards(pool.up_endings, pool.up_ms)
        assert min(rates) > 0
        for bucket, rate in enumerate(rates):
            more = list(pool.up_endings)
            more[bucket] += 1
            assert hazard.hazards(tuple(more), pool.up_ms)[bucket] > rate


def the_cheapest_is_chosen(played: Play) -> None:
    """Of what is allowed nothing is expected to cost less than what is chosen."""
    for turn in played.turns:
        choice = turn.choice
        costs = {IDLE: choice.cost_wait, ON_DEMAND: choice.cost_on_demand}
        own = costs.get(choice.action, choice.cost_spot)
        assert own is not None
        allowed = [cost for cost in (*costs.values(), choice.cost_spot) if cost is not None]
        assert own == min(allowed)


LAWS: Mapping[str, Callable[[Play], None]] = {
    law.__name__: law
    for law in (
        never_late,
        only_what_is_there,
        pools_are_not_swapped,
        waiting_ends_at_the_point_of_no_return,
        all_time_is_accounted_for,
        more_endings_are_more_hazard,
        the_cheapest_is_chosen,
    )
}


def broken(played: Play) -> Iterator[str]:
    """Names of the laws that a play breaks."""
    for name, law in LAWS.items():
        try:
            law(played)
        except AssertionError:
            yield name
