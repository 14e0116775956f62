"""A home counted again from its base tables, in the plainest way, for `checkers`; and the brute-force search.

Theory: nothing here is shared with what is checked, but the nouns and `fold`, which is used to look between
two decisions of one plan.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations

from tests.properties.sharing import books, is_part, part_fits, wants_part
from tests.scenarios.home import Cycle

from steersman.model.decisions import Placement, Reservation
from steersman.model.events import Decided
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import NodeState, RankState, Run, RunState, Snapshot, WorkloadState
from steersman.state.fold import fold

VICTIMS_MAX = 6
"""Up to so many victims on a node the choice is promised to be the cheapest."""

Amounts = dict[str, int]


class View:
    """A snapshot laid open: its base tables as plain dicts in order of key."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.now_ms = snapshot.now_ms
        self.policy = snapshot.policy
        self.workloads = dict(snapshot.workloads.sorted_items())
        self.runs = dict(snapshot.runs.sorted_items())
        self.nodes = dict(snapshot.nodes.sorted_items())
        self.services = dict(snapshot.services.sorted_items())


class Turn:
    """A cycle laid open."""

    def __init__(self, cycle: Cycle, before: View) -> None:
        self.cycle = cycle
        self.plan = cycle.plan
        self.batch = cycle.batch
        self.before = before
        self.seen = View(cycle.seen)
        self.after = self.seen if cycle.after is cycle.seen else View(cycle.after)

    def at(self, count: int) -> View:
        """The state after the first so many decisions of the plan."""
        if not count:
            return self.seen
        event = Decided(observed_at=self.cycle.seen.observed_at, decisions=self.plan.decisions[:count])
        return View(fold(self.cycle.seen, [(self.cycle.seen.position + 1, event)]))


def live_ranks(snapshot: View) -> Iterator[tuple[Run, int, RankState]]:
    """Every rank that has not ended, by run and rank."""
    for run in snapshot.runs.values():
        for at, rank in enumerate(run.ranks):
            if rank.end is None:
                yield run, at, rank


def capacity(node: NodeState) -> Amounts:
    """What a node has: cores, memory, devices of each kind."""
    amounts = {"cpu": node.node.cpu_milli, "memory": node.node.memory_bytes}
    for device in node.node.devices:
        amounts[device.kind] = amounts.get(device.kind, 0) + 1
    return amounts


def held(node: NodeState, placement: Placement) -> Amounts:
    """What a lease takes of its node; of devices only whole ones (`shares_fit` looks at parts)."""
    kinds = {device.id: device.kind for device in node.node.devices}
    amounts = {"cpu": placement.cpu_milli, "memory": placement.memory_bytes}
    for device in () if is_part(placement) else placement.devices:
        if device in kinds:
            amounts[kinds[device]] = amounts.get(kinds[device], 0) + 1
    return amounts


def add(into: Amounts, what: Amounts, sign: int = 1) -> Amounts:
    for key, amount in what.items():
        into[key] = into.get(key, 0) + sign * amount
    return into


def used(snapshot: View, name: NodeId, *, leaving: bool = True) -> Amounts:
    """What is leased of a node; without the runs that are on their way out when `leaving` is False."""
    total: Amounts = {}
    for run, _, rank in live_ranks(snapshot):
        if rank.placement.node == name and (leaving or run.state is not RunState.STOPPING):
            add(total, held(snapshot.nodes[name], rank.placement))
    return total


def reserved(snapshot: View, name: NodeId, *, but: str = "", only: Code | None = None) -> Amounts:
    """What is kept of a node for workloads other than `but`, for that reason; of devices only whole ones."""
    total: Amounts = {}
    for key, state in snapshot.workloads.items():
        for kept in state.reservations:
            told = only is None or (state.reason is not None and state.reason.code is only)
            if kept.node == name and key != but and told:
                amount = kept.amount
                whole = {} if amount_is_part(kept) else dict(amount.accelerators)
                add(total, {"cpu": amount.cpu_milli, "memory": amount.memory_bytes, **whole})
    return total


def asked(state: WorkloadState) -> Amounts:
    """What one rank asks for; of devices only whole ones."""
    amount = state.spec.resources
    whole = {} if wants_part(state) else dict(amount.accelerators)
    return {"cpu": amount.cpu_milli, "memory": amount.memory_bytes, **whole}


