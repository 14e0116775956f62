"""What the deciders propose and the journal records before anything happens.

Every decision names its subject, what should become of it, and why. A decision carries no id: its id is
the position of its cycle's `Observed` event plus its place in the plan (see `ids.decision_id`).
"""

from typing import Literal

import msgspec

from steersman.model.demand import Learned
from steersman.model.ids import DeviceId, NodeId, RunId, WorkloadName
from steersman.model.packing import PackingUpdate
from steersman.model.reasons import Reason
from steersman.model.resources import WHOLE_MILLI, Resources
from steersman.model.workload import Workload

StopCause = Literal[
    "preempted",
    "stop-requested",
    "removed",
    "duration-exceeded",
    "spec-changed",
    "rank-failed",
    "moved",
    "interrupted",
]
Capacity = Literal["wait", "spot", "on-demand"]
"""What a workload that may choose should run on until it is judged again."""
Outcome = Literal["succeeded", "failed", "stopped"]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The lease of one rank: a right to named capacity of one node.

    `device_milli`: how much of each device, in thousandths. `mig_profile` and `mig_start`: a MIG instance of
    the one device instead, and the first of its memory slices.
    """

    rank: int
    node: NodeId
    cpu_milli: int
    memory_bytes: int
    devices: tuple[DeviceId, ...] = ()
    device_milli: int = WHOLE_MILLI
    mig_profile: str = ""
    mig_start: int = 0


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity of a node kept for one workload: an amount, not yet named devices."""

    node: NodeId
    amount: Resources


class Admit(msgspec.Struct, frozen=True, kw_only=True, tag="admit"):
    """The workload may be queued. Owner: admit."""

    workload: WorkloadName
    reason: Reason


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """The workload or service stays where it is, for a reason that differs from the recorded one."""

    workload: WorkloadName
    reason: Reason


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Begin a run with these leases, all ranks together. Owner: schedule."""

    workload: WorkloadName
    run: RunId
    placements: tuple[Placement, ...]
    checkpoint_interval_ms: int | None
    reason: Reason


class Reserve(msgspec.Struct, frozen=True, kw_only=True, tag="reserve"):
    """Keep capacity that victims are about to give back for the workload they yield to. Owner: schedule."""

    workload: WorkloadName
    reservations: tuple[Reservation, ...]
    reason: Reason


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """End a run: notice, grace, then force.

    Owner: schedule for preemption, recover for a failed gang, a move and an interruption, admit for the rest.
    """

    workload: WorkloadName
    run: RunId
    cause: StopCause
    grace_ms: int
    reason: Reason


class Choose(msgspec.Struct, frozen=True, kw_only=True, tag="choose"):
    """On what a workload should run: `pools` are the only ones that will do, empty: any that is not spot.

    It is judged again at `until_ms`, or when it waits and a pool changes; None: only then. Owner: recover.
    """

    workload: WorkloadName
    capacity: Capacity
    pools: tuple[str, ...]
    until_ms: int | None
    reason: Reason


class Requeue(msgspec.Struct, frozen=True, kw_only=True, tag="requeue"):
    """Try again, not before a time. `counted` tells whether the try used up an attempt. Owner: recover."""

    workload: WorkloadName
    not_before_ms: int
    counted: bool
    reason: Reason


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """The workload reached its end. Owner: recover; admit when it never ran."""

    workload: WorkloadName
    outcome: Outcome
    reason: Reason


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """A removed workload without a live run leaves the snapshot. Owner: admit; rollout for a service."""

    workload: WorkloadName
    reason: Reason


class SetCheckpointInterval(msgspec.Struct, frozen=True, kw_only=True, tag="set-checkpoint-interval"):
    """A running job should save this often from now on. Owner: recover."""

    workload: WorkloadName
    run: RunId
    interval_ms: int
    reason: Reason


class Scale(msgspec.Struct, frozen=True, kw_only=True, tag="scale"):
    """How many replicas a service should have. Owner: autoscale.

    `desired` is what the signals ask for and `since_ms` since when it has been on this side of `target`: the
    memory of the delays. `target` changes once a delay is over.
    """

    workload: WorkloadName
    desired: int
    since_ms: int
    target: int
    reason: Reason


class Learn(msgspec.Struct, frozen=True, kw_only=True, tag="learn"):
    """What the forecast of a service has learnt, and by what it sizes from now on. Owner: autoscale.

    See `demand.Learned`. Recorded now and then, so that nobody has to learn it again from the beginning.
    """

    workload: WorkloadName
    learned: Learned
    reason: Reason


class Revise(msgspec.Struct, frozen=True, kw_only=True, tag="revise"):
    """A service is to be served by a new revision from now on. Owner: rollout."""

    workload: WorkloadName
    revision: int
    model_digest: str | None
    reason: Reason


class Promote(msgspec.Struct, frozen=True, kw_only=True, tag="promote"):
    """The new revision has taken over. Owner: rollout."""

    workload: WorkloadName
    revision: int
    reason: Reason


class FailRollout(msgspec.Struct, frozen=True, kw_only=True, tag="fail-rollout"):
    """The new revision is given up; the one before it, if any, serves on, untouched. Owner: rollout."""

    workload: WorkloadName
    revision: int
    reason: Reason


class Spawn(msgspec.Struct, frozen=True, kw_only=True, tag="spawn"):
    """Add a replica to a service, or the gateway to the home. Owner: rollout.

    `job` is recorded whole, so that a later build that would make it otherwise does not change what was.
    """

    workload: WorkloadName
    revision: int
    job: Workload
    reason: Reason


class Retire(msgspec.Struct, frozen=True, kw_only=True, tag="retire"):
    """Drain a replica, end it and forget it. Owner: rollout."""

    workload: WorkloadName
    replica: WorkloadName
    reason: Reason


JobDecision = (
    Admit | Hold | Reserve | Start | Stop | Choose | Requeue | Finish | Forget | SetCheckpointInterval
)
ServiceDecision = Scale | Learn | Revise | Promote | FailRollout | Spawn | Retire
Decision = (
    Admit
    | Hold
    | Reserve
    | Start
    | Stop
    | Choose
    | Requeue
    | Finish
    | Forget
    | SetCheckpointInterval
    | Scale
    | Learn
    | Revise
    | Promote
    | FailRollout
    | Spawn
    | Retire
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one cycle decided. `wake_at_ms` None: nothing to wait for but events.

    An empty plan says why in `idle`. `packing` is what was learned on the way and is recorded with them.
    """

    decisions: tuple[Decision, ...]
    wake_at_ms: int | None
    idle: Reason | None = None
    packing: PackingUpdate | None = None
