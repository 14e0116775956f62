"""Every story of a small world: two nodes, three workloads, each state once, every law at each of them.

Theory: most bugs show in small worlds if all of it is looked at. Breadth first from an empty home, every
event of a small alphabet is tried in every state, and the laws are asked of what it leads to; states that
differ only in times and positions count as one. The search ends at a fixed number of states, so that it is
the same search every time.
"""

from collections import deque
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace
from tests.properties.checkers import check_turn
from tests.properties.counting import Turn, View
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node

from steersman.model.events import (
    Event,
    NodeHealth,
    RankExited,
    RankStarted,
    RemoveRequested,
    StopRequested,
)
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.snapshot import RunState, Snapshot

STATES_MAX = 900
WORKLOADS = (
    job("low", cores=1, checkpoint=RESUMABLE),
    job("gang", cores=1, ranks=2, priority=5, checkpoint=RESUMABLE),
    job("top", cores=2, priority=9),
)
FLEET = fleet(node("a", cores=2), node("b", cores=1))

Key = tuple[object, ...]


def _events(snapshot: Snapshot, now_ms: int) -> Iterator[tuple[Event, ...]]:
    """Everything that can happen next, one thing at a time; an empty tuple lets time pass."""
    yield ()
    for spec in WORKLOADS:
        state = snapshot.workloads.get(spec.name)
        if state is None or state.outcome is not None:
            yield (declared(spec),)
        else:
            yield (StopRequested(workload=WorkloadName(spec.name)),)
            yield (RemoveRequested(workload=WorkloadName(spec.name)),)
    for name, at_node in snapshot.nodes.sorted_items():
        health = "dead" if at_node.health == "alive" else "alive"
        yield (NodeHealth(node=NodeId(name), health=health),)  # type: ignore[arg-type]  # one of the two
    for _, run in snapshot.runs.sorted_items():
        ranks = [at for at, rank in enumerate(run.ranks) if rank.end is None]
        if run.state is RunState.STARTING:
            yield tuple(RankStarted(run=run.id, rank=at, pid=1, at_ms=now_ms) for at in ranks)
        if run.state is RunState.STOPPING:
            gone = RankExited(run=run.id, rank=0, at_ms=now_ms, exit_code=75, stop_delivered=True)
            yield tuple(replace(gone, rank=at) for at in ranks)
        else:
            yield tuple(RankExited(run=run.id, rank=at, at_ms=now_ms, exit_code=0) for at in ranks)
        for at in ranks:
            yield (RankExited(run=run.id, rank=at, at_ms=now_ms, signal=9),)


def _key(snapshot: Snapshot) -> Key:
    """A state without its times and positions: where everyone stands, and who is before whom."""
    states = snapshot.workloads.sorted_items()
    order = sorted(name for name, _ in states)
    order.sort(key=lambda name: snapshot.workloads[name].declared_at)
    workloads = tuple(
        (
            *(name, state.phase, state.stop_requested, state.removing, min(state.attempts, 3), state.outcome),
            *sorted((kept.node, kept.amount.cpu_milli) for kept in state.reservations),
        )
        for name, state in states
    )
    runs = tuple(
        (run.workload, run.state, run.stop, *((rank.placement.node, bool(rank.end)) for rank in run.ranks))
        for _, run in snapshot.runs.sorted_items()
    )
    nodes = tuple((name, state.health) for name, state in snapshot.nodes.sorted_items())
    return (tuple(order), workloads, runs, nodes)


def _step(snapshot: Snapshot, now_ms: int, events: tuple[Event, ...]) -> Home:
    home = Home.of(snapshot, now_ms)
    home.cycle(*events, after_ms=2_500)
    return home


def _explore(visit: Callable[[Turn], None]) -> tuple[int, set[str]]:
    """Visits every cycle found; how many states there were, and which kinds of decision."""
    home = Home(FLEET)
    seen = {_key(home.snapshot)}
    queue = deque([(home.snapshot, home.now_ms)])
    kinds: set[str] = set()
    while queue and len(seen) < STATES_MAX:
        snapshot, now_ms = queue.popleft()
        before = View(snapshot)
        for events in _events(snapshot, now_ms):
            after = _step(snapshot, now_ms, events)
            turn = Turn(after.cycles[0], before)
            visit(turn)
            kinds |= {type(item).__name__ for item in turn.plan.decisions}
            key = _key(after.snapshot)
            if key in seen:
                continue
            seen.add(key)
            queue.append((after.snapshot, after.now_ms))
    return len(seen), kinds


@pytest.mark.timeout(120)
def test_every_law_holds_in_every_small_story() -> None:
    """Exhaustive up to a bound: all laws at each state that a small alphabet of events can reach."""
    states, kinds = _explore(check_turn)
    assert states >= STATES_MAX
    assert kinds >= {"Admit", "Start", "Stop", "Reserve", "Requeue", "Finish", "Forget", "Hold"}
