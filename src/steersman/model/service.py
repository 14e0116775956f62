"""A service as declared: a model behind the gateway, with as many replicas as its load asks for.

A service is a declaration of its own beside the jobs. Its replicas are jobs that it owns: `rollout` adds and
retires them, and the rest of the house (queue, leases, preemption, restarts) treats them like any other.
Times are milliseconds, counts of requests are thousandths where a name ends with ``_milli``.
"""

from typing import Literal

import msgspec

from steersman.model.ids import QueueName, WorkloadName
from steersman.model.resources import Resources
from steersman.model.workload import DEFAULT_QUEUE, PRIORITY_DEFAULT, SecretRef

GATEWAY_NAME = WorkloadName("steersman.gateway")
"""The job that runs the gateway. No user's name has a dot, and a replica's ends with a number."""


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """A job's artifact."""

    workload: WorkloadName
    artifact: str


class OnnxModel(msgspec.Struct, frozen=True, kw_only=True, tag="onnx"):
    """An ONNX file: a path (`digest` is that of its content when it was declared), or a job's artifact."""

    path: str | None = None
    digest: str | None = None
    artifact: ArtifactRef | None = None


class CallableModel(msgspec.Struct, frozen=True, kw_only=True, tag="callable"):
    """A Python object, ``module:attribute`` from the workdir. `python`: its interpreter, if not ours."""

    target: str
    python: str | None = None


class InputRange(msgspec.Struct, frozen=True, kw_only=True):
    """What values of one input of the model are accepted; None: any finite one."""

    name: str
    minimum: float | None = None
    maximum: float | None = None


Named = Literal["backlog", "queued_jobs"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One number more that moves the number of replicas: by `name`, or what a query of Prometheus gives.

    `target_milli`: thousandths of what it should be, of one replica or, with `per` total, for each replica
    of the whole. ``backlog``: seconds that what waits takes at the present rate; ``queued_jobs``: jobs that
    wait in `queue`.
    """

    name: Named | None = None
    queue: QueueName | None = None
    url: str | None = None
    query: str | None = None
    target_milli: int
    per: Literal["replica", "total"]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """From each minute that `cron` names, and for `duration_ms`, there are at least `min_replicas`.

    `cron` is told in a time that is `offset_minutes` ahead of UTC all the year.
    """

    cron: str
    duration_ms: int
    min_replicas: int
    offset_minutes: int = 0


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas, and what moves the number. The names are Ray Serve's.

    `target_ongoing_requests_milli`: requests in flight and queued that one replica should carry.
    `latency_p99_ms`: scale up while the 99th percentile over the look-back is above it.
    `queued_requests_milli`: waiting requests per replica above which more are wanted.
    Factors are thousandths: 1000 goes the whole way at once. `forecast`: there are also as many replicas as
    what is expected to come needs.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int | None = None
    target_ongoing_requests_milli: int = 2_000
    queued_requests_milli: int | None = None
    latency_p99_ms: int | None = None
    upscale_delay_ms: int = 3_000
    downscale_delay_ms: int = 60_000
    downscale_to_zero_delay_ms: int = 300_000
    look_back_ms: int = 5_000
    upscaling_factor_milli: int = 1_000
    downscaling_factor_milli: int = 1_000
    forecast: bool = True
    metrics: tuple[Metric, ...] = ()
    schedule: tuple[Window, ...] = ()

    @property
    def foresees(self) -> bool:
        """Whether there is a forecast: a number that is fixed needs none."""
        return self.forecast and self.min_replicas != self.max_replicas


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway lets in. `queued_max` counts requests that wait, over all of one gateway process."""

    queued_max: int = 1_024
    timeout_ms: int = 30_000
    body_bytes_max: int = 4 * 2**20
    batch_size_max: int = 64
    batch_wait_ms: int = 0


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a new revision takes over. It fails when none of its replicas gets ready in `ready_timeout_ms`
    of running, or when one crashes `crashes_max` times before it was ready, or soon after. A replica counts
    as taking over once it has been ready for `ready_ms_min` (Kubernetes' minReadySeconds)."""

    surge_max: int = 1
    ready_timeout_ms: int = 120_000
    crashes_max: int = 3
    ready_ms_min: int = 0


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One declaration of kind service. `resources` is per replica."""

    name: WorkloadName
    model: OnnxModel | CallableModel
    resources: Resources
    scaling: Scaling = Scaling()
    limits: RequestLimits = RequestLimits()
    rollout: RolloutPolicy = RolloutPolicy()
    inputs: tuple[InputRange, ...] = ()
    slo_latency_p99_ms: int | None = None
    setup: str | None = None
    workdir: str | None = None
    workdir_digest: str | None = None
    envs: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretRef, ...] = ()
    stop_grace_ms: int = 30_000
    queue: QueueName = DEFAULT_QUEUE
    priority: int = PRIORITY_DEFAULT
    owner: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The home's front door: one declaration of kind gateway; the defaults hold until there is one.

    `keys`: ``required`` answers nobody without an API key; ``optional`` serves callers without one as the
    anonymous key. On an address beyond loopback only ``required`` is accepted. `hosts`: names that the Host
    header may have besides the address itself. `port` 0: any that is free. Paths of `certificate` and
    `private_key` (PEM) are absolute; both or none.
    """

    name: str = "gateway"
    address: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    keys: Literal["required", "optional"] = "optional"
    hosts: tuple[str, ...] = ()
    certificate: str | None = None
    private_key: str | None = None
    connections_max: int = 4_096
    connections_per_address_max: int = 1_024


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an API key: never the key itself, but the SHA-256 of its 256 random bits, in hex.

    `services` empty: all of them. `rate_milli` requests a second on average with bursts of `burst`;
    `concurrency` requests at once. `weight` is its share when keys compete; `priority_max` the highest band
    it may ask for (0 low, 1 normal, 2 high).
    """

    name: str
    digest: str
    services: tuple[WorkloadName, ...] = ()
    expires_ms: int | None = None
    rate_milli: int | None = None
    burst: int = 100
    concurrency: int | None = None
    weight: int = 1
    priority_max: int = 1
