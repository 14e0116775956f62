"""The contract between the control plane and the gateway: files, and nothing else.

    <home>/gateway/config.json         control plane → gateway: `GatewayConfig`, replaced whole
    <home>/gateway/address.json        gateway → control plane: `GatewayAddress`, where it listens
    <home>/gateway/stats-<n>.json      gateway process n → control plane: `GatewayStats`, every STATS_MS
    <home>/gateway/replicas.pem        control plane → gateway: key and certificate for replicas on other
                                       machines; replicas-ca.pem: the authority that theirs are of

The gateway reads its configuration again when the file's identity (inode, mtime) changes, looked at every
CONFIG_LOOK_MS. A configuration that cannot be read, or is of a lower epoch than the one in use, is ignored
and counted: it keeps serving the last good one. It needs the control plane for nothing else. Unknown fields
are ignored on both sides.
"""

from typing import Literal, Protocol

import msgspec

from steersman.model.service import ApiKey, Gateway, InputRange, RequestLimits

GATEWAY = "gateway"
CONFIG_FILE = "config.json"
ADDRESS_FILE = "address.json"
STATS_PREFIX = "stats-"
PEERS_FILE = "replicas.pem"
PEERS_AUTHORITY_FILE = "replicas-ca.pem"
CONFIG_LOOK_MS = 20
STATS_MS = 250
STATS_STALE_MS = 3_000
"""Figures older than this are unknown, not zero."""


class ReplicaTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the run's name and where it listens once it is ready. `socket` is the path of a Unix
    socket on this machine; with an `address` (``ip:port``) it is reached over TCP and TLS instead, see
    `ports.peers`."""

    run: str
    socket: str = ""
    address: str = ""


class RevisionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one revision of a service, whatever their state: the gateway tries to reach each."""

    revision: int
    replicas: tuple[ReplicaTarget, ...]


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `hold_ms`: how long a request may wait while there is no replica at all, because the
    service scales to zero or is starting; it is refused with 503 at once when that is 0."""

    name: str
    revisions: tuple[RevisionConfig, ...]
    limits: RequestLimits
    inputs: tuple[InputRange, ...] = ()
    slo_latency_ms: int | None = None
    hold_ms: int = 0


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a gateway needs. `position` is the journal position it follows from."""

    format: int = 1
    epoch: int
    position: int
    gateway: Gateway
    services: tuple[ServiceConfig, ...]
    keys: tuple[ApiKey, ...]


class GatewayAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens now. `pid` is its master's."""

    address: str
    port: int
    tls: bool
    pid: int


class ModelStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one revision of one service since the gateway process began; revision 0 is what was
    refused before any revision was chosen.

    `outcomes`: how requests ended, by the words of `Outcome`. `ongoing_us` is the sum over time of requests
    in flight and queued, in request-microseconds; its difference over a span, divided by the span, is the
    mean number of ongoing requests. `queued_us` likewise of those that wait. Sketches are in microseconds.
    `replica_cpu_us` is the CPU that the replicas say their batches took.
    """

    service: str
    revision: int
    outcomes: dict[str, int] = {}
    ongoing: int = 0
    queued: int = 0
    ongoing_us: int = 0
    queued_us: int = 0
    rows: int = 0
    batches: int = 0
    retried: int = 0
    ready_replicas: int = 0
    replica_cpu_us: int = 0
    latency_us: dict[int, int] = {}
    waited_us: dict[int, int] = {}
    model_us: dict[int, int] = {}


class GatewayStats(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one gateway process; its last ones when it has `ended` as it was told."""

    format: int = 1
    process: int
    pid: int
    started_ms: int
    at_ms: int
    cpu_us: int
    connections: int
    refused_connections: int = 0
    config_position: int = 0
    config_refused: int = 0
    ended: bool = False
    models: tuple[ModelStats, ...] = ()


class Gateways(Protocol):
    """The control plane's side of the files.

    Contract: `publish` is durable enough that a reader sees the old or the new configuration whole; it
    raises DriverError when it cannot. `observe` returns what can be read and is not older than
    STATS_STALE_MS; an empty answer means unknown. It changes nothing. `address` is where the gateway said
    that it listens, None before it ever did. `target` is where the replica of a run listens, or will. It is
    asked for every replica in every cycle, so it is cheap, and it never raises.
    """

    def target(self, run: str) -> ReplicaTarget: ...

    def publish(self, config: GatewayConfig) -> None: ...

    def observe(self, now_ms: int) -> tuple[GatewayStats, ...]: ...

    def address(self) -> GatewayAddress | None: ...


Outcome = Literal[
    "ok",
    "invalid",
    "unauthorized",
    "rate-limited",
    "queue-full",
    "no-replica",
    "deadline",
    "timeout",
    "model-error",
    "replica-lost",
    "client-gone",
]
"""How a request ended. ``invalid``: a 4xx of the caller's making. ``deadline``: refused at admission, for it
could not be met. ``timeout``: admitted, and not answered in time. ``replica-lost``: lost twice."""
