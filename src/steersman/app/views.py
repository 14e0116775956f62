"""From the snapshot to the records that clients see. Pure; nothing here decides or waits.

Control characters of names and details are left as they are: what shows them to people makes them harmless.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from steersman.app.queues import queue_views
from steersman.app.serving import HELD_BY_FLEET, Live, gateway, nothing_live
from steersman.app.serving import row as service_row
from steersman.app.wire import (
    ArtifactView,
    ClusterView,
    DecisionView,
    NodeView,
    RankView,
    Row,
    RunView,
    StatusView,
    WorkloadView,
)
from steersman.engine.stats import EngineStats
from steersman.explain.history import decision_words
from steersman.explain.words import describe, fix
from steersman.explain.workload import current_reason, part_of
from steersman.model.decisions import Decision, Reserve, SetCheckpointInterval, Start, Stop
from steersman.model.ids import RunId
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import Device
from steersman.model.snapshot import (
    FINAL_PHASES,
    ClusterState,
    NodeState,
    Phase,
    RankState,
    Run,
    Snapshot,
    WorkloadState,
)

Progress = Callable[[RunId], Mapping[str, float]]
"""The last metrics a run reported; empty when there are none."""

STEP, STEPS_TOTAL, LOSS, SAMPLES = "step", "total_steps", "loss", "samples_per_s"
"""What trainers call the metrics that have a column of their own."""


def no_progress(_: RunId) -> Mapping[str, float]:
    """For a snapshot that nobody watches."""
    return {}


def status(
    snapshot: Snapshot,
    stats: EngineStats,
    progress: Progress,
    live: Live | None = None,
    *,
    owned: bool = False,
) -> StatusView:
    """Everything at once, sorted by name; with `owned` also the jobs that Steersman runs itself."""
    here = nothing_live() if live is None else live
    jobs = [state for _, state in snapshot.workloads.sorted_items()]
    shown = jobs if owned else [state for state in jobs if not is_owned(state)]
    return StatusView(
        position=snapshot.position,
        now_ms=snapshot.now_ms,
        healthy=stats.healthy,
        problem=stats.problem,
        fleet=snapshot.fleet_name,
        nodes=tuple(node_view(state) for _, state in snapshot.nodes.sorted_items()),
        workloads=tuple(row(snapshot, state, progress) for state in shown),
        services=tuple(service_row(snapshot, state, here) for _, state in snapshot.services.sorted_items()),
        owned=sum(map(is_owned, jobs)),
        gateway=gateway(snapshot, here),
        queues=queue_views(snapshot),
        clusters=tuple(cluster_view(snapshot, state) for state in snapshot.clusters),
    )


def cluster_view(snapshot: Snapshot, state: ClusterState) -> ClusterView:
    """One cluster, and how many nodes it has that take work."""
    here = [each for _, each in snapshot.nodes.sorted_items() if each.node.cluster == state.spec.name]
    return ClusterView(
        name=state.spec.name,
        infra=state.spec.driver,
        address=state.spec.address,
        nodes=sum(each.declared and each.health == "alive" for each in here),
        seen_ms=state.seen_ms,
        problem=state.problem,
        hint=state.hint,
    )


def is_owned(state: WorkloadState) -> bool:
    """Whether Steersman made the job itself: a replica of a service, or the gateway."""
    return state.spec.body.program != "command"


def row(snapshot: Snapshot, state: WorkloadState, progress: Progress) -> Row:
    """One job at a glance."""
    run = current_run(snapshot, state)
    why = _current(snapshot, state)
    metrics = {} if run is None else progress(run.id)
    return Row(
        name=state.spec.name,
        phase=state.phase.value,
        settled=settled(snapshot, state),
        code="" if why is None else why.code.value,
        reason="" if why is None else describe(why),
        rank=_rank_of(why),
        run=None if run is None else run.id,
        run_state="" if run is None else run.state.value,
        nodes=() if run is None else _nodes(run),
        market="" if run is None else run.market,
        pool="" if run is None else run.pool,
        priority=state.spec.priority,
        queue=state.spec.queue,
        step=metrics.get(STEP),
        steps_total=metrics.get(STEPS_TOTAL),
        loss=metrics.get(LOSS),
        samples_per_second=metrics.get(SAMPLES),
        attempts=state.attempts,
        runs=state.runs,
        preemptions=state.preemptions,
        saved_step=state.saved_step,
        declared_at=state.declared_at,
        declared_ms=state.declared_ms,
        not_before_ms=state.not_before_ms if state.phase is Phase.BACKOFF else 0,
        num_nodes=state.spec.body.num_nodes,
        cpu_milli=state.spec.resources.cpu_milli,
        memory_bytes=state.spec.resources.memory_bytes,
        accelerators=dict(state.spec.resources.accelerators),
        part=part_of(state.spec.resources),
        finished_ms=state.finished_ms,
        stopping=state.stop_requested,
        removing=state.removing,
        service=state.service,
        fix="" if why is None else fix(why, state.spec.name) or "",
    )


def _current(snapshot: Snapshot, state: WorkloadState) -> Reason | None:
    """Why it is where it is. What a person asked for counts from when it was asked, not from when it is done:
    until then the recorded reason is that of the state it leaves."""
    if state.removing:
        return reason(Code.REMOVED)
    if state.stop_requested and state.phase not in FINAL_PHASES:
        return reason(Code.STOP_REQUESTED)
    return current_reason(snapshot, state)


def _rank_of(why: Reason | None) -> int | None:
    """The rank that the reason names."""
    rank = None if why is None else dict(why.facts).get("rank")
    return rank if isinstance(rank, int) else None


def current_run(snapshot: Snapshot, state: WorkloadState) -> Run | None:
    """The run that is under way, else the last one."""
    return state.last_run if state.run is None else snapshot.runs[state.run]


def settled(snapshot: Snapshot, state: WorkloadState) -> bool:
    """Whether nothing more happens to the workload by itself: it is final, or held by something that only a
    person changes (the fleet is too small, or what it waits for is itself held or not there)."""
    seen: set[str] = set()
    while state.phase not in FINAL_PHASES:
        why = state.reason
        if state.phase is not Phase.DECLARED or why is None or state.recheck or state.stop_requested:
            return False
        if why.code in HELD_BY_FLEET:
            return True
        source = dict(why.facts).get("workload") if why.code is Code.WAITING_INPUT else None
        if source is None or source in seen:
            return False
        seen.add(str(source))
        origin = snapshot.workloads.get(str(source))
        if origin is None:
            return True
        if origin.phase in FINAL_PHASES:
            return False
        state = origin
    return True


def node_view(state: NodeState) -> NodeView:
    """A node and what is leased of it."""
    devices: tuple[Device, ...] = state.node.devices
    return NodeView(
        id=state.node.id,
        site=state.node.site,
        health=state.health,
        cpu_milli=state.node.cpu_milli,
        cpu_milli_used=state.used_cpu_milli,
        memory_bytes=state.node.memory_bytes,
        memory_bytes_used=state.used_memory_bytes,
        devices=len(devices),
        devices_free=len(state.free_devices),
    )


def workload(
    snapshot: Snapshot, state: WorkloadState, progress: Progress, artifact_path: Callable[[str], Path]
) -> WorkloadView:
    """Everything about one workload."""
    run = None if state.run is None else snapshot.runs[state.run]
    return WorkloadView(
        row=row(snapshot, state, progress),
        spec=msgspec.to_builtins(state.spec),
        digest=state.digest,
        run=None if run is None else run_view(run),
        last_run=None if state.last_run is None else run_view(state.last_run),
        artifacts=tuple(
            ArtifactView(
                name=item.name,
                digest=item.digest,
                size_bytes=item.size_bytes,
                run=item.run,
                path=str(artifact_path(item.digest)),
            )
            for item in state.artifacts
        ),
        progress={} if run is None else dict(progress(run.id)),
    )


def run_view(run: Run) -> RunView:
    """One try."""
    return RunView(
        id=run.id,
        state=run.state.value,
        attempt=run.attempt,
        decision=run.decision,
        decided_ms=run.decided_ms,
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        stop=run.stop,
        checkpoint_interval_ms=run.interval_ms,
        ranks=tuple(_rank_view(rank) for rank in run.ranks),
    )


def _rank_view(rank: RankState) -> RankView:
    end = rank.end
    if end is not None:
        state = "ended"
    elif rank.unknown:
        state = "unknown"
    else:
        state = "starting" if rank.started_ms is None else "running"
    return RankView(
        rank=rank.placement.rank,
        node=rank.placement.node,
        state=state,
        limits=rank.limits,
        exit_code=None if end is None else end.exit_code,
        signal=None if end is None else end.signal,
        cause="" if end is None else end.cause,
        detail="" if end is None else end.detail,
    )


def _nodes(run: Run) -> tuple[str, ...]:
    return tuple(sorted({rank.placement.node for rank in run.ranks}))


def decision_view(decision: Decision) -> DecisionView:
    """One decision in words."""
    run: str | None = None
    nodes: set[str] = set()
    match decision:
        case Start():
            run, nodes = decision.run, {item.node for item in decision.placements}
        case Stop() | SetCheckpointInterval():
            run = decision.run
        case Reserve():
            nodes = {item.node for item in decision.reservations}
        case _:
            pass
    return DecisionView(
        kind=str(type(decision).__struct_config__.tag),
        workload=decision.workload,
        code=decision.reason.code.value,
        words=decision_words(decision),
        fix=fix(decision.reason, decision.workload) or "",
        run=run,
        nodes=tuple(sorted(nodes)),
        facts=dict(decision.reason.facts),
    )
