"""The state of a home at one journal position: what every decider reads and only `state` makes.

Theory of operation. Three base tables (workloads, runs, nodes) hold the truth; `Indexes` hold nothing that
does not follow from them, so that an index can always be rebuilt and a property proves that it equals its
rebuild. Deciders find their work through the indexes: `attention` (workloads in a state that asks for a
verdict), `pending` (queued, by shape and order), `capacity` (nodes by what is free), `timers`. All of it is
level-triggered: a decision lost in a crash is simply taken again by the next cycle.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from steersman.model.decisions import Choose, Outcome, Placement, Reservation, StopCause
from steersman.model.demand import Demand
from steersman.model.durations import Durations
from steersman.model.fleet import Cluster, Market, Node
from steersman.model.ids import DecisionId, DeviceId, QueueName, RunId, WorkloadName
from steersman.model.packing import Packing
from steersman.model.policy import Policy
from steersman.model.pools import PoolState, SpotHistory
from steersman.model.queue import Amounts, QueueState
from steersman.model.reasons import Reason
from steersman.model.resources import WHOLE_MILLI, Sharing
from steersman.model.service import ApiKey, Gateway, Service
from steersman.model.table import SortedSeq, Table
from steersman.model.workload import DEFAULT_QUEUE, Topology, Workload


class Phase(StrEnum):
    """Where a workload stands. The allowed moves are in `state.lifecycle`."""

    DECLARED = "declared"  # not judged yet, or held: see its reason
    QUEUED = "queued"  # may run; waits for room
    ACTIVE = "active"  # has a run that has not ended, or whose end is not judged yet
    BACKOFF = "backoff"  # waits for its next try
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


FINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED})


class RunState(StrEnum):
    STARTING = "starting"  # decided; not every rank has begun
    RUNNING = "running"
    STOPPING = "stopping"  # told to end
    ENDED = "ended"  # every rank is proven gone


class RankEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How one rank ended; see `events.RankExited`."""

    exit_code: int | None = None
    signal: int | None = None
    cause: str = "exited"
    detail: str = ""
    completed: bool = False
    stop_delivered: bool = False


