"""What the indexes hold for one workload or one node, computed from that alone.

`Draft` keeps the indexes by comparing the entries of the old and the new version of a record; `rebuild`
makes all of them from the base tables. Both call the functions below, and a property proves them equal.
"""

from typing import NamedTuple, TypeVar

from steersman.model.ids import QueueName, WorkloadName
from steersman.model.mig import MEMORY_SLICES, memory_of
from steersman.model.queue import Amounts
from steersman.model.resources import count_kinds
from steersman.model.snapshot import (
    Indexes,
    Line,
    NodeSize,
    NodeState,
    Phase,
    Run,
    RunState,
    Shape,
    Signature,
    Snapshot,
    WorkloadState,
)
from steersman.model.table import Entry, SortedSeq, Table
from steersman.state import durations
from steersman.state.ends import rank_failed
from steersman.state.usage import added, usage_of

_TUNE_PER_MILLE = 250


class WorkloadEntries(NamedTuple):
    """The index entries of one workload and its current run."""

    attention: bool = False
    held: bool = False
    pending: tuple[Shape, Entry] | None = None
    timers: tuple[Entry, ...] = ()
    live: Entry | None = None
    victims: tuple[Entry, ...] = ()
    chooser: bool = False
    ends: Entry | None = None
    kept: bool = False
    queue: QueueName | None = None
    usage: Amounts = ()
    leaving: Amounts = ()
    line: tuple[Line, Entry] | None = None


NO_ENTRIES = WorkloadEntries()


def shape_of(state: WorkloadState) -> Shape:
    """What one rank asks for, and how many ranks."""
    amount, job = state.spec.resources, state.spec.body
    return Shape(
        cpu_milli=amount.cpu_milli,
        memory_bytes=amount.memory_bytes,
        accelerators=amount.accelerators,
        num_nodes=job.num_nodes,
        device_milli=amount.device_milli,
        sharing=amount.sharing,
        mig_profile=amount.mig_profile,
        topology=job.topology,
        pools=() if state.choice is None else state.choice.pools,
        queue=state.spec.queue,
        infra=amount.infra,
    )


def chooses(state: WorkloadState) -> bool:
    """Whether it is to be chosen for the workload what it runs on."""
    job = state.spec.body
    return job.program == "command" and (
        job.spot_policy != "on-demand" or job.price_usd_micro_per_hour_max is not None
    )


def to_be_chosen(state: WorkloadState) -> bool:
    """Whether `recover` owes the workload a choice. One that chose no longer is set free of its choice."""
    return (state.choice is None or state.choose_due) if chooses(state) else state.choice is not None


def interval_outdated(state: WorkloadState, run: Run) -> bool:
    """Whether a run saves at another interval than it should.

    A declared interval changed; or, when it is automatic, saving takes so much longer or shorter than when
    the interval was computed that it should be computed anew.
    """
    policy = state.spec.body.checkpoint
    if not policy.enabled:
        return False
    if policy.interval_ms is not None:
        return run.interval_ms != policy.interval_ms
    if state.save_ms is None:
        return False
    if state.tuned_save_ms is None:
        return True
    return abs(state.save_ms - state.tuned_save_ms) * 1000 > _TUNE_PER_MILLE * max(state.tuned_save_ms, 1)


def _active_wants(state: WorkloadState, run: Run) -> bool:
    if run.state is RunState.ENDED:
        return True
    if run.state is RunState.STOPPING:
        return False
    return (
        state.removing
        or state.stop_requested
        or state.overdue
        or run.generation != state.generation
        or interval_outdated(state, run)
        or run.goes_ms is not None
        or to_be_chosen(state)
        or any(rank.end is not None and rank_failed(rank.end) for rank in run.ranks)
    )


def wants_attention(state: WorkloadState, run: Run | None) -> bool:
    """Whether recover or admit owes this workload a verdict."""
    if state.phase is Phase.ACTIVE:
        assert run is not None, state.spec.name
        return _active_wants(state, run)
    if state.removing:
        return True
    if state.phase is Phase.DECLARED:
        return state.reason is None or state.recheck or state.stop_requested
    if state.phase is Phase.QUEUED and to_be_chosen(state):
        return True
    return state.stop_requested and state.phase in (Phase.QUEUED, Phase.BACKOFF)


def deadline_ms(state: WorkloadState, run: Run) -> int | None:
    """When the run exceeds `max_duration`, counted from its start."""
    limit = state.spec.body.max_duration_ms
    return None if limit is None or run.started_ms is None else run.started_ms + limit


