"""Services as clients see them: rows and whole views, with the gateway's live figures. Pure.

Figures are kept in memory by the sensor that reads the gateway's counters; where they are unknown, so is what
follows from them, and None says so.
"""

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from steersman.app.gateway_place import moved
from steersman.app.wire import GatewayView, ReplicaView, RevisionView, ServiceRow, ServiceView, SignalView
from steersman.explain import services
from steersman.explain.words import describe
from steersman.model.reasons import Code
from steersman.model.service import GATEWAY_NAME, Gateway
from steersman.model.snapshot import (
    FINAL_PHASES,
    Phase,
    ReplicaRef,
    Revision,
    RunState,
    ServiceState,
    Snapshot,
    WorkloadState,
)
from steersman.ports.gateway import GatewayAddress, ModelStats
from steersman.sensors.figures import (
    LONG_SPAN_MS,
    SPAN_MS,
    Figures,
    RevisionFigures,
    ServiceFigures,
    mean_ms,
    quantile_ms,
)

OF_CALLERS = frozenset({"ok", "invalid", "unauthorized", "rate-limited", "client-gone"})
"""Outcomes that are no error of the service's."""
HELD_BY_FLEET = frozenset({Code.REFUSED_TOO_LARGE, Code.NO_NODES})
GATEWAY_TRIES_MAX = 3
"""After so many failures in a row nobody waits any longer for the gateway to come up."""
ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - listened at, and reached at the other


class Live(NamedTuple):
    """What is known besides the snapshot: of the gateway its figures, where it listens, and whether it has
    taken over what is declared; of replicas that ended badly what they left behind."""

    figures: Figures
    address: GatewayAddress | None
    follows: bool = True
    failures: services.Heard = services.NOTHING_HEARD


def nothing_live() -> Live:
    """For a snapshot that nobody watches."""
    return Live(Figures(), None)


def listening(snapshot: Snapshot, live: Live) -> bool:
    """Whether somebody takes requests: the gateway runs and has said where."""
    job = snapshot.workloads.get(GATEWAY_NAME)
    run = None if job is None or job.run is None else snapshot.runs[job.run]
    return live.address is not None and run is not None and run.state is RunState.RUNNING


def gateway(snapshot: Snapshot, live: Live) -> GatewayView | None:
    """The gateway, as declared and as it is; None while nobody asked for one."""
    if not len(snapshot.services) and snapshot.gateway is None:
        return None
    declared = snapshot.gateway or Gateway()
    address = live.address
    if address is None or not listening(snapshot, live):
        return GatewayView(address=declared.address, port=declared.port)
    return GatewayView(
        address=declared.address,
        port=declared.port,
        listens_on=f"{bracketed(address.address)}:{address.port}",
        settled=live.follows,
        warning=moved(declared, address) if live.follows else "",
    )


def row(snapshot: Snapshot, state: ServiceState, live: Live, span_ms: int = SPAN_MS) -> ServiceRow:
    """One service at a glance; its figures are of the last `span_ms`."""
    spec, scaling = state.spec, state.spec.scaling
    heard = listening(snapshot, live)
    found = services.standing(snapshot, state, listening=heard, heard=live.failures)
    told = live.failures.get(found.failing)
    figures = live.figures.service_figures(spec.name, span_ms, state.declared_at)
    failed = state.failed if services.given_up(state) else None
    return ServiceRow(
        name=spec.name,
        phase=found.phase,
        settled=settled(snapshot, state, heard=heard and live.follows),
        ready=found.answering,
        target=found.wanted,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        replicas=len(state.replicas),
        revision=0 if state.serving is None else state.serving.number,
        rolling=None if state.rolling is None else state.rolling.number,
        failed=None if failed is None else failed.number,
        requests_per_second=None if figures is None else _per_second(figures, frozenset()),
        errors_per_second=None if figures is None else _per_second(figures, OF_CALLERS),
        p50_ms=None if figures is None else quantile_ms(figures.latency_us, 500),
        p95_ms=None if figures is None else quantile_ms(figures.latency_us, 950),
        p99_ms=None if figures is None else quantile_ms(figures.latency_us, 990),
        ongoing=None if figures is None else figures.ongoing,
        queue=None if figures is None else figures.queued,
        url=url(live.address, spec.name) if heard else "",
        code=found.code,
        reason=found.why,
        fix=found.fix,
        replica=found.subject if found.subject != spec.name else "",
        priority=spec.priority,
        cpu_milli=spec.resources.cpu_milli,
        memory_bytes=spec.resources.memory_bytes,
        declared_at=state.declared_at,
        declared_ms=state.declared_ms,
        cold_start_ms=state.cold_start_ms,
        stopping=state.stop_requested,
        removing=state.removing,
        failing=found.failing,
        said="" if told is None else told.line,
    )


