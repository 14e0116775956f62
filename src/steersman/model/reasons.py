"""Why: one stable code for every choice and every refusal, with the facts behind it.

Rules of this file: a code is never renamed or reused once released, for journals hold it; a fact is a
small value (a name, an integer), never prose: words are made by `explain`.
"""

from enum import StrEnum

import msgspec


class Code(StrEnum):
    """Stable codes. The comment of each group says who gives it."""

    # admit: may it run at all
    ADMITTED = "admitted"
    REFUSED_TOO_LARGE = "refused-too-large"  # more than any node of the fleet has, ever
    WAITING_INPUT = "waiting-input"  # an input's artifact does not exist yet
    INPUT_FAILED = "input-failed"  # the workload it depends on failed or was stopped
    STOP_REQUESTED = "stop-requested"
    REMOVED = "removed"
    DURATION_EXCEEDED = "duration-exceeded"
    SPEC_CHANGED = "spec-changed"
    # schedule: which node, and what had to yield
    PLACED = "placed"
    NO_NODES = "no-nodes"
    NO_CORES = "no-cores"
    NO_MEMORY = "no-memory"
    NO_DEVICES = "no-devices"
    NO_SHARE = "no-share"  # no device has so large a part free, in a mode that will do
    NO_POOL = "no-pool"  # none of the pools where it may go has a node that takes work
    NO_INFRA = "no-infra"  # no node of the infrastructure that it names takes work
    NO_ROOM_FOR_GANG = "no-room-for-gang"
    NO_ROOM_TOGETHER = "no-room-together"  # its ranks fit, but not in one node or zone, as it asks
    PREEMPTED = "preempted"
    WAITING_PREEMPTION = "waiting-preemption"
    ROOM_PROMISED = "room-promised"  # nodes are kept for it as they come free
    WAITING_BACKFILL = "waiting-backfill"  # would take room that is promised to who came before
    OUT_RANKED = "out-ranked"  # another of its priority is likelier to end soon, for the devices it takes
    OVER_QUOTA = "over-quota"  # its queue holds what it may
    WAITING_FAIR_SHARE = "waiting-fair-share"  # another queue of the cohort gets back its own first
    BUDGET_EXHAUSTED = "budget-exhausted"
    # autoscale: how many replicas
    SCALE_LOAD = "scale-load"  # what is in flight and queued asks for this many
    SCALE_QUEUE = "scale-queue"
    SCALE_LATENCY = "scale-latency"
    SCALE_BOUNDS = "scale-bounds"  # the declared least or most
    SCALE_DEMAND = "scale-demand"  # requests wait and there is no replica
    SCALE_UNKNOWN = "scale-unknown"  # a signal is unknown: hold
    SCALE_COLD_START = "scale-cold-start"  # not to zero: a start takes longer than a request may wait
    SCALE_FORECAST = "scale-forecast"  # what is to come asks for this many
    SCALE_METRIC = "scale-metric"  # a declared metric does
    SCALE_SCHEDULE = "scale-schedule"  # the least at this time of the week
    FORECAST_LEARNED = "forecast-learned"
    # rollout: which revision, which replicas
    FIRST_REVISION = "first-revision"
    DECLARATION_CHANGED = "declaration-changed"
    MODEL_CHANGED = "model-changed"
    REPLICA_NEEDED = "replica-needed"
    REPLICA_SURPLUS = "replica-surplus"
    REPLICA_REPLACED = "replica-replaced"  # its revision is no longer wanted
    REPLICA_STUCK = "replica-stuck"  # did not get ready in time
    ROLLED_OUT = "rolled-out"
    REPLICA_CRASHED = "replica-crashed"
    WAITING_READY = "waiting-ready"
    SERVING = "serving"
    GATEWAY_NEEDED = "gateway-needed"
    # recover: after a run ended
    SUCCEEDED = "succeeded"
    RETRY_BACKOFF = "retry-backoff"
    RETRY_PREEMPTED = "retry-preempted"
    EXIT_FATAL = "exit-fatal"
    EVENT_NOT_RETRIED = "event-not-retried"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    RETRY_TIME_EXHAUSTED = "retry-time-exhausted"
    CRASH_LOOP = "crash-loop"
    RETRY_NOT_TAKEN = "retry-not-taken"  # the place where it was to run could not take it
    RETRY_REPLICA = "retry-replica"  # a replica is tried for as long as it is wanted
    RANK_FAILED = "rank-failed"  # one rank of a gang ended badly: the others must end too
    ARTIFACT_MISSING = "artifact-missing"
    CHECKPOINT_INTERVAL = "checkpoint-interval"
    STOPPED = "stopped"
    RETRY_MOVED = "retry-moved"  # it was told to go on elsewhere
    RETRY_INTERRUPTED = "retry-interrupted"  # its spot node was taken away
    # recover: what a job runs on that may choose
    CHOSE_SPOT = "chose-spot"
    CHOSE_ON_DEMAND = "chose-on-demand"
    WAITING_SPOT = "waiting-spot"
    POINT_OF_NO_RETURN = "point-of-no-return"  # only on-demand, launched now, is sure to be in time
    DEADLINE_AT_RISK = "deadline-at-risk"  # nothing is sure to be in time any more
    NO_SPOT_POOL = "no-spot-pool"  # the fleet has no spot pool that could hold it
    NO_PRICE = "no-price"  # nothing has a price that may be paid
    MOVED = "moved"
    INTERRUPTION_NOTICE = "interruption-notice"
    # the cycle itself
    WAIT_BLIND = "wait-blind"  # a sensor has not reported yet: decide nothing that destroys
    STALE = "stale"  # a decision no longer held on the fresh snapshot
    NOTHING_TO_DO = "nothing-to-do"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A code and its facts, sorted by name. `counts` is the top three of candidates per refusal code."""

    code: Code
    facts: tuple[tuple[str, str | int], ...] = ()
    counts: tuple[tuple[Code, int], ...] = ()


def reason(code: Code, /, **facts: str | int) -> Reason:
    """A reason with its facts in order."""
    return Reason(code=code, facts=tuple(sorted(facts.items())))
