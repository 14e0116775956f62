"""When room comes free: which nodes a gang gets, and when at the latest. A part of `schedule`.

Theory of operation. `by_time` walks the ends of live runs that are known, the soonest first, and gives the
room of each back in a scratch copy, by the rules of `fit`, until the whole gang fits in one place that its
topology allows (EASY's shadow time: D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; A. Mu'alem and
D. Feitelson, IEEE TPDS 12(6), 2001). Of the nodes that have room by then those are taken where it comes last,
so that what is free now stays open to others.

`by_draining` is for ends that nobody knows: the nodes on which the fewest ranks have to end, and those that
something holds which never ends by itself (a replica, the gateway) only when the others do not suffice.

Runs that began in this very cycle are not in the tables yet; who calls hands them in.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from steersman.decide.fit import Chosen, ranks_in, ranks_on, room, times, wants_part, will_take
from steersman.model.decisions import Placement, Reservation, Start
from steersman.model.ids import NodeId, RunId
from steersman.model.resources import WHOLE_MILLI
from steersman.model.snapshot import NodeState, RunState, Shape, WorkloadState
from steersman.state.derive import finish_ms, node_size
from steersman.state.draft import Draft
from steersman.state.lease import without_lease

RANKS_LOOKED_MAX = 2_048
"""Ranks whose end is followed in one walk: some tens of milliseconds. Who needs more is told no time."""
NODES_LOOKED_MAX = 1_024
"""Nodes looked at for one drain, besides those that could never hold a rank."""
SEALED_MILLI = WHOLE_MILLI - 1
"""A reservation of less than whole devices closes all devices of its node to others."""


class Begun(NamedTuple):
    """A run that starts in this cycle: its leases, by when it ends, and whether it ever does by itself."""

    placements: tuple[Placement, ...]
    end_ms: int | None
    ends: bool


Started = Mapping[RunId, Begun]


class Lease(NamedTuple):
    """A lease of a node: by when it ends (None: nobody knows), whether it does by itself, and since when."""

    run: RunId
    placement: Placement
    end_ms: int | None
    ends: bool
    since_ms: int


class Coming(NamedTuple):
    """The room that a gang gets, and by when it is there; None: nobody knows."""

    until_ms: int | None
    kept: tuple[Reservation, ...]


def latest_end_ms(state: WorkloadState, now_ms: int) -> int | None:
    """By when a workload that starts now has ended; None: nobody knows."""
    job = state.spec.body
    return None if job.max_duration_ms is None else now_ms + job.max_duration_ms + job.stop_grace_ms


def begun(state: WorkloadState, start: Start, now_ms: int) -> Begun:
    """What is known of a run that starts now."""
    return Begun(start.placements, latest_end_ms(state, now_ms), state.spec.body.program == "command")


def by_time(draft: Draft, shape: Shape, started: Started) -> Coming | None:
    """Where and when at the latest a shape fits that does not fit now; None when the known ends do not do."""
    rooms = _Rooms(draft, shape)
    looked = 0
    for end_ms, places in _ends(draft, started):
        for place in places:
            looked += 1
            found = rooms.free(place, end_ms)
            if found is not None:
                return Coming(end_ms, _kept(draft, shape, found, rooms.nodes))
        if looked >= RANKS_LOOKED_MAX:
            break
    return None


def _ends(draft: Draft, started: Started) -> Iterator[tuple[int, tuple[Placement, ...]]]:
    """By when runs end, and the leases that come free: the soonest first."""
    known = [(item.end_ms, run, item.placements) for run, item in started.items() if item.end_ms is not None]
    for count, (_, name) in enumerate(draft.ends.since(())):
        if count >= RANKS_LOOKED_MAX:
            break
        run = draft.runs[RunId(name)]
        end_ms = finish_ms(draft.workloads[run.workload], run, draft.now_ms)
        if end_ms is not None:
            places = tuple(rank.placement for rank in run.ranks if rank.end is None)
            known.append((end_ms, run.id, places))
    for end_ms, _, places in sorted(known, key=lambda item: item[:2]):
        yield end_ms, places


class _Rooms:
    """How many ranks of a shape each node holds, since when, and together in each place that will do."""

    def __init__(self, draft: Draft, shape: Shape) -> None:
        self._draft, self._shape = draft, shape
        self.nodes: dict[NodeId, NodeState] = {}
        self._ranks: dict[NodeId, tuple[int, int]] = {}  # since when it holds how many
        self._sums: dict[tuple[str, ...], int] = {}
        for node, ranks in room(draft, shape):
            self._count(node, draft.now_ms, ranks)

    def free(self, place: Placement, at_ms: int) -> list[Chosen] | None:
        """A lease comes free; the nodes of the whole gang if it fits from then on."""
        node = place.node
        state = self.nodes.get(node) or self._draft.nodes[node]
        if not could_hold(state, self._shape):
            return None
        self.nodes[node] = state = without_lease(state, place)
        where = self._count(node, at_ms, ranks_on(state, self._shape))
        return None if self._sums[where] < self._shape.num_nodes else self._choose(where)

    def _count(self, node: NodeId, at_ms: int, ranks: int) -> tuple[str, ...]:
        where = place_of(self._draft.nodes[node], self._shape)
        since_ms, before = self._ranks.get(node, (at_ms, 0))
        if ranks > before:
            since_ms = at_ms
        self._ranks[node] = (since_ms, ranks)
        self._sums[where] = self._sums.get(where, 0) + ranks - before
        return where

    def _choose(self, where: tuple[str, ...]) -> list[Chosen]:
        """Nodes of a place, those where the room comes last before the others."""
        nodes = self._draft.nodes
        there = [
            (-since_ms, node, ranks)
            for node, (since_ms, ranks) in self._ranks.items()
            if ranks and place_of(nodes[node], self._shape) == where
        ]
        return fill(((node, ranks) for _, node, ranks in sorted(there)), self._shape.num_nodes)


def place_of(state: NodeState, shape: Shape) -> tuple[str, ...]:
    """Which ranks count together: those on one node, in one zone, or all."""
    if shape.topology == "node":
        return (state.node.id,)
    return (state.node.site, state.node.zone) if shape.topology == "zone" else ()


def fill(rooms: Iterable[tuple[NodeId, int]], left: int) -> list[Chosen]:
    """So many ranks, on the first nodes that have room."""
    chosen: list[Chosen] = []
    for node, ranks in rooms:
        if left:
            chosen.append(Chosen(node, min(ranks, left)))
            left -= chosen[-1].ranks
    return chosen


def could_hold(state: NodeState, shape: Shape) -> bool:
    """Whether the node would take a rank of the shape if it were empty."""
    size = node_size(state)
    return size is not None and will_take(state, shape) and ranks_in(*size[:3], shape) > 0


def by_draining(draft: Draft, shape: Shape, started: Started) -> Coming | None:
    """The nodes to keep for a shape where nobody knows when they come free; None when they do not suffice."""
    nodes = (draft.nodes[name] for name in draft.node_ids())
    busy = [(len(node.leases), node.used_cpu_milli, node.node.id) for node in nodes]
    looked: list[NodeId] = []
    for *_, name in sorted(busy):
        if could_hold(draft.nodes[name], shape):
            looked.append(name)
        if len(looked) >= NODES_LOOKED_MAX:
            break
    for all_gone in (False, True):
        places: dict[tuple[str, ...], list[tuple[NodeId, int]]] = {}
        sums: dict[tuple[str, ...], int] = {}
        freed: dict[NodeId, NodeState] = {}
        for name in looked:
            freed[name] = drained(draft, started, draft.nodes[name], all_gone=all_gone)
            ranks, where = ranks_on(freed[name], shape), place_of(freed[name], shape)
            places.setdefault(where, []).append((name, ranks))
            sums[where] = sums.get(where, 0) + ranks
            if sums[where] >= shape.num_nodes:
                rooms = ((node, ranks) for node, ranks in places[where] if ranks)
                return Coming(None, _kept(draft, shape, fill(rooms, shape.num_nodes), freed))
    return None


def drained(draft: Draft, started: Started, state: NodeState, *, all_gone: bool = False) -> NodeState:
    """The node once everything there has ended that ends by itself, or everything."""
    for lease in leases_of(draft, started, state):
        if lease.ends or all_gone:
            state = without_lease(state, lease.placement)
    return state


def leases_of(draft: Draft, started: Started, state: NodeState) -> Iterator[Lease]:
    """The leases of a node."""
    for name, rank in state.leases:
        item = started.get(name)
        if item is not None:
            yield Lease(name, item.placements[rank], item.end_ms, item.ends, draft.now_ms)
            continue
        run = draft.runs[name]
        owner = draft.workloads[run.workload]
        ends = owner.spec.body.program == "command" or run.state is RunState.STOPPING
        end_ms = finish_ms(owner, run, draft.now_ms)
        yield Lease(name, run.ranks[rank].placement, end_ms, ends, run.decided_ms)


def _kept(
    draft: Draft, shape: Shape, chosen: list[Chosen], after: Mapping[NodeId, NodeState]
) -> tuple[Reservation, ...]:
    """What is kept of each node. Where parts of devices are leased, nobody may join them: they would never
    come free whole."""
    kept: list[Reservation] = []
    for node, ranks in sorted(chosen):
        amount = times(shape, ranks, after.get(node) or draft.nodes[node])
        if amount.accelerators and draft.nodes[node].shares and not wants_part(shape):
            amount = replace(amount, device_milli=SEALED_MILLI)
        kept.append(Reservation(node=node, amount=amount))
    return tuple(kept)