def url(address: GatewayAddress | None, name: str) -> str:
    """Where the service is asked with plain JSON."""
    if address is None:
        return ""
    host = bracketed(ANY_HOSTS.get(address.address, address.address))
    return f"http{'s' if address.tls else ''}://{host}:{address.port}/predict/{name}"


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _per_second(figures: ServiceFigures, without: Collection[str]) -> float:
    """How many requests ended a second, some outcomes left out: all rates count the same requests, for one
    that arrived before the span and ended in it would be an error without a request."""
    count = sum(number for name, number in figures.outcomes.items() if name not in without)
    return round(count * 1000 / max(figures.span_ms, 1), 3)


# Whether more happens by itself.


def settled(snapshot: Snapshot, state: ServiceState, *, heard: bool) -> bool:
    """Whether it is as it should be, was given up, or waits for what only a person changes.

    `heard`: the gateway takes requests.
    """
    newest = services.newest_revision(state)
    if state.removing or state.stop_requested:
        return not state.removing and not state.replicas
    if services.given_up(state):
        return True
    if newest is None:
        return _held_by_model(snapshot, state)
    return newest.generation == state.generation and _complete(snapshot, state, newest, heard=heard)


def _complete(snapshot: Snapshot, state: ServiceState, newest: Revision, *, heard: bool) -> bool:
    """Whether enough of the newest revision answer, or what is lacking is held."""
    mine = [ref for ref in state.replicas if ref.revision == newest.number and not ref.retiring]
    lacking = [snapshot.workloads[ref.name] for ref in mine if not _ready(snapshot, ref)]
    if len(mine) - len(lacking) >= services.wanted(state):
        taken_over = state.rolling is None  # until then the next cycle has something to decide
        return taken_over and (heard or _gateway_held(snapshot))
    return bool(lacking) and all(map(_held, lacking))


def _ready(snapshot: Snapshot, ref: ReplicaRef) -> bool:
    run = snapshot.workloads[ref.name].run
    found = None if run is None else snapshot.runs[run]
    return found is not None and found.state is RunState.RUNNING and found.ready_ms is not None


def _held(job: WorkloadState) -> bool:
    why = job.reason
    held = job.phase is Phase.DECLARED and why is not None and not job.recheck
    return held and why is not None and why.code in HELD_BY_FLEET


def _gateway_held(snapshot: Snapshot) -> bool:
    job = snapshot.workloads.get(GATEWAY_NAME)
    failing = job is not None and job.phase is Phase.BACKOFF and job.failures >= GATEWAY_TRIES_MAX
    return job is not None and (failing or _held(job))


def _held_by_model(snapshot: Snapshot, state: ServiceState) -> bool:
    """Whether the model it waits for does not come by itself."""
    why = state.reason
    if why is None or why.code not in (Code.WAITING_INPUT, Code.INPUT_FAILED):
        return False
    origin = snapshot.workloads.get(str(dict(why.facts).get("workload")))
    return origin is None or origin.phase in FINAL_PHASES or (_held(origin) and not origin.stop_requested)


# Everything about one.


def view(snapshot: Snapshot, state: ServiceState, live: Live) -> ServiceView:
    """Everything about one service."""
    figures = live.figures.service_figures(state.spec.name, LONG_SPAN_MS, state.declared_at)
    return ServiceView(
        row=row(snapshot, state, live, LONG_SPAN_MS),
        spec=msgspec.to_builtins(state.spec),
        digest=state.digest,
        revisions=tuple(_revisions(state, figures)),
        replicas=tuple(_replica(snapshot, ref) for ref in state.replicas),
        signals=tuple(
            SignalView(name=signal.name, at_ms=signal.at_ms, value=signal.value) for signal in state.signals
        ),
        span_ms=None if figures is None else figures.span_ms,
        cpu_seconds_per_1000=None if figures is None else _cpu(figures.outcomes, _cpu_us(figures)),
        gateway=gateway(snapshot, live),
    )