def finish_ms(state: WorkloadState, run: Run, now_ms: int) -> int | None:
    """By when a live run ends, not before now; None: nobody knows.

    A run told to end has its grace, one with `max_duration` that time and its grace. Where a job tells its
    work, what its checkpoints do not hold yet is left from the newest on; that is no bound, and one that is
    past tells nothing any more.
    """
    job = state.spec.body
    if run.state is RunState.STOPPING:
        return max((run.stop_ms or 0) + job.stop_grace_ms, now_ms)
    if job.max_duration_ms is None and job.work_ms is None:
        return None
    begun_ms = run.decided_ms if run.started_ms is None else run.started_ms
    told_ms = bound_ms = None
    if job.max_duration_ms is not None:
        bound_ms = max(begun_ms + job.max_duration_ms + job.stop_grace_ms, now_ms)
    if job.work_ms is not None:
        left_ms = max(job.work_ms - state.saved_work_ms, 0)
        told_ms = (begun_ms if run.saved_ms is None else run.saved_ms) + left_ms
    known = [at for at in (bound_ms, told_ms) if at is not None and at >= now_ms]
    return min(known, default=None)


def workload_entries(state: WorkloadState | None, run: Run | None) -> WorkloadEntries:
    """All index entries of a workload and its current run."""
    if state is None:
        return NO_ENTRIES
    name = state.spec.name
    attention = wants_attention(state, run)
    if state.phase is Phase.QUEUED:
        chosen, choice = chooses(state), state.choice
        waits = chosen and (choice is None or choice.capacity == "wait")
        entry = (-state.spec.priority, state.declared_at, name)
        pending = None if waits else (shape_of(state), entry)
        return WorkloadEntries(
            attention=attention,
            pending=pending,
            timers=_judged_again(state),
            chooser=chosen,
            kept=bool(state.reservations),
            line=None if pending is None else _line(state, *pending),
        )
    if state.phase is Phase.BACKOFF:
        return WorkloadEntries(attention=attention, timers=((state.not_before_ms, name),))
    if state.phase is Phase.DECLARED:
        return WorkloadEntries(attention=attention, held=state.reason is not None)
    if run is None or run.state is RunState.ENDED:
        return WorkloadEntries(attention=attention)
    timers: tuple[Entry, ...] = ()
    if not state.overdue and run.state is not RunState.STOPPING:
        at = deadline_ms(state, run)
        timers = tuple(sorted({*(() if at is None else ((at, name),)), *_judged_again(state)}))
    usage = usage_of(run)
    ends_ms = finish_ms(state, run, 0)
    return WorkloadEntries(
        attention=attention,
        timers=timers,
        live=(run.id,),
        ends=None if ends_ms is None else (ends_ms, run.id),
        victims=_victims(state, run),
        queue=run.queue,
        usage=usage,
        leaving=usage if run.state is RunState.STOPPING else (),
    )


