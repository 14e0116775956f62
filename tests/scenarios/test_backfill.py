"""A gang behind a stream of small jobs: with backfill it starts within the bound, without it never."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace
from tests.scenarios.home import Home, declared, fleet, job, node

from steersman.model.events import PolicySet
from steersman.model.policy import Policy
from steersman.model.snapshot import Phase
from steersman.model.workload import Workload

MINUTE_MS = 60_000
STEP_MS = 5_000
NODES = 6
LONG_MS = 10 * MINUTE_MS
SHORT_MS = MINUTE_MS
GRACE_MS = 1_000
DECLARED_MS = 3 * MINUTE_MS


class Outcome(NamedTuple):
    """When the gang started after its declaration (None: never), the share of node time in use while it
    waited, and how many short jobs began meanwhile."""

    waited_ms: int | None
    in_use: float
    shorts: int


def small(name: str, lasts_ms: int, bound: bool) -> Workload:
    """A job of one whole node that says how long it lasts at most, or does not."""
    made = job(name, cores=2, max_duration_ms=lasts_ms if bound else None)
    return replace(made, body=replace(made.body, stop_grace_ms=GRACE_MS))


class Stream:
    """Long jobs, and short ones if so, that come before and after a gang of four nodes."""

    def __init__(self, policy: Policy, *, bound: bool, shorts: bool) -> None:
        self.home = Home(fleet(*(node(f"n{at}") for at in range(NODES))), PolicySet(policy=policy))
        self.bound, self.shorts = bound, shorts
        self.gang_at = self.home.now_ms + DECLARED_MS
        self.ends: dict[str, int] = {}
        self.used = self.ticks = self.began_short = 0

    def news(self, step: int) -> list[Workload]:
        """Before the gang somebody comes when a node is free; after it there is always somebody waiting."""
        home, made = self.home, list[Workload]()
        if home.now_ms == self.gang_at:
            made.append(job("gang", cores=2, ranks=4))
        waiting = [
            name for name, item in home.snapshot.workloads.sorted_items() if item.phase is Phase.QUEUED
        ]
        early = home.now_ms < self.gang_at
        most = 3 if not early else int(not all(item.leases for _, item in home.snapshot.nodes.sorted_items()))
        if sum(name.startswith("long") for name in waiting) < most:
            made.append(small(f"long-{step:04}", LONG_MS, self.bound))
        if self.shorts and not early and sum(name.startswith("short") for name in waiting) < most:
            made.append(small(f"short-{step:04}", SHORT_MS, self.bound))
        return made

    def begin(self, step: int) -> None:
        """Who was started runs at once, and for between two fifths and all of its longest time."""
        for name, item in self.home.snapshot.workloads.sorted_items():
            if item.phase is Phase.ACTIVE and name not in self.ends:
                self.home.begin(name)
                lasts_ms = SHORT_MS if name.startswith("short") else LONG_MS
                self.ends[name] = self.home.now_ms + lasts_ms - (step * 5 % 7) * (lasts_ms // 10)
                self.began_short += name.startswith("short") and self.home.now_ms > self.gang_at

    def end(self) -> None:
        """Whose time is over ends."""
        for name, at in self.ends.items():
            if at <= self.home.now_ms and self.home.phase(name) is Phase.ACTIVE:
                self.home.end(name, after_ms=0)

    def count(self) -> None:
        """How much of the fleet is in use."""
        if self.home.now_ms > self.gang_at:
            self.ticks += NODES
            self.used += sum(bool(item.leases) for _, item in self.home.snapshot.nodes.sorted_items())


def lived(policy: Policy, *, bound: bool, minutes: int = 60, shorts: bool = True) -> Outcome:
    """What became of the gang."""
    stream, waited = Stream(policy, bound=bound, shorts=shorts), None
    for step in range(minutes * MINUTE_MS // STEP_MS):
        news = stream.news(step)
        stream.home.cycle(*(declared(item) for item in news), after_ms=STEP_MS)
        stream.begin(step)
        if "gang" in stream.ends:
            waited = stream.home.now_ms - stream.gang_at
            break
        stream.count()
        stream.end()
    return Outcome(waited, stream.used / stream.ticks, stream.began_short)


def test_with_known_ends_the_gang_starts_within_the_longest_of_them() -> None:
    """EASY: when what runs has ended, at the latest; and short jobs fill the holes meanwhile."""
    outcome = lived(Policy(), bound=True)
    assert outcome.waited_ms is not None
    assert outcome.waited_ms <= LONG_MS + GRACE_MS + STEP_MS
    assert outcome.shorts > 5
    assert outcome.in_use > 0.9, outcome
    empty = lived(Policy(), bound=True, shorts=False)
    assert outcome.in_use > empty.in_use + 0.05, (outcome, empty)


@pytest.mark.parametrize("patience_ms", [0, 5 * MINUTE_MS])
def test_with_unknown_ends_it_starts_within_its_patience_and_the_longest_run(patience_ms: int) -> None:
    """Nodes are chosen and drain: nothing is preempted, and nothing new starts on them."""
    outcome = lived(Policy(backfill_patience_ms=patience_ms), bound=False)
    assert outcome.waited_ms is not None
    assert outcome.waited_ms <= patience_ms + LONG_MS + 2 * STEP_MS, outcome


@pytest.mark.parametrize("bound", [True, False])
def test_without_backfill_the_gang_never_starts(bound: bool) -> None:
    outcome = lived(Policy(backfill_patience_ms=None), bound=bound, minutes=240)
    assert outcome.waited_ms is None
    assert outcome.in_use > 0.9


def test_each_infrastructure_has_its_own_first_in_line() -> None:
    there = [replace(node(name), infra="ray/gpu") for name in ("r1", "r2")]
    home = Home(fleet(node("l1"), node("l2"), *there), PolicySet(policy=Policy()))

    def at(infra: str, made: Workload) -> Workload:
        return replace(made, resources=replace(made.resources, infra=infra))

    for number, infra in enumerate(("local", "local", "ray", "ray")):
        home.up(at(infra, replace(small(f"runs-{number}", LONG_MS, True), resources=job("w").resources)))
        home.begin(f"runs-{number}")
    home.up(at("local", job("here", cores=2, ranks=2)), at("ray", job("there", cores=2, ranks=2)))
    home.up(at("local", job("late-here")), at("ray", job("late-there")))
    home.settle()
    kept = {name: sorted(item.node for item in home.state(name).reservations) for name in ("here", "there")}
    assert kept == {"here": ["l1", "l2"], "there": ["r1", "r2"]}
    assert {home.phase(name) for name in ("late-here", "late-there")} == {Phase.QUEUED}
