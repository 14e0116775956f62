"""A workload as declared, typed and normalised: what `spec` produces and every decider reads.

Times are milliseconds, money is micro-dollars, memory is bytes, cores are millicores. A field that a
user left out holds the default written here; nothing else in the house invents defaults for it.
"""

from typing import Literal

import msgspec

from steersman.model.ids import QueueName, WorkloadName
from steersman.model.resources import Resources

PRIORITY_DEFAULT = 0
PRIORITY_MIN, PRIORITY_MAX = -1000, 1000
DEFAULT_QUEUE = QueueName("default")

Topology = Literal["", "node", "zone"]
"""Where the ranks of a gang must be together; empty: anywhere."""

SpotPolicy = Literal["on-demand", "spot", "auto"]
"""dstack's words: never spot, only spot, or whichever is expected to cost less."""

RetryEvent = Literal["error", "interruption", "no-capacity"]
"""dstack's words: the program failed; its node or process was lost; it could not be placed (Steersman
always waits for room, so this one changes nothing)."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When to try again. A preemption by Steersman itself is always tried again and never counted.

    `exit_codes_fatal` end the job at once whatever `on_events` says; `exit_codes_retry` are tried again
    even when ``error`` is not among the events. `attempts_max` counts tries that ended by an event of
    this policy, the first included.
    """

    on_events: tuple[RetryEvent, ...] = ("interruption",)
    attempts_max: int = 5
    duration_ms_max: int | None = None
    exit_codes_retry: tuple[int, ...] = ()
    exit_codes_fatal: tuple[int, ...] = ()


class CheckpointPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a job saves its progress. `interval_ms` None means ``auto`` (Young/Daly)."""

    enabled: bool = False
    interval_ms: int | None = None
    interval_ms_min: int = 10_000
    interval_ms_max: int = 3_600_000
    keep_last: int = 3


class SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    """An environment variable filled at start from a sealed secret. The value is never here."""

    env: str
    secret: str


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A dependency: another workload's artifact, given to the job as a read-only file.

    The job sees its path in the environment variable ``STEERSMAN_INPUT_<NAME>``. With `digest` it is that
    content and no other, whatever the other workload makes later; no key of a declaration sets it.
    """

    name: str
    workload: WorkloadName
    artifact: str
    digest: str | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file the job leaves behind; `path` is relative to the run's ``STEERSMAN_OUTPUT_DIR``."""

    name: str
    path: str


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica of a service serves. `target` is ``module:attribute`` of a callable, `python` its
    interpreter; a model of kind onnx is the job's input ``model``."""

    service: WorkloadName
    revision: int
    kind: Literal["onnx", "callable"]
    target: str = ""
    python: str | None = None
    batch_size_max: int = 1
    batch_timeout_ms: int = 30_000


class Job(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """Work that ends. `num_nodes` ranks start together or not at all; `resources` is per rank.

    `workdir_digest` is the digest of the workdir's content when it was declared (``sha256:<hex>``); None when
    there is no workdir, or when an older build declared it. `program` tells what runs: the user's
    command, or a part of Steersman's data plane (then `run` is empty). No key of a declaration sets either.

    `deadline_ms` counts from the declaration; `work_ms` is how long an undisturbed run takes.
    """

    num_nodes: int = 1
    topology: Topology = ""
    setup: str | None = None
    run: str
    workdir: str | None = None
    workdir_digest: str | None = None
    envs: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretRef, ...] = ()
    inputs: tuple[Input, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    max_duration_ms: int | None = None
    stop_grace_ms: int = 30_000
    retry: Retry = Retry()
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    spot_policy: SpotPolicy = "on-demand"
    deadline_ms: int | None = None
    work_ms: int | None = None
    price_usd_micro_per_hour_max: int | None = None
    program: Literal["command", "replica", "gateway"] = "command"
    replica: ReplicaSpec | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One job: declared by a user, or made for a service that owns it."""

    name: WorkloadName
    body: Job
    resources: Resources
    queue: QueueName = DEFAULT_QUEUE
    priority: int = PRIORITY_DEFAULT
    owner: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