def room_on(snapshot: View, name: NodeId, whose: str, gone: Iterable[Run] = ()) -> int:
    """How many ranks of a workload the node has room for, once some runs are gone; of parts one at most."""
    state, node = snapshot.workloads[whose], snapshot.nodes[name]
    left = {run.id for run in gone}
    free, taken = free_of(snapshot, name, whose), used(snapshot, name)
    for run, _, rank in live_ranks(snapshot):
        if rank.placement.node == name and run.id in left:
            add(free, held(node, rank.placement))
            add(taken, held(node, rank.placement), -1)
    if any(taken.get(what, 0) > capacity(node)[what] for what in ("cpu", "memory")):
        return 0  # it has shrunk
    most = fits(_by_asked_kinds(free, state), asked(state))
    staying = [
        rank.placement
        for run, _, rank in live_ranks(snapshot)
        if rank.placement.node == name and run.id not in left
    ]
    if not state.spec.resources.accelerators:
        return most
    made = books(node, staying)
    kept = [item for key, one in snapshot.workloads.items() if key != whose for item in one.reservations]
    promised = any(item.node == name and amount_is_part(item) for item in kept)
    if wants_part(state):
        return (
            0
            if promised or any(item.node == name and item.amount.accelerators for item in kept)
            else (min(most, 1) if part_fits(node, made, state) else 0)
        )
    if promised:
        return 0
    for key in list(free):
        if key not in {"cpu", "memory"}:
            shared = sum(1 for book in made.values() if book.kind == key and (book.milli or book.slices))
            free[key] -= shared
    return fits(_by_asked_kinds(free, state), asked(state))


def amount_is_part(kept: Reservation) -> bool:
    return kept.amount.device_milli < 1000 or kept.amount.mig_profile != ""


def _by_asked_kinds(free: Amounts, state: WorkloadState) -> Amounts:
    """Alternatives hold as many ranks as each of their kinds holds."""
    merged = dict(free)
    for kinds, count in state.spec.resources.accelerators:
        if "|" in kinds:
            merged[kinds] = sum(max(free.get(kind, 0), 0) // count * count for kind in kinds.split("|"))
    return merged


def fits(free: Amounts, want: Amounts) -> int:
    """How many times `want` goes into `free`; 99 when it asks for nothing."""
    return max(min((free.get(key, 0) // n for key, n in want.items() if n), default=99), 0)


def free_of(snapshot: View, name: NodeId, but: str) -> Amounts:
    """What is free of a node for a workload, which may use what is kept for it."""
    node = snapshot.nodes[name]
    free = capacity(node)
    taken, kept = used(snapshot, name), reserved(snapshot, name, but=but)
    for key in free:
        free[key] -= taken.get(key, 0)
        if key not in {"cpu", "memory"}:  # what is kept may still be leased: then nothing is free
            free[key] = max(free[key] - kept.get(key, 0), 0)
        else:
            free[key] -= kept.get(key, 0)
    return free


def usable(node: NodeState) -> bool:
    return node.declared and node.health == "alive"


def lost_work(run: Run, now_ms: int) -> int:
    """Work since the last checkpoint, in core-milliseconds; a device counts as forty cores."""
    if run.started_ms is None:
        return 0
    since = max(run.started_ms, run.saved_ms or run.started_ms)
    milli = sum(
        rank.placement.cpu_milli + 40_000 * len(rank.placement.devices)
        for rank in run.ranks
        if rank.end is None
    )
    return max(now_ms - since, 0) * milli // 1_000


def may_yield(snapshot: View, run: Run, priority: int) -> bool:
    """Whether a run may be asked to yield to a priority now."""
    state = snapshot.workloads[run.workload]
    begun = run.decided_ms if run.started_ms is None else run.started_ms
    return (
        run.state in {RunState.STARTING, RunState.RUNNING}
        and state.spec.body.checkpoint.enabled
        and state.spec.priority < priority
        and snapshot.now_ms >= begun + snapshot.policy.preempt_run_ms_min
    )


def cheapest_by_brute_force(snapshot: View, name: str) -> int | None:
    """The least work lost to make room for a one-rank workload on one node; None when nobody may yield.

    Nodes with more victims than are promised an exact answer make the whole question void (-1).
    """
    state = snapshot.workloads[name]
    best: int | None = None
    for key, node in snapshot.nodes.items():
        if not usable(node):
            continue
        here = sorted({run.id for run, _, rank in live_ranks(snapshot) if rank.placement.node == key})
        runs = [snapshot.runs[run] for run in here]
        runs = [run for run in runs if may_yield(snapshot, run, state.spec.priority)]
        if len(runs) > VICTIMS_MAX:
            return -1
        for size in range(len(runs) + 1):
            for chosen in combinations(runs, size):
                if room_on(snapshot, NodeId(key), name, chosen) >= 1:
                    price = sum(lost_work(run, snapshot.now_ms) for run in chosen)
                    best = price if best is None else min(best, price)
    return best