class RankState(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of a run: its lease, and what is known of its program."""

    placement: Placement
    started_ms: int | None = None
    end: RankEnd | None = None
    unknown: bool = False
    limits: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a job. `pool` and `market` are those of its first rank's node.

    `goes_ms`: a node of it is about to be taken away then. `holds` is what each rank is held against the
    quota of `queue`; `rates` what each costs in micro-dollars an hour; both as of its start.
    """

    id: RunId
    workload: WorkloadName
    generation: int
    attempt: int
    state: RunState
    ranks: tuple[RankState, ...]
    decision: DecisionId
    decided_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    stop: StopCause | None = None
    stop_ms: int | None = None
    saved_ms: int | None = None
    saved_step: int | None = None
    interval_ms: int | None = None
    ready_ms: int | None = None
    pool: str = ""
    market: Market = "on-demand"
    goes_ms: int | None = None
    queue: QueueName = DEFAULT_QUEUE
    holds: Amounts = ()
    rates: tuple[int, ...] = ()


class StoredArtifact(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int
    run: RunId


class WorkloadState(msgspec.Struct, frozen=True, kw_only=True):
    """A declared workload and everything remembered of its tries.

    `declared_at` is the position of its first declaration (its place in the queue), `generation` the one
    of the last that needs a new run, `lineage` the one since which saved progress counts: it is kept over
    stops and changed declarations, and begins anew after success or removal. `failures` counts tries ended
    badly in a row, `short_failures` those of them soon after their start, `attempts` the tries that count
    against its retry policy. `save_ms` is what saving last took and `tuned_save_ms` the value the interval
    was computed from. `recheck`: something it waits for has moved. `service` is the one whose replica it is,
    and `revision` that service's.

    `choice` is what it should run on, if it may choose, and `choose_due` that it is to be judged again.
    `saved_work_ms` is the work that its checkpoints hold, `timed_steps` and `timed_ms` how many steps
    took how long between two of a run, and `launch_ms` the longest that a start took before it worked.

    `attained_ms` is how long the runs of this lineage were that have ended, and `counted_ms` how much of it,
    and of the run that is under way, is in what was learned of durations.
    """

    spec: Workload
    digest: str
    declared_at: int
    declared_ms: int
    generation: int
    lineage: int
    phase: Phase = Phase.DECLARED
    reason: Reason | None = None
    run: RunId | None = None
    last_run: Run | None = None
    runs: int = 0
    attempts: int = 0
    failures: int = 0
    short_failures: int = 0
    preemptions: int = 0
    interruptions: int = 0
    ran_ms: int = 0
    first_failed_ms: int | None = None
    not_before_ms: int = 0
    save_ms: int | None = None
    tuned_save_ms: int | None = None
    interval_ms: int | None = None
    saved_step: int | None = None
    stop_requested: bool = False
    removing: bool = False
    overdue: bool = False
    recheck: bool = False
    reservations: tuple[Reservation, ...] = ()
    artifacts: tuple[StoredArtifact, ...] = ()
    outcome: Outcome | None = None
    finished_ms: int | None = None
    service: WorkloadName | None = None
    revision: int = 0
    choice: Choose | None = None
    choose_due: bool = False
    saved_work_ms: int = 0
    timed_steps: int = 0
    timed_ms: int = 0
    launch_ms: int = 0
    attained_ms: int = 0
    counted_ms: int = 0


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a service: a declaration, and the content of its model. `number` counts from 1."""

    number: int
    generation: int
    spec: Service
    model_digest: str | None
    begun_ms: int


class ReplicaRef(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that a service owns: the workload that runs it. `retiring`: told to drain and end."""

    name: WorkloadName
    revision: int
    retiring: bool = False


class SignalValue(msgspec.Struct, frozen=True, kw_only=True):
    """The last word on one signal; `value` None: it is unknown."""

    name: str
    at_ms: int
    value: int | None


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """A declared service and everything remembered of it.

    `generation` is the position of the last declaration that needs a new revision; back to what serves, it is
    again that one's. `serving` has taken over, `rolling` is on its way, `failed` was given up and is not
    tried again. `replicas` are in order of their making; there were `spawned` in all. `desired` and
    `desired_ms` are autoscale's memory, `target` its word. `cold_start_ms` is what the last replica took from
    its decision to its first answer. `demand` is what came, while there is a forecast.
    """

    spec: Service
    digest: str
    declared_at: int
    declared_ms: int
    generation: int
    target: int
    desired: int
    desired_ms: int
    revisions: int = 0
    serving: Revision | None = None
    rolling: Revision | None = None
    failed: Revision | None = None
    failed_reason: Reason | None = None
    replicas: tuple[ReplicaRef, ...] = ()
    spawned: int = 0
    signals: tuple[SignalValue, ...] = ()
    cold_start_ms: int | None = None
    demand: Demand | None = None
    reason: Reason | None = None
    stop_requested: bool = False
    removing: bool = False


class DeviceShare(msgspec.Struct, frozen=True, kw_only=True):
    """A device of which a part is leased: thousandths that are left, or the MIG instances on it.

    `instances`: (profile, first memory slice), sorted by the slice; not empty means that it is in MIG mode.
    """

    device: DeviceId
    free_milli: int = 0
    instances: tuple[tuple[str, int], ...] = ()


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node and what is leased and kept of it. Free = capacity - leased; reserved is kept out of free.

    `free_devices` are those wholly free, `shares` those partly, sorted by device; a device in neither is
    leased whole. While `reserved_shares` of its devices' parts are kept, no device is offered to others. With
    health ``draining`` it is about to be taken away, at `goes_ms`.
    """

    node: Node
    health: str = "alive"
    goes_ms: int | None = None
    declared: bool = True
    used_cpu_milli: int = 0
    used_memory_bytes: int = 0
    free_devices: tuple[DeviceId, ...] = ()
    shares: tuple[DeviceShare, ...] = ()
    leases: tuple[tuple[RunId, int], ...] = ()
    reserved_cpu_milli: int = 0
    reserved_memory_bytes: int = 0
    reserved_accelerators: tuple[tuple[str, int], ...] = ()
    reserved_shares: int = 0


class Shape(NamedTuple):
    """What a rank asks for, how many ranks there are, and where they may go: equal shapes fit alike.

    `topology`: ranks that must share a ``node`` or a ``zone``; empty: anywhere. `pools`: the only pools that
    will do; empty: any. `queue` is whose quota it is taken from. `infra`: the only one that will do; empty:
    any.
    """

    cpu_milli: int
    memory_bytes: int
    accelerators: tuple[tuple[str, int], ...]
    num_nodes: int
    device_milli: int = WHOLE_MILLI
    sharing: Sharing = "auto"
    mig_profile: str = ""
    topology: Topology = ""
    pools: tuple[str, ...] = ()
    queue: QueueName = DEFAULT_QUEUE
    infra: str = ""


class Line(NamedTuple):
    """What queued workloads have in common that ask for accelerators and are ordered by age alone.

    `classes` of durations from coarse to fine; none: what it runs does not end by itself. `bucket` is that of
    the service it attained, `resumed` whether it has run, and `kept` whether room is reserved for it.
    """

    shape: Shape
    classes: tuple[str, ...]
    bucket: int
    resumed: bool
    kept: bool


Signature = tuple[tuple[str, int], ...]
"""Free accelerators of a node by kind, sorted."""


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster of the fleet. `seen_ms`: since when what is known of it is known; None: it was not seen yet.
    `problem`: why it could not be asked; empty: it could."""

    spec: Cluster
    seen_ms: int | None = None
    problem: str = ""
    hint: str = ""


class NodeSize(NamedTuple):
    """What a node has in all, and where: `zone` is (site, zone of it)."""

    cpu_milli: int
    memory_bytes: int
    accelerators: tuple[tuple[str, int], ...] = ()
    zone: tuple[str, str] = ("", "")
    spot: bool = False
    infra: str = "local"


class Indexes(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from the base tables, kept so that deciders need not look at all of them.

    attention   (name,) of workloads whose state asks for a verdict of recover or admit
    pending     shape → (-priority, declared_at, name) of queued workloads
    capacity    free accelerators → (free cpu_milli, free memory_bytes, node) of nodes that take work
    sizes       sizes of the nodes that take work → how many there are
    victims     (priority, node, run) of every rank whose job can resume and runs
    timers      (at_ms, name) of back-offs and deadlines of runs
    held        (name,) of declared workloads that wait for the fleet to change
    dependents  workload → names that wait for its artifacts, sorted
    live        (run,) of runs that have not ended
    parts       (kind, mode, what is free, node, device) of every device of which a part is leased and a part
                is free, on nodes that take work: thousandths, or memory slices of one in MIG mode
    foreseen    (name,) of services that have a forecast
    choosers    (name,) of queued workloads that choose what they run on
    ends        (at_ms, run) of live runs of which it is known by when they end: see `derive.finish_ms`
    kept        (name,) of queued workloads for which room is kept
    usage       queue → what its live ranks hold, and cost an hour
    leaving     queue → how much of that is told to end
    lines       line → what `pending` holds, of the workloads that ask for accelerators
    """

    attention: SortedSeq = SortedSeq()
    pending: dict[Shape, SortedSeq] = {}
    capacity: dict[Signature, SortedSeq] = {}
    sizes: dict[NodeSize, int] = {}
    victims: SortedSeq = SortedSeq()
    timers: SortedSeq = SortedSeq()
    held: SortedSeq = SortedSeq()
    dependents: Table[tuple[WorkloadName, ...]] = Table()
    live: SortedSeq = SortedSeq()
    parts: SortedSeq = SortedSeq()
    foreseen: SortedSeq = SortedSeq()
    choosers: SortedSeq = SortedSeq()
    ends: SortedSeq = SortedSeq()
    kept: SortedSeq = SortedSeq()
    usage: dict[QueueName, Amounts] = {}
    leaving: dict[QueueName, Amounts] = {}
    lines: dict[Line, SortedSeq] = {}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known at `position`. `observed_at` is the last `Observed` event's position.

    `pools` are those of the fleet, by name, and `spot` what was seen of those that may be taken away.
    """

    position: int = 0
    observed_at: int = 0
    now_ms: int = 0
    home_id: str = ""
    epoch: int = 0
    policy: Policy = Policy()
    fleet_name: str | None = None
    clusters: tuple[ClusterState, ...] = ()
    workloads: Table[WorkloadState] = Table()
    runs: Table[Run] = Table()
    nodes: Table[NodeState] = Table()
    pools: tuple[PoolState, ...] = ()
    spot: SpotHistory = SpotHistory()
    services: Table[ServiceState] = Table()
    queues: dict[str, QueueState] = {}
    gateway: Gateway | None = None
    keys: tuple[ApiKey, ...] = ()
    packing: Packing = Packing()
    durations: Durations = Durations()
    indexes: Indexes = Indexes()