def _cpu_us(figures: ServiceFigures) -> int:
    return figures.replica_cpu_us + figures.gateway_cpu_us


def _cpu(outcomes: dict[str, int], cpu_us: float) -> float | None:
    """CPU-seconds a thousand answered requests."""
    answered = outcomes.get("ok", 0)
    return round(cpu_us / 1000 / answered, 4) if answered else None


def _revisions(state: ServiceState, figures: ServiceFigures | None) -> list[RevisionView]:
    """Those the state knows and those that have figures, oldest first."""
    known: dict[int, tuple[str, Revision | None]] = {}
    for word, revision in (("failed", state.failed), ("serving", state.serving), ("rolling", state.rolling)):
        if revision is not None:
            known[revision.number] = (word, revision)
    counted = {} if figures is None else {item.revision: item for item in figures.revisions}
    views = []
    for number in sorted({*known, *counted}):
        word, revision = known.get(number, ("" if number == 0 else "gone", None))
        digest = None if revision is None else revision.model_digest
        item = counted.get(number)
        if item is None or figures is None:
            views.append(RevisionView(revision=number, state=word, model_digest=digest))
        else:
            views.append(_revision(item, figures, word, digest))
    return views


def _revision(item: RevisionFigures, figures: ServiceFigures, word: str, digest: str | None) -> RevisionView:
    counts = item.counts
    ended = sum(figures.outcomes.values())
    share = figures.gateway_cpu_us * item.ended / ended if ended else 0.0
    return RevisionView(
        revision=item.revision,
        state=word,
        model_digest=digest,
        requests=dict(item.total.outcomes),
        recent=dict(counts.outcomes),
        retried=counts.retried,
        ongoing=counts.ongoing,
        queue=counts.queued,
        batch_rows_mean=round(counts.rows / counts.batches, 2) if counts.batches else None,
        waited_ms_mean=mean_ms(counts.waited_us),
        model_ms_mean=mean_ms(counts.model_us),
        rest_ms_mean=_rest(counts),
        p50_ms=quantile_ms(counts.latency_us, 500),
        p95_ms=quantile_ms(counts.latency_us, 950),
        p99_ms=quantile_ms(counts.latency_us, 990),
        cpu_seconds_per_1000=_cpu(counts.outcomes, counts.replica_cpu_us + share),
    )


def _rest(counts: ModelStats) -> float | None:
    """What of the mean latency is neither waiting nor the model."""
    whole, waited, model = mean_ms(counts.latency_us), mean_ms(counts.waited_us), mean_ms(counts.model_us)
    if whole is None or waited is None or model is None:
        return None
    return round(max(whole - waited - model, 0.0), 3)


def _replica(snapshot: Snapshot, ref: ReplicaRef) -> ReplicaView:
    job = snapshot.workloads[ref.name]
    run = None if job.run is None else snapshot.runs[job.run]
    nodes = () if run is None else tuple(sorted({rank.placement.node for rank in run.ranks}))
    return ReplicaView(
        name=ref.name,
        revision=ref.revision,
        state=_replica_state(snapshot, ref),
        run=None if run is None else run.id,
        nodes=nodes,
        runs=job.runs,
        ready_ms=None if run is None else run.ready_ms,
        reason="" if job.reason is None else describe(job.reason),
        retiring=ref.retiring,
    )


def _replica_state(snapshot: Snapshot, ref: ReplicaRef) -> str:
    """ready, loading, starting, stopping, waiting or backoff."""
    job = snapshot.workloads[ref.name]
    run = None if job.run is None else snapshot.runs[job.run]
    if ref.retiring or (run is not None and run.state is RunState.STOPPING):
        return "stopping"
    if run is None or run.state is RunState.ENDED:
        return "backoff" if job.phase is Phase.BACKOFF else "waiting"
    if run.state is RunState.STARTING:
        return "starting"
    return "loading" if run.ready_ms is None else "ready"


REPLICA_STATES = ("ready", "loading", "starting", "stopping", "waiting", "backoff")


def replica_states(snapshot: Snapshot, state: ServiceState) -> dict[str, int]:
    """How many replicas are in each state; none is zero."""
    found = dict.fromkeys(REPLICA_STATES, 0)
    for ref in state.replicas:
        found[_replica_state(snapshot, ref)] += 1
    return found
