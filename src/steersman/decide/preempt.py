"""Who should yield: the victims whose end loses the least work. A part of `schedule`.

Theory of operation. Only runs that can resume, that the quotas let yield (`Book.may_yield`; without queues:
of a lower priority) and that have run for the policy's minimum are considered, on at most `preempt_nodes_max`
nodes that could hold a rank if they were empty: those first where the lowest priorities run. On each node the
cheapest set of victims is sought that makes room for as many ranks as are needed there: by looking at every
subset when there are at most `EXACT_MAX` victims, else by taking the cheapest first and dropping those not
needed in the end. Nodes are then taken by cost per rank until the whole gang has room.

The price of a run is the work since its last checkpoint: milliseconds times millicores of all its ranks,
a device counting as much as `DEVICE_WEIGHT_MILLI` millicores (about what a GPU costs beside a core).
"""

from itertools import combinations
from typing import NamedTuple

from steersman.decide.fit import ranks_in, ranks_on, room, times, will_take
from steersman.decide.quota import Book
from steersman.model.decisions import Reservation
from steersman.model.ids import NodeId, RunId
from steersman.model.queue import Amounts
from steersman.model.snapshot import NodeState, Run, Shape, WorkloadState
from steersman.state.derive import can_yield, node_size, shape_of
from steersman.state.draft import Draft
from steersman.state.lease import without_lease
from steersman.state.usage import added, usage_of

DEVICE_WEIGHT_MILLI = 40_000
EXACT_MAX = 6
LOOKS_MAX = 1_024
"""Nodes looked at for one need, those that could never hold a rank of it included."""


class Yield(NamedTuple):
    """Victims, what is then reserved, and the work lost in core-milliseconds."""

    victims: tuple[RunId, ...]
    reservations: tuple[Reservation, ...]
    lost: int


class _Option(NamedTuple):
    lost: int
    ranks: int
    node: NodeId
    victims: tuple[RunId, ...]


def lost_work(run: Run, now_ms: int) -> int:
    """Core-milliseconds done since the last checkpoint, over all ranks that still run."""
    if run.started_ms is None:
        return 0
    since_ms = max(now_ms - max(run.started_ms, run.saved_ms or 0), 0)
    milli = sum(
        rank.placement.cpu_milli + DEVICE_WEIGHT_MILLI * len(rank.placement.devices)
        for rank in run.ranks
        if rank.end is None
    )
    return since_ms * milli // 1000


def protected_until_ms(run: Run, run_ms_min: int) -> int:
    """Until when the run may not be preempted."""
    return (run.decided_ms if run.started_ms is None else run.started_ms) + run_ms_min


def find(draft: Draft, book: Book, winner: WorkloadState, asked: Amounts) -> tuple[Yield | None, int | None]:
    """The cheapest way to make room, and when a run that is still protected may be asked again."""
    shape = shape_of(winner)
    by_node, wake_ms = _candidates(draft, _Need(book, winner, asked, shape))
    left = shape.num_nodes
    taken: list[_Option] = []
    for node, ranks in room(draft, shape):
        if left and node not in by_node:
            taken.append(_Option(0, min(ranks, left), node, ()))
            left -= taken[-1].ranks
    options = (
        [_cheapest(draft, node, runs, shape, left) for node, runs in sorted(by_node.items())] if left else []
    )
    for option in sorted(filter(None, options), key=lambda item: (item.lost / item.ranks, item.node)):
        if not left:
            break
        fitted = option
        if option.ranks > left:
            smaller = _cheapest(draft, option.node, by_node[option.node], shape, left)
            assert smaller is not None
            fitted = smaller
        taken.append(fitted)
        left -= fitted.ranks
    victims = tuple(sorted({run for option in taken for run in option.victims}))
    if left or len(victims) > draft.policy.preempt_victims_max:
        return None, wake_ms
    if not book.only_borrowed(winner.spec.queue, asked, (draft.runs[run] for run in victims)):
        return None, wake_ms
    lost = sum(lost_work(draft.runs[run], draft.now_ms) for run in victims)
    kept = tuple(
        Reservation(node=option.node, amount=times(shape, option.ranks, _without(draft, option)))
        for option in taken
    )
    return Yield(victims, tuple(sorted(kept, key=lambda item: item.node)), lost), wake_ms


def reclaim(
    draft: Draft, book: Book, winner: WorkloadState, asked: Amounts
) -> tuple[tuple[RunId, ...], int | None]:
    """The cheapest borrowers that give back the quota that lacks, besides who is leaving anyway; none when
    that is not enough. And when a run that is still protected may be asked again."""
    queue, need = book.queues[winner.spec.queue], _Need(book, winner, asked, shape_of(winner))
    back = book.leaving()
    wakes: list[int] = []
    found: list[tuple[int, RunId]] = []
    for name in sorted({run for low, _, run in draft.victims.since(()) if low < book.ceiling(winner)}):
        run = draft.runs[name]
        if run.queue == queue.name or run.queue not in book.queues or not _may_yield(draft, need, run):
            continue
        free_ms = protected_until_ms(run, draft.policy.preempt_run_ms_min)
        if free_ms > draft.now_ms:
            wakes.append(free_ms)
        else:
            found.append((lost_work(run, draft.now_ms), name))
    victims: list[RunId] = []
    for _, name in sorted(found):
        run = draft.runs[name]
        if len(victims) == draft.policy.preempt_victims_max or book.would_fit(queue, asked, back):
            break
        if book.borrows(run.queue, back.get(run.queue, ()), asked):
            victims.append(name)
            back[run.queue] = added(back.get(run.queue, ()), usage_of(run))
    enough = book.would_fit(queue, asked, back)
    return tuple(victims) if enough else (), min(wakes, default=None)


