"""Every story of a small world: three nodes, three workloads, four faults, each state once, all laws at each.

    python -m tests.properties.small_scope [--states N]

Theory: most bugs show in small worlds if all of it is looked at. Breadth first from an empty home, every
event of a small alphabet is tried in every state, decided on by the real deciders and folded by the real
fold, and the laws are asked of what it leads to; states that differ only in times and positions count as
one. A story that breaks a law is the shortest that does. The search ends at a fixed number of states, so that
it is the same search every time. The faults: a node is dead, a rank is killed, nobody can tell whether a rank
lives, the control plane is another one and has the state from an image.

The whole engine goes through such a world, with faults of the driver and the journal, in
`tests.sim.small_world`.
"""

import argparse
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from traceback import extract_tb

from msgspec.structs import replace
from tests.properties.checkers import check_turn
from tests.properties.counting import Turn, View
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node

from steersman.model.events import (
    ControlPlaneStarted,
    Event,
    NodeHealth,
    RankExited,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    StopRequested,
)
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.state.image import decode_image, encode_image

WORKLOADS = (
    job("low", cores=2, checkpoint=RESUMABLE),
    job("gang", cores=1, ranks=2, priority=5, checkpoint=RESUMABLE),
    job("top", cores=2, gpus=(("A100", 1),), priority=9),
)
FLEET = fleet(node("a", cores=2, devices=["A100"]), node("b", cores=2), node("c", cores=1))
AFTER_MS = 2_500
FAULTS = ("dead", "killed", "unknown", "another")

Story = tuple[str, ...]
Letter = tuple[str, tuple[Event, ...]]


class Broken(AssertionError):
    """A law does not hold at the end of a story; the message tells the story."""


def _letters(snapshot: Snapshot, now_ms: int) -> Iterator[Letter]:
    """Everything that can happen next, one thing at a time; no event at all lets time pass."""
    yield "time passes", ()
    yield "another control plane", (ControlPlaneStarted(epoch=snapshot.epoch + 1, build="", boot_id=""),)
    for spec in WORKLOADS:
        state = snapshot.workloads.get(spec.name)
        if state is None or state.outcome is not None:
            yield f"up {spec.name}", (declared(spec),)
        else:
            yield f"stop {spec.name}", (StopRequested(workload=WorkloadName(spec.name)),)
            yield f"down {spec.name}", (RemoveRequested(workload=WorkloadName(spec.name)),)
    for name, at_node in snapshot.nodes.sorted_items():
        if at_node.health == "alive":
            yield f"dead {name}", (NodeHealth(node=NodeId(name), health="dead"),)
        else:
            yield f"alive {name}", (NodeHealth(node=NodeId(name), health="alive"),)
    for _, run in snapshot.runs.sorted_items():
        yield from _of_run(run, now_ms)


def _of_run(run: Run, now_ms: int) -> Iterator[Letter]:
    ranks = [at for at, rank in enumerate(run.ranks) if rank.end is None]
    name = run.workload
    if run.state is RunState.STARTING:
        yield f"begun {name}", tuple(RankStarted(run=run.id, rank=at, pid=1, at_ms=now_ms) for at in ranks)
    if run.state is RunState.STOPPING:
        gone = RankExited(run=run.id, rank=0, at_ms=now_ms, exit_code=75, stop_delivered=True)
        yield f"yielded {name}", tuple(replace(gone, rank=at) for at in ranks)
    else:
        yield (
            f"done {name}",
            tuple(RankExited(run=run.id, rank=at, at_ms=now_ms, exit_code=0) for at in ranks),
        )
    for at in ranks:
        yield f"killed {name}/{at}", (RankExited(run=run.id, rank=at, at_ms=now_ms, signal=9),)
        if not run.ranks[at].unknown:
            yield f"unknown {name}/{at}", (RankUnknown(run=run.id, rank=at),)


def _key(snapshot: Snapshot) -> object:
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
        (
            *(run.workload, run.state, run.stop),
            *((rank.placement.node, bool(rank.end), rank.unknown) for rank in run.ranks),
        )
        for _, run in snapshot.runs.sorted_items()
    )
    nodes = tuple((name, state.health) for name, state in snapshot.nodes.sorted_items())
    return (tuple(order), workloads, runs, nodes)


def _step(snapshot: Snapshot, now_ms: int, letter: Letter) -> Home:
    if letter[0].startswith("another"):
        image = decode_image(encode_image(snapshot))
        assert image == snapshot
        assert image is not None
        snapshot = image
    home = Home.of(snapshot, now_ms)
    home.cycle(*letter[1], after_ms=AFTER_MS)
    return home


class Explored:
    """What a search has seen. `whole` is the length of the stories of which it has seen all."""

    def __init__(self) -> None:
        self.states = 1
        self.turns = 0
        self.whole = 0
        self.decided: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def note(self, word: str, turn: Turn) -> None:
        """Count a turn."""
        self.turns += 1
        self.decided.update(type(item).__name__ for item in turn.plan.decisions)
        if word.split()[0] in FAULTS:
            self.faults[word.split()[0]] += 1


def explore(states_max: int, visit: Callable[[Turn], None] = check_turn) -> Explored:
    """Visit every cycle until so many states were found. Raises Broken by the shortest story there is."""
    home, found = Home(FLEET), Explored()
    seen = {_key(home.snapshot)}
    queue: deque[tuple[Snapshot, int, Story]] = deque([(home.snapshot, home.now_ms, ())])
    while queue and found.states < states_max:
        snapshot, now_ms, story = queue.popleft()
        before, found.whole = View(snapshot), len(story)
        for letter in _letters(snapshot, now_ms):
            try:
                after = _step(snapshot, now_ms, letter)
                turn = Turn(after.cycles[0], before)
                visit(turn)
            except AssertionError as error:
                law = extract_tb(error.__traceback__)[-1].name
                raise Broken(f"{', '.join((*story, letter[0]))}: {law}: {error}") from error
            found.note(letter[0], turn)
            key = _key(after.snapshot)
            if key not in seen:
                seen.add(key)
                found.states += 1
                queue.append((after.snapshot, after.now_ms, (*story, letter[0])))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Search further than the tests do, and say what was looked at."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.properties.small_scope", description="all laws in every state of a small world"
    )
    parser.add_argument("--states", type=int, default=12_000, help="stop at so many states")
    asked = parser.parse_args(argv)
    try:
        found = explore(asked.states)
    except Broken as broken:
        print(f"broken by: {broken}")
        return 1
    print(f"{found.states} states by {found.turns} turns; every story of up to {found.whole} letters")
    for kind, counted in (("decided", found.decided), ("faults", found.faults)):
        print(f"{kind}:", *(f"{name} {count}" for name, count in sorted(counted.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
