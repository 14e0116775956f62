"""The next snapshot in the making: the only place where a table of a snapshot is edited.

Theory of operation. A draft opens editors over the base tables of one snapshot. Records go in through
`put_workload`, `put_run` and `put_node`, which compare the index entries of the old and the new record and
edit the indexes by the difference, so an index cannot be forgotten. Reading through a draft sees what was
put. Index editors are opened when first needed: a batch copies only what it touches.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from steersman.model.ids import NodeId, QueueName, WorkloadName
from steersman.model.packing import Packing, PackingUpdate
from steersman.model.queue import Amounts
from steersman.model.snapshot import (
    Indexes,
    Line,
    NodeSize,
    NodeState,
    Run,
    Shape,
    Signature,
    Snapshot,
    WorkloadState,
)
from steersman.model.table import Entry, SortedSeq, SortedSeqEditor
from steersman.state.derive import WorkloadEntries, node_entry, node_size, part_entries, workload_entries
from steersman.state.packing import arrive, update
from steersman.state.usage import settled


class _Lazy:
    """A sorted index that is copied when it is first edited."""

    __slots__ = ("_base", "_editor")

    def __init__(self, base: SortedSeq) -> None:
        self._base = base
        self._editor: SortedSeqEditor | None = None

    def swap(self, before: Entry | None, after: Entry | None) -> None:
        if before == after:
            return
        if self._editor is None:
            self._editor = self._base.edit()
        if before is not None:
            self._editor.remove(before)
        if after is not None:
            self._editor.add(after)

    def since(self, entry: Entry) -> Iterator[Entry]:
        return (self._editor or self._base).since(entry)

    def first(self) -> Entry | None:
        return (self._editor or self._base).first()

    def freeze(self) -> SortedSeq:
        return self._base if self._editor is None else self._editor.freeze()


K = TypeVar("K", Shape, Line, Signature)


class _Family(Generic[K]):
    """Sorted indexes by key; an empty one is left out of the result."""

    __slots__ = ("_members", "orders")

    def __init__(self, base: dict[K, SortedSeq]) -> None:
        self.orders: dict[Signature, list[K]] = {}  # what `fit` worked out of the keys; gone when they change
        self._members: dict[K, _Lazy] = {key: _Lazy(seq) for key, seq in base.items()}

    def swap(self, before: tuple[K, Entry] | None, after: tuple[K, Entry] | None) -> None:
        if before == after:
            return
        if before is not None:
            left = self._members[before[0]]
            left.swap(before[1], None)
            if left.first() is None:
                self.orders.clear()
        if after is not None:
            joined = self._members.setdefault(after[0], _Lazy(SortedSeq()))
            if joined.first() is None:
                self.orders.clear()
            joined.swap(None, after[1])

    def ordered(self) -> list[K]:
        """All keys that have entries, in order."""
        return sorted(key for key, member in self._members.items() if member.first() is not None)

    def __bool__(self) -> bool:
        return any(member.first() is not None for member in self._members.values())

    def member(self, key: K) -> _Lazy:
        return self._members[key]

    def freeze(self) -> dict[K, SortedSeq]:
        frozen = ((key, self._members[key].freeze()) for key in sorted(self._members))
        return {key: seq for key, seq in frozen if seq}


class _Held:
    """Amounts by queue; those of a queue are copied when they are first changed."""

    __slots__ = ("_base", "_open")

    def __init__(self, base: dict[QueueName, Amounts]) -> None:
        self._base = base
        self._open: dict[QueueName, dict[str, int]] = {}

    def add(self, queue: QueueName, amounts: Amounts, sign: int) -> None:
        if not amounts:
            return
        held = self._open.get(queue)
        if held is None:
            held = self._open[queue] = dict(self._base.get(queue, ()))
        for resource, amount in amounts:
            held[resource] = held.get(resource, 0) + sign * amount

    def get(self, queue: QueueName) -> Amounts:
        held = self._open.get(queue)
        if held is None:
            return self._base.get(queue, ())
        return tuple(sorted((resource, amount) for resource, amount in held.items() if amount))

    def freeze(self) -> dict[QueueName, Amounts]:
        if not self._open:
            return self._base
        found = ((queue, self.get(queue)) for queue in sorted(self._base.keys() | self._open.keys()))
        return {queue: held for queue, held in found if held}


class Draft:
    """A snapshot being changed. One owner; `freeze` ends it."""

    def __init__(self, base: Snapshot) -> None:
        indexes = base.indexes
        self._base = base
        self.now_ms = base.now_ms
        self.position = base.position
        self.observed_at = base.observed_at
        self.home_id = base.home_id
        self.epoch = base.epoch
        self.policy = base.policy
        self.fleet_name = base.fleet_name
        self.clusters = base.clusters
        self.workloads = base.workloads.edit()
        self.runs = base.runs.edit()
        self.nodes = base.nodes.edit()
        self.services = base.services.edit()
        self.pools = base.pools
        self.spot = base.spot
        self.queues = dict(base.queues)
        self.gateway = base.gateway
        self.keys = base.keys
        self._packing = base.packing
        self.durations = base.durations
        self._admitted: list[Shape] = []
        self.touched: set[NodeId] = set()
        self.attention = _Lazy(indexes.attention)
        self.held = _Lazy(indexes.held)
        self.victims = _Lazy(indexes.victims)
        self.timers = _Lazy(indexes.timers)
        self.live = _Lazy(indexes.live)
        self.parts = _Lazy(indexes.parts)
        self.foreseen = _Lazy(indexes.foreseen)
        self.choosers = _Lazy(indexes.choosers)
        self.ends = _Lazy(indexes.ends)
        self.kept = _Lazy(indexes.kept)
        self.pending: _Family[Shape] = _Family(indexes.pending)
        self.capacity: _Family[Signature] = _Family(indexes.capacity)
        self.sizes = dict(indexes.sizes)
        self.usage = _Held(indexes.usage)
        self.leaving = _Held(indexes.leaving)
        self.lines: _Family[Line] = _Family(indexes.lines)
        self.dependents = indexes.dependents.edit()

    def admit(self, shape: Shape) -> None:
        """Count a workload that was admitted."""
        self._admitted.append(shape)

    def learn(self, packing: PackingUpdate) -> None:
        """What a cycle learned for packing takes effect."""
        self._packing = update(self.packing(), packing)

    def packing(self) -> Packing:
        """What work has asked for so far."""
        if self._admitted:
            self._packing, self._admitted = arrive(self._packing, self._admitted), []
        return self._packing

    def node_ids(self) -> list[NodeId]:
        """All nodes, sorted: O(nodes), for a new fleet."""
        return [NodeId(key) for key, _ in self.nodes.sorted_items()]

    def run_of(self, state: WorkloadState) -> Run | None:
        """The run a workload points at."""
        return None if state.run is None else self.runs[state.run]

    def put_workload(self, name: WorkloadName, state: WorkloadState | None, run: Run | None) -> None:
        """Set a workload and its current run together; `run` must be the one `state` points at."""
        assert (None if run is None else run.id) == (None if state is None else state.run), name
        old = self.workloads.get(name)
        old_run = None if old is None else self.run_of(old)
        before, after = workload_entries(old, old_run), workload_entries(state, run)
        self._swap(name, before, after)
        if state is None:
            del self.workloads[name]
        else:
            self.workloads[name] = state
        if old_run is not None and (run is None or run.id != old_run.id):
            del self.runs[old_run.id]
        if run is not None:
            self.runs[run.id] = run
        if old is None or state is None or old.spec is not state.spec:
            self._link(name, old, state)

    def put_run(self, run: Run) -> None:
        """Set the current run of its workload."""
        self.put_workload(run.workload, self.workloads[run.workload], run)

    def put_node(self, node: NodeId, state: NodeState | None) -> None:
        """Set or take away a node."""
        self.touched.add(node)
        old = self.nodes.get(node)
        self.capacity.swap(node_entry(old), node_entry(state))
        self._swap_all(self.parts, part_entries(old), part_entries(state))
        self._count_size(node_size(old), -1)
        self._count_size(node_size(state), 1)
        if state is None:
            del self.nodes[node]
        else:
            self.nodes[node] = state

    def _count_size(self, size: NodeSize | None, by: int) -> None:
        if size is not None:
            self.sizes[size] = self.sizes.get(size, 0) + by
            if not self.sizes[size]:
                del self.sizes[size]

    def _swap(self, name: WorkloadName, before: WorkloadEntries, after: WorkloadEntries) -> None:
        if before == after:
            return
        self.attention.swap((name,) if before.attention else None, (name,) if after.attention else None)
        self.held.swap((name,) if before.held else None, (name,) if after.held else None)
        self.live.swap(before.live, after.live)
        self.ends.swap(before.ends, after.ends)
        self.kept.swap((name,) if before.kept else None, (name,) if after.kept else None)
        self.choosers.swap((name,) if before.chooser else None, (name,) if after.chooser else None)
        self.pending.swap(before.pending, after.pending)
        self.lines.swap(before.line, after.line)
        self._charge(before, after)
        for index, olds, news in (
            (self.timers, before.timers, after.timers),
            (self.victims, before.victims, after.victims),
        ):
            self._swap_all(index, olds, news)

    @staticmethod
    def _swap_all(index: _Lazy, olds: tuple[Entry, ...], news: tuple[Entry, ...]) -> None:
        if olds == news:
            return
        for entry in olds:
            if entry not in news:
                index.swap(entry, None)
        for entry in news:
            if entry not in olds:
                index.swap(None, entry)

    def settle(self, name: QueueName) -> None:
        """What a declared queue used until now is written down."""
        queue = self.queues.get(name)
        if queue is not None and queue.settled_ms < self.now_ms:
            held = self.usage.get(name)
            self.queues[name] = settled(queue, held, self.now_ms, self.policy.fair_half_life_ms)

    def _charge(self, before: WorkloadEntries, after: WorkloadEntries) -> None:
        if before.usage == after.usage and before.leaving == after.leaving and before.queue == after.queue:
            return
        for entries, sign in ((before, -1), (after, 1)):
            if entries.queue is not None:
                self.settle(entries.queue)
                self.usage.add(entries.queue, entries.usage, sign)
                self.leaving.add(entries.queue, entries.leaving, sign)

    def _link(self, name: WorkloadName, old: WorkloadState | None, new: WorkloadState | None) -> None:
        before = set() if old is None else {item.workload for item in old.spec.body.inputs}
        after = set() if new is None else {item.workload for item in new.spec.body.inputs}
        for source in sorted(before ^ after):
            names = set(self.dependents.get(source) or ())
            names = names | {name} if source in after else names - {name}
            if names:
                self.dependents[source] = tuple(sorted(names))
            else:
                del self.dependents[source]

    def freeze(self) -> Snapshot:
        """The finished snapshot."""
        return Snapshot(
            position=self.position,
            observed_at=self.observed_at,
            now_ms=self.now_ms,
            home_id=self.home_id,
            epoch=self.epoch,
            policy=self.policy,
            fleet_name=self.fleet_name,
            clusters=self.clusters,
            workloads=self.workloads.freeze(),
            runs=self.runs.freeze(),
            nodes=self.nodes.freeze(),
            services=self.services.freeze(),
            pools=self.pools,
            spot=self.spot,
            queues=dict(sorted(self.queues.items())),
            gateway=self.gateway,
            keys=self.keys,
            packing=self.packing(),
            durations=self.durations,
            indexes=Indexes(
                attention=self.attention.freeze(),
                pending=self.pending.freeze(),
                capacity=self.capacity.freeze(),
                victims=self.victims.freeze(),
                timers=self.timers.freeze(),
                held=self.held.freeze(),
                sizes=dict(sorted(self.sizes.items())),
                dependents=self.dependents.freeze(),
                live=self.live.freeze(),
                parts=self.parts.freeze(),
                foreseen=self.foreseen.freeze(),
                choosers=self.choosers.freeze(),
                ends=self.ends.freeze(),
                kept=self.kept.freeze(),
                usage=self.usage.freeze(),
                leaving=self.leaving.freeze(),
                lines=self.lines.freeze(),
            ),
        )
