"""What the control API and its clients say to each other. Records only; both sides import them.

Requests refuse unknown fields. Answers may gain fields, and clients tolerate those they do not know.
Times are epoch milliseconds, amounts are integers with their unit last.
"""

from typing import Annotated, Any, Literal

import msgspec

BODY_BYTES_MAX = 4 * 1024 * 1024
"""The largest request body."""
DOCUMENTS_MAX = 1_000
"""The most documents of one submission."""
EVENTS_MAX = 1_000
"""The most audit entries of one answer."""
LOG_CHUNK_BYTES = 256 * 1024
"""The most log bytes of one answer."""
WAIT_MS_MAX = 10_000
"""The longest a status request may wait for a change."""

API_PREFIX = "/v1"


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One text of declarations. `folder` (absolute) is what a relative workdir starts from."""

    source: Annotated[str, msgspec.Meta(max_length=4096)]
    text: str
    folder: Annotated[str, msgspec.Meta(max_length=4096)]


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything of one `up` or `plan`: accepted as a whole or not at all."""

    documents: Annotated[tuple[Document, ...], msgspec.Meta(min_length=1, max_length=DOCUMENTS_MAX)]


class DownRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs and services to remove: those named, or all."""

    names: tuple[str, ...] = ()
    all: bool = False


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    hint: str = ""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorBody


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """One changed key, before and after. `note` says what changed where both are the same words."""

    path: str
    before: str | None
    after: str | None
    note: str = ""


class DeclaredView(msgspec.Struct, frozen=True, kw_only=True):
    """One job or service of a submission against what is there. ``again``: unchanged, and asked for anew.

    `note` is what one should know of it besides.
    """

    name: str
    kind: Literal["created", "changed", "unchanged", "again"]
    restarts: bool = False
    changes: tuple[ChangeView, ...] = ()
    service: bool = False
    note: str = ""


class UpView(msgspec.Struct, frozen=True, kw_only=True):
    """What was declared: jobs, then services. `fleet`, `gateway` and
    `queues` are names of what is new or changed."""

    workloads: tuple[DeclaredView, ...]
    fleet: str | None = None
    warnings: tuple[str, ...] = ()
    position: int = 0
    gateway: str | None = None
    gateway_changes: tuple[ChangeView, ...] = ()
    queues: tuple[str, ...] = ()


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One decision in words; `facts` are those of its reason, `fix` what a person could do."""

    kind: str
    workload: str
    code: str
    words: str
    fix: str = ""
    run: str | None = None
    nodes: tuple[str, ...] = ()
    facts: dict[str, str | int] = {}


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` would declare and what would then be decided. `changed`: it would declare something."""

    changed: bool
    workloads: tuple[DeclaredView, ...]
    decisions: tuple[DecisionView, ...]
    fleet: str | None = None
    warnings: tuple[str, ...] = ()
    idle: str = ""
    gateway: str | None = None
    gateway_changes: tuple[ChangeView, ...] = ()
    queues: tuple[str, ...] = ()


class NamesView(msgspec.Struct, frozen=True, kw_only=True):
    """The workloads that a request reached."""

    names: tuple[str, ...]
    position: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One job at a glance. `settled`: final, or held until somebody changes something.

    `reason` is in words and `code` its stable code; `step` to `samples_per_second` are the run's last report.
    `declared_at` is the journal position that gives a workload its place among those of one priority.
    `cpu_milli` to `part` are asked for by each of `num_nodes` ranks; `part` is of one accelerator:
    ``0.25``, or a MIG profile; empty: whole ones. `rank` is the one that the reason is about, when it is
    about one. `fix` is what a person could do. `market` and `pool` are of the nodes of its run.
    """

    name: str
    phase: str
    settled: bool
    code: str = ""
    reason: str = ""
    rank: int | None = None
    run: str | None = None
    run_state: str = ""
    nodes: tuple[str, ...] = ()
    market: str = ""
    pool: str = ""
    priority: int = 0
    queue: str = ""
    step: float | None = None
    steps_total: float | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    attempts: int = 0
    runs: int = 0
    preemptions: int = 0
    saved_step: int | None = None
    declared_at: int = 0
    declared_ms: int = 0
    not_before_ms: int = 0
    finished_ms: int | None = None
    num_nodes: int = 1
    cpu_milli: int = 0
    memory_bytes: int = 0
    accelerators: dict[str, int] = {}
    part: str = ""
    stopping: bool = False
    removing: bool = False
    service: str | None = None
    fix: str = ""


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One service at a glance. `settled`: as it should be, given up, or held until somebody changes it.

    `ready` counts the replicas that answer, `target` how many should, `replicas` all there are, those that
    drain included. `revision` serves (0: none yet), `rolling` is on its way, `failed` is the newest
    declaration's when that was given up. Rates and percentiles are of the requests that ended in the last
    seconds, all of the same span; None is unknown, or nothing came. `errors` are those of the service's
    making, not of its callers'. `replica` is the one that the reason is about; `failing` is one that ended
    badly, and `said` the last line of its log.
    """

    name: str
    phase: str
    settled: bool
    ready: int
    target: int
    min_replicas: int
    max_replicas: int
    replicas: int = 0
    revision: int = 0
    rolling: int | None = None
    failed: int | None = None
    requests_per_second: float | None = None
    errors_per_second: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    ongoing: int | None = None
    queue: int | None = None
    url: str = ""
    code: str = ""
    reason: str = ""
    fix: str = ""
    replica: str = ""
    priority: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    declared_at: int = 0
    declared_ms: int = 0
    cold_start_ms: int | None = None
    stopping: bool = False
    removing: bool = False
    failing: str = ""
    said: str = ""


class GatewayView(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway as it is declared (`address`, `port`; 0 is any), and as it is: `listens_on` is
    ``ADDRESS:PORT``, empty when it does not run. `settled`: it has taken over what is declared, or does not
    run. `warning` says when it listens elsewhere than it was told to."""

    address: str
    port: int
    listens_on: str = ""
    settled: bool = True
    warning: str = ""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    site: str
    health: str
    cpu_milli: int
    cpu_milli_used: int
    memory_bytes: int
    memory_bytes_used: int
    devices: int
    devices_free: int


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """A quota in words with units. `borrowed` is what is held beyond the nominal quota."""

    resource: str
    used: str
    nominal: str
    borrowed: str = ""
    borrowing_limit: str = ""
    lending_limit: str = ""


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A declared queue. `share` is the part of the fleet that it holds and held of late, by its weight; the
    budget and what of it is spent in this period are in dollars and device hours."""

    name: str
    cohort: str
    weight: float
    share: float
    waiting: int
    quotas: tuple[QuotaView, ...] = ()
    usd: float | None = None
    usd_spent: float = 0.0
    gpu_hours: float | None = None
    gpu_hours_spent: float = 0.0
    refused: str = ""


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster of the fleet. `seen_ms`: when it was last seen to change; None: not yet. `problem`: why it
    could not be asked."""

    name: str
    infra: str
    address: str
    nodes: int
    seen_ms: int | None = None
    problem: str = ""
    hint: str = ""


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one journal position.

    `workloads` are the jobs that people declared; with all of them also those that Steersman runs itself
    (replicas and the gateway), of which there are `owned`.
    """

    position: int
    now_ms: int
    healthy: bool
    problem: str
    fleet: str | None
    nodes: tuple[NodeView, ...]
    workloads: tuple[Row, ...]
    services: tuple[ServiceRow, ...] = ()
    owned: int = 0
    gateway: GatewayView | None = None
    queues: tuple[QueueView, ...] = ()
    clusters: tuple[ClusterView, ...] = ()


class RankView(msgspec.Struct, frozen=True, kw_only=True):
    rank: int
    node: str
    state: str
    limits: str = ""
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""
    detail: str = ""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: str
    attempt: int
    decision: str
    decided_ms: int
    started_ms: int | None
    ended_ms: int | None
    stop: str | None
    checkpoint_interval_ms: int | None
    ranks: tuple[RankView, ...]


class ArtifactView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored artifact and the file that holds it."""

    name: str
    digest: str
    size_bytes: int
    run: str
    path: str


class WorkloadView(msgspec.Struct, frozen=True, kw_only=True):
    row: Row
    spec: dict[str, Any]
    digest: str
    run: RunView | None
    last_run: RunView | None
    artifacts: tuple[ArtifactView, ...]
    progress: dict[str, float]


class RevisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a service over `span_ms`; revision 0 is what waited, or was refused, before a replica
    was chosen.

    `requests` counts how requests ended since this control plane looks, `recent` those of the span. Means are
    None without any. The time of an answered request is `waited` (for a replica), `model`, and the `rest`.
    """

    revision: int
    state: str
    model_digest: str | None = None
    requests: dict[str, int] = {}
    recent: dict[str, int] = {}
    retried: int = 0
    ongoing: int = 0
    queue: int = 0
    batch_rows_mean: float | None = None
    waited_ms_mean: float | None = None
    model_ms_mean: float | None = None
    rest_ms_mean: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cpu_seconds_per_1000: float | None = None


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the job that runs it, and its run."""

    name: str
    revision: int
    state: str
    run: str | None = None
    nodes: tuple[str, ...] = ()
    runs: int = 0
    ready_ms: int | None = None
    reason: str = ""
    retiring: bool = False


class SignalView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    at_ms: int
    value: int | None


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one service. `cpu_seconds_per_1000`: of its replicas and its share of the gateway, per
    thousand answered requests of the last `span_ms`."""

    row: ServiceRow
    spec: dict[str, Any]
    digest: str
    revisions: tuple[RevisionView, ...]
    replicas: tuple[ReplicaView, ...]
    signals: tuple[SignalView, ...]
    span_ms: int | None = None
    cpu_seconds_per_1000: float | None = None
    gateway: GatewayView | None = None


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key to make, or to make anew under its name. Rates are requests a second, in thousandths."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    services: Annotated[tuple[str, ...], msgspec.Meta(max_length=1_000)] = ()
    expires_in_ms: Annotated[int, msgspec.Meta(gt=0)] | None = None
    rate_milli: Annotated[int, msgspec.Meta(gt=0)] | None = None
    burst: Annotated[int, msgspec.Meta(gt=0)] = 100
    concurrency: Annotated[int, msgspec.Meta(gt=0)] | None = None
    weight: Annotated[int, msgspec.Meta(gt=0)] = 1
    priority_max: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an API key; `digest_start` are the first hex digits of its digest."""

    name: str
    digest_start: str
    services: tuple[str, ...]
    expires_ms: int | None
    expired: bool
    rate_milli: int | None
    burst: int
    concurrency: int | None
    weight: int
    priority_max: int


class KeysView(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[KeyView, ...]


class NewKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was made. `secret` is the key itself: said here once, and kept nowhere."""

    key: KeyView
    secret: str
    position: int = 0


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One audit entry. `subjects` are the names of the workloads, runs and nodes it is about."""

    position: int
    at_ms: int
    type: str
    version: int
    subjects: tuple[str, ...]
    body: Any


class EventsView(msgspec.Struct, frozen=True, kw_only=True):
    """Audit entries in order. `next_after` continues where this ends; None when it reached the head."""

    events: tuple[EventView, ...]
    next_after: int | None


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one rank's output.

    `next_offset` is where to go on (a word of this API's own; not a number). `lost`: output before this was
    rotated away before it was asked for. `live`: more may come. `end`: this is all there is now.
    """

    run: str
    rank: int
    text: str
    next_offset: str
    lost: bool
    live: bool
    end: bool


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of the doctor."""

    name: str
    state: Literal["ok", "warning", "problem"]
    words: str
    hint: str = ""


class DoctorView(msgspec.Struct, frozen=True, kw_only=True):
    checks: tuple[CheckView, ...]


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """The open route's whole answer."""

    alive: bool = True
