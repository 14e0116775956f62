"""A gang behind a stream of small jobs: with backfill it starts within the bound, without it never."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace
from tests.scenarios.home import Home, declared, fleet, job, node

from steersman.model.events import PolicySet
from steersman.model.ids import WorkloadName
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


def lived(policy: Policy, *, bound: bool, minutes: int = 60, shorts: bool = True) -> Outcome:
    """A stream of jobs of ten minutes that begins before the gang of four nodes, and of one minute if so."""
    home = Home(fleet(*(node(f"n{at}") for at in range(NODES))), PolicySet(policy=policy))
    ends: dict[str, int] = {}
    made, waited, used, ticks, began_short = 0, None, 0, 0, 0
    gang_at = home.now_ms + DECLARED_MS
    for step in range(minutes * MINUTE_MS // STEP_MS):
        waiting = [
            name for name, item in home.snapshot.workloads.sorted_items() if item.phase is Phase.QUEUED
        ]
        news = []
        before = home.now_ms < gang_at  # nobody waits before the gang does
        if before and all(item.leases for _, item in home.snapshot.nodes.sorted_items()):
            waiting += ["long", "short"] * 3
        if sum(name.startswith("long") for name in waiting) < 3 - 2 * before:
            news.append(declared(small(f"long-{made:04}", LONG_MS, bound)))
        if shorts and not before and sum(name.startswith("short") for name in waiting) < 3:
            news.append(declared(small(f"short-{made:04}", SHORT_MS, bound)))
        made += 1
        if home.now_ms == gang_at:
            news.append(declared(job("gang", cores=2, ranks=4)))
        home.cycle(*news, after_ms=STEP_MS)
        for name, item in home.snapshot.workloads.sorted_items():
            if item.phase is Phase.ACTIVE and name not in ends:
                home.begin(name)
                lasts_ms = SHORT_MS if name.startswith("short") else LONG_MS
                ends[name] = home.now_ms + lasts_ms - (step * 5 % 7) * (lasts_ms // 10)
                began_short += name.startswith("short") and home.now_ms > gang_at
        if "gang" in ends:
            return Outcome(home.now_ms - gang_at, used / max(ticks, 1), began_short)
        if home.now_ms > gang_at:
            ticks += NODES
            used += sum(bool(item.leases) for _, item in home.snapshot.nodes.sorted_items())
        for name in [name for name, at in ends.items() if at <= home.now_ms]:
            if home.state(WorkloadName(name)).phase is Phase.ACTIVE:
                home.end(name, after_ms=0)
    return Outcome(waited, used / ticks, began_short)


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