class _Need(NamedTuple):
    """Who asks for room, and what the quotas say to it."""

    book: Book
    winner: WorkloadState
    asked: Amounts
    shape: Shape


def _may_yield(draft: Draft, need: _Need, run: Run) -> bool:
    owner = draft.workloads[run.workload]
    return can_yield(owner, run) and need.book.may_yield(need.winner, need.asked, run, owner)


def _candidates(draft: Draft, need: _Need) -> tuple[dict[NodeId, list[RunId]], int | None]:
    """Per node everyone who may yield there, and when someone protected there may be asked again."""
    by_node: dict[NodeId, list[RunId]] = {}
    wakes: list[int] = []
    seen: set[NodeId] = set()
    ceiling = need.book.ceiling(need.winner)
    for low, node, _ in draft.victims.since(()):
        if low >= ceiling or len(by_node) >= draft.policy.preempt_nodes_max or len(seen) >= LOOKS_MAX:
            break
        if node in seen:
            continue
        seen.add(node)
        state = draft.nodes[node]
        size = node_size(state)
        if size is None or not will_take(state, need.shape) or not ranks_in(*size[:3], need.shape):
            continue
        runs, wake_ms = _yielding(draft, state, need)
        wakes += [] if wake_ms is None else [wake_ms]
        if runs:
            by_node[node] = runs
    return by_node, min(wakes, default=None)


def _yielding(draft: Draft, state: NodeState, need: _Need) -> tuple[list[RunId], int | None]:
    """The runs of a node that may yield now, and when the first of those still protected may."""
    runs: list[RunId] = []
    wakes: list[int] = []
    for name in sorted({run for run, _ in state.leases}):
        run = draft.runs.get(name)
        if run is None:
            continue  # it began in this very cycle: its turn came before
        if not _may_yield(draft, need, run):
            continue
        free_ms = protected_until_ms(run, draft.policy.preempt_run_ms_min)
        if free_ms > draft.now_ms:
            wakes.append(free_ms)
        else:
            runs.append(name)
    return runs, min(wakes, default=None)


def _cheapest(draft: Draft, node: NodeId, runs: list[RunId], shape: Shape, ranks: int) -> _Option | None:
    """The cheapest victims on a node that make room for `ranks` ranks, or for as many as can be."""
    state = draft.nodes[node]
    possible = _ranks_after(draft, state, tuple(runs), shape)
    ranks = min(ranks, possible)
    if ranks < 1:
        return None
    prices = {run: lost_work(draft.runs[run], draft.now_ms) for run in runs}
    ordered = sorted(runs, key=lambda run: (prices[run], run))
    chosen = _exact(draft, state, ordered, shape, ranks) if len(runs) <= EXACT_MAX else None
    if chosen is None:
        chosen = _greedy(draft, state, ordered, shape, ranks)
    return _Option(sum(prices[run] for run in chosen), ranks, node, chosen)


def _exact(
    draft: Draft, state: NodeState, runs: list[RunId], shape: Shape, ranks: int
) -> tuple[RunId, ...] | None:
    subsets = [chosen for size in range(len(runs) + 1) for chosen in combinations(runs, size)]
    prices = {run: lost_work(draft.runs[run], draft.now_ms) for run in runs}
    subsets.sort(key=lambda chosen: (sum(prices[run] for run in chosen), len(chosen), chosen))
    return next((chosen for chosen in subsets if _ranks_after(draft, state, chosen, shape) >= ranks), None)


def _greedy(draft: Draft, state: NodeState, runs: list[RunId], shape: Shape, ranks: int) -> tuple[RunId, ...]:
    chosen: list[RunId] = []
    for run in runs:
        if _ranks_after(draft, state, tuple(chosen), shape) >= ranks:
            break
        chosen.append(run)
    for run in reversed(chosen.copy()):
        without = tuple(other for other in chosen if other != run)
        if _ranks_after(draft, state, without, shape) >= ranks:
            chosen.remove(run)
    return tuple(chosen)


def _without(draft: Draft, option: _Option) -> NodeState:
    """The node of an option once its victims are gone."""
    return _after(draft, draft.nodes[option.node], option.victims)


def _after(draft: Draft, state: NodeState, victims: tuple[RunId, ...]) -> NodeState:
    for run in victims:
        for rank in draft.runs[run].ranks:
            if rank.placement.node == state.node.id and rank.end is None:
                state = without_lease(state, rank.placement)
    return state


def _ranks_after(draft: Draft, state: NodeState, victims: tuple[RunId, ...], shape: Shape) -> int:
    """How many ranks the node could hold once these runs are gone from it."""
    return ranks_on(_after(draft, state, victims), shape)
