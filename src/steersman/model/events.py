"""Everything that can happen, as the journal holds it. State is a fold of these and of nothing else.

Rules of this file: an event says what happened, never what should; it carries no secret and no personal
data; a field is only ever added, with a default, and a change of meaning makes a new version with an
upcast in `codec`. The journal position and time of an event are in its envelope, not in its body.
"""

from typing import Literal

import msgspec

from steersman.model.decisions import Decision
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, QueueName, RunId, WorkloadName
from steersman.model.packing import PackingUpdate
from steersman.model.policy import Policy
from steersman.model.queue import Queue
from steersman.model.service import ApiKey, Gateway, Service
from steersman.model.workload import Workload


class HomeCreated(msgspec.Struct, frozen=True, kw_only=True, tag="home-created"):
    """The first event of every journal. `home_id` is random and names the home in outside objects."""

    home_id: str


class ControlPlaneStarted(msgspec.Struct, frozen=True, kw_only=True, tag="control-plane-started"):
    """A control plane took the home. `epoch` grows by one each time and fences all earlier ones."""

    epoch: int
    build: str
    boot_id: str
    libraries: tuple[tuple[str, str], ...] = ()


class PolicySet(msgspec.Struct, frozen=True, kw_only=True, tag="policy-set"):
    policy: Policy


class FleetDeclared(msgspec.Struct, frozen=True, kw_only=True, tag="fleet-declared"):
    fleet: Fleet


class ClusterObserved(msgspec.Struct, frozen=True, kw_only=True, tag="cluster-observed"):
    """The nodes that a cluster of the fleet has now, all of them, sorted by id.

    With a `problem` it could not be asked: then no nodes are named, and those that it had are unknown.
    """

    cluster: str
    nodes: tuple[Node, ...] = ()
    problem: str = ""
    hint: str = ""


class NodeHealth(msgspec.Struct, frozen=True, kw_only=True, tag="node-health"):
    """What is known of a node. ``unknown`` takes no new work and ends none."""

    node: NodeId
    health: Literal["alive", "dead", "unknown"]


class InterruptionNotice(msgspec.Struct, frozen=True, kw_only=True, tag="interruption-notice"):
    """Whoever lends a node is about to take it away, which was said at `at_ms`. It goes at `ends_ms`.

    It takes no new work from now on, and what runs there is told to save and goes on elsewhere.
    """

    node: NodeId
    at_ms: int
    ends_ms: int


class PriceObserved(msgspec.Struct, frozen=True, kw_only=True, tag="price-observed"):
    """What an hour of one node of a pool costs from now on; None: it is unknown, which is not 0."""

    pool: str
    at_ms: int
    price_usd_micro_per_hour: int | None


class WorkloadDeclared(msgspec.Struct, frozen=True, kw_only=True, tag="workload-declared"):
    """A workload was declared, anew or again. `restarts`: the change needs a new run (see `spec.diff`)."""

    workload: Workload
    digest: str
    restarts: bool = True


class ServiceDeclared(msgspec.Struct, frozen=True, kw_only=True, tag="service-declared"):
    """A service was declared, anew or again. `restarts`: the change needs a new revision (`spec.diff`)."""

    service: Service
    digest: str
    restarts: bool = True


class GatewayDeclared(msgspec.Struct, frozen=True, kw_only=True, tag="gateway-declared"):
    gateway: Gateway


class QueueDeclared(msgspec.Struct, frozen=True, kw_only=True, tag="queue-declared"):
    """A queue as it is to be from now on. What it used is kept."""

    queue: Queue


class QueueRemoved(msgspec.Struct, frozen=True, kw_only=True, tag="queue-removed"):
    """A queue has no quota any more; what waits and runs in it stays."""

    queue: QueueName


class ApiKeyCreated(msgspec.Struct, frozen=True, kw_only=True, tag="api-key-created"):
    """A key was made, or replaces the one of that name. Its digest is kept, the key itself never was."""

    key: ApiKey


class ApiKeyRevoked(msgspec.Struct, frozen=True, kw_only=True, tag="api-key-revoked"):
    name: str