def _line(state: WorkloadState, shape: Shape, entry: Entry) -> tuple[Line, Entry] | None:
    """Where a queued workload stands among those that ask for accelerators."""
    if not shape.accelerators:
        return None
    kept = bool(state.reservations)
    if not durations.is_ordered(state.spec):
        return Line(shape, (), 0, resumed=False, kept=kept), entry
    place, resumed = durations.bucket(state.attained_ms // 1000), state.attained_ms > 0
    return Line(shape, durations.classes_of(state.spec), place, resumed=resumed, kept=kept), entry


def _judged_again(state: WorkloadState) -> tuple[Entry, ...]:
    """When a choice is to be made anew."""
    choice = state.choice
    if choice is None or choice.until_ms is None or state.choose_due:
        return ()
    return ((choice.until_ms, state.spec.name),)


def can_yield(state: WorkloadState, run: Run) -> bool:
    """Whether a live run may be told to end for another: its job can resume, and it is not ending anyway."""
    return run.state is not RunState.STOPPING and state.spec.body.checkpoint.enabled


def _victims(state: WorkloadState, run: Run) -> tuple[Entry, ...]:
    if not can_yield(state, run):
        return ()
    priority = state.spec.priority
    nodes = sorted({rank.placement.node for rank in run.ranks if rank.end is None})
    return tuple((priority, node, run.id) for node in nodes)


def free_accelerators(state: NodeState) -> Signature:
    """Devices of a node that are wholly free and not reserved, by kind; a kind with none is left out."""
    if not state.free_devices or state.reserved_shares:
        return ()
    free = set(state.free_devices)
    counts = count_kinds(device for device in state.node.devices if device.id in free)
    if not state.reserved_accelerators:
        return counts
    kept = dict(state.reserved_accelerators)
    left = ((kind, count - kept.get(kind, 0)) for kind, count in counts)
    return tuple((kind, count) for kind, count in left if count > 0)


def takes_work(state: NodeState) -> bool:
    """Whether new leases may go there."""
    return state.declared and state.health == "alive"


def node_entry(state: NodeState | None) -> tuple[Signature, Entry] | None:
    """The capacity entry of a node."""
    if state is None or not takes_work(state):
        return None
    cpu = state.node.cpu_milli - state.used_cpu_milli - state.reserved_cpu_milli
    memory = state.node.memory_bytes - state.used_memory_bytes - state.reserved_memory_bytes
    return free_accelerators(state), (cpu, memory, state.node.id)


def part_entries(state: NodeState | None) -> tuple[Entry, ...]:
    """The entries of a node's devices that are partly leased and partly free."""
    if state is None or not state.shares or state.reserved_shares or not takes_work(state):
        return ()
    kinds = {device.id: device.kind for device in state.node.devices}
    entries: list[Entry] = []
    for share in state.shares:
        kind = kinds[share.device]
        if share.instances:
            free = MEMORY_SLICES - sum(memory_of(kind, profile) for profile, _ in share.instances)
            entries += [(kind, "mig", free, state.node.id, share.device)] if free else []
        elif share.free_milli:
            entries.append((kind, "time-slice", share.free_milli, state.node.id, share.device))
    return tuple(sorted(entries))


def node_size(state: NodeState | None) -> NodeSize | None:
    """The size of a node that takes work."""
    if state is None or not takes_work(state):
        return None
    node = state.node
    return NodeSize(
        node.cpu_milli,
        node.memory_bytes,
        count_kinds(node.devices),
        (node.site, node.zone),
        spot=node.market == "spot",
        infra=node.infra,
    )


_K = TypeVar("_K", Shape, Line, Signature)


def _family(members: dict[_K, list[Entry]]) -> dict[_K, SortedSeq]:
    return {key: SortedSeq.of(entries) for key, entries in sorted(members.items())}


def _foreseen(snapshot: Snapshot) -> SortedSeq:
    services = snapshot.services.sorted_items()
    return SortedSeq.of((name,) for name, state in services if state.spec.scaling.foresees)


def _of_nodes(
    snapshot: Snapshot,
) -> tuple[dict[Signature, list[Entry]], dict[NodeSize, int], list[Entry]]:
    """Capacity, sizes and parts."""
    capacity: dict[Signature, list[Entry]] = {}
    sizes: dict[NodeSize, int] = {}
    parts: list[Entry] = []
    for _, node in snapshot.nodes.sorted_items():
        entry = node_entry(node)
        if entry is not None:
            capacity.setdefault(entry[0], []).append(entry[1])
        parts += part_entries(node)
        size = node_size(node)
        if size is not None:
            sizes[size] = sizes.get(size, 0) + 1
    return capacity, sizes, parts


def rebuild(snapshot: Snapshot) -> Indexes:
    """All indexes from the base tables alone: for images, and to check the kept ones."""
    attention: list[Entry] = []
    held: list[Entry] = []
    timers: list[Entry] = []
    live: list[Entry] = []
    victims: list[Entry] = []
    choosers: list[Entry] = []
    kept, ends = list[Entry](), list[Entry]()
    pending: dict[Shape, list[Entry]] = {}
    lines: dict[Line, list[Entry]] = {}
    dependents: dict[str, list[WorkloadName]] = {}
    usage: dict[QueueName, Amounts] = {}
    leaving: dict[QueueName, Amounts] = {}
    for name, state in snapshot.workloads.sorted_items():
        run = None if state.run is None else snapshot.runs[state.run]
        entries = workload_entries(state, run)
        attention += [(name,)] if entries.attention else []
        held += [(name,)] if entries.held else []
        timers += entries.timers
        live += [] if entries.live is None else [entries.live]
        victims += entries.victims
        choosers += [(name,)] if entries.chooser else []
        ends += [] if entries.ends is None else [entries.ends]
        kept += [(name,)] if entries.kept else []
        if entries.queue is not None:
            usage[entries.queue] = added(usage.get(entries.queue, ()), entries.usage)
            leaving[entries.queue] = added(leaving.get(entries.queue, ()), entries.leaving)
        if entries.pending is not None:
            pending.setdefault(entries.pending[0], []).append(entries.pending[1])
        if entries.line is not None:
            lines.setdefault(entries.line[0], []).append(entries.line[1])
        for source in sorted({item.workload for item in state.spec.body.inputs}):
            dependents.setdefault(source, []).append(state.spec.name)
    capacity, sizes, parts = _of_nodes(snapshot)
    return Indexes(
        attention=SortedSeq.of(attention),
        pending=_family(pending),
        capacity=_family(capacity),
        sizes=dict(sorted(sizes.items())),
        victims=SortedSeq.of(victims),
        timers=SortedSeq.of(timers),
        held=SortedSeq.of(held),
        dependents=Table.of((source, tuple(names)) for source, names in sorted(dependents.items())),
        live=SortedSeq.of(live),
        parts=SortedSeq.of(parts),
        foreseen=_foreseen(snapshot),
        choosers=SortedSeq.of(choosers),
        ends=SortedSeq.of(ends),
        kept=SortedSeq.of(kept),
        usage={queue: held for queue, held in sorted(usage.items()) if held},
        leaving={queue: held for queue, held in sorted(leaving.items()) if held},
        lines=_family(lines),
    )