class StopRequested(msgspec.Struct, frozen=True, kw_only=True, tag="stop-requested"):
    """`steer stop`: end the run, keep the declaration."""

    workload: WorkloadName


class RemoveRequested(msgspec.Struct, frozen=True, kw_only=True, tag="remove-requested"):
    """`steer down`: end the run and forget the declaration."""

    workload: WorkloadName


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One quantised number that left its dead band. `value` is an integer in the unit the name ends with, or
    None: it is unknown from now on, which is not zero."""

    name: str
    subject: str
    value: int | None


class Observed(msgspec.Struct, frozen=True, kw_only=True, tag="observed"):
    """One a cycle: the time (epoch milliseconds), what moved, and what the deciders were given.

    `news`: so many events after this one were recorded with it, before anything was decided. None: nothing
    was decided on it, or by a build that did not say.
    """

    now_ms: int
    signals: tuple[Signal, ...] = ()
    policy_digest: str = ""
    news: int | None = None


class Decided(msgspec.Struct, frozen=True, kw_only=True, tag="decided"):
    """The intent of the cycle observed at `observed_at`, durable before any of it happens.

    `packing`: what the cycle learned for placing what comes next; it takes effect after the decisions.
    """

    observed_at: int
    decisions: tuple[Decision, ...]
    packing: PackingUpdate | None = None


class RankStarted(msgspec.Struct, frozen=True, kw_only=True, tag="rank-started"):
    """The program of one rank began. `limits` says how its resources are held (``cgroup-v1`` …)."""

    run: RunId
    rank: int
    pid: int
    at_ms: int
    limits: str = ""


class RankExited(msgspec.Struct, frozen=True, kw_only=True, tag="rank-exited"):
    """The program of one rank is gone, proven. Exactly one of `exit_code` and `signal` is set, unless
    `cause` tells that it never ran (``start-failed``; ``not-taken`` when that was the place's doing and no
    fault of the workload's) or that its record was lost (``lost``).

    `completed`: the program itself said that its work is done. `stop_delivered`: the stop signal had been
    sent before it ended.
    """

    run: RunId
    rank: int
    at_ms: int
    exit_code: int | None = None
    signal: int | None = None
    cause: Literal["exited", "start-failed", "not-taken", "setup-failed", "lost", "memory"] = "exited"
    detail: str = ""
    completed: bool = False
    stop_delivered: bool = False


class RankUnknown(msgspec.Struct, frozen=True, kw_only=True, tag="rank-unknown"):
    """Nobody can tell whether the rank lives. Nothing is decided on it."""

    run: RunId
    rank: int


class RankReady(msgspec.Struct, frozen=True, kw_only=True, tag="rank-ready"):
    """A replica answers requests. `load_ms` is what loading and warming its model took."""

    run: RunId
    rank: int
    at_ms: int
    load_ms: int


class CheckpointSaved(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint-saved"):
    """A checkpoint was published. `save_ms` is how long the save took."""

    run: RunId
    step: int
    at_ms: int
    save_ms: int
    digest: str


class ArtifactPublished(msgspec.Struct, frozen=True, kw_only=True, tag="artifact-published"):
    """A declared artifact was stored. `digest` is ``sha256:<hex>``; the bytes live under that digest."""

    run: RunId
    workload: WorkloadName
    name: str
    digest: str
    size_bytes: int


class ActionFailed(msgspec.Struct, frozen=True, kw_only=True, tag="action-failed"):
    """An effect could not be brought about; it will be tried again or the rank reported as exited."""

    decision: str
    detail: str


Event = (
    HomeCreated
    | ControlPlaneStarted
    | PolicySet
    | FleetDeclared
    | ClusterObserved
    | NodeHealth
    | InterruptionNotice
    | PriceObserved
    | WorkloadDeclared
    | ServiceDeclared
    | GatewayDeclared
    | QueueDeclared
    | QueueRemoved
    | ApiKeyCreated
    | ApiKeyRevoked
    | StopRequested
    | RemoveRequested
    | Observed
    | Decided
    | RankStarted
    | RankReady
    | RankExited
    | RankUnknown
    | CheckpointSaved
    | ArtifactPublished
    | ActionFailed
)
