"""fold(snapshot, events) → snapshot: the one way in which state changes.

Theory of operation. A batch of journal events is folded through one `Draft`. `Observed` carries time: it
moves what only waited for time (due back-offs, exceeded durations). Events from the world may come late,
twice or for something that is gone; they are facts, not commands, so such an event changes nothing.

Times that the world reports are clamped into what the journal knows to be possible (not before the run was
decided, not after now): another process's clock may jump, and no deadline may be missed or storm for it.

Rule 1: nothing here chooses. Rule 2: every event type has one function. Rule 3: an event that no longer
applies is ignored, never an error: the journal is already written.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from steersman.model.events import (
    ApiKeyCreated,
    ApiKeyRevoked,
    ArtifactPublished,
    CheckpointSaved,
    ClusterObserved,
    ControlPlaneStarted,
    Decided,
    Event,
    FleetDeclared,
    GatewayDeclared,
    HomeCreated,
    InterruptionNotice,
    NodeHealth,
    Observed,
    PolicySet,
    PriceObserved,
    QueueDeclared,
    QueueRemoved,
    RankExited,
    RankReady,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Node
from steersman.model.ids import NodeId, RunId
from steersman.model.queue import QueueState
from steersman.model.snapshot import (
    FINAL_PHASES,
    ClusterState,
    NodeState,
    Phase,
    RankEnd,
    Run,
    RunState,
    Snapshot,
    StoredArtifact,
    WorkloadState,
)
from steersman.state import attained, demand, pools, progress, services
from steersman.state.apply import apply_decision
from steersman.state.derive import deadline_ms
from steersman.state.draft import Draft
from steersman.state.lease import end_lease, end_reservations, with_fleet_node
from steersman.state.lifecycle import move_phase, move_run


def fold(snapshot: Snapshot, events: Iterable[tuple[int, Event]]) -> Snapshot:
    """The snapshot after these (position, event) pairs, which follow it in the journal without gap."""
    draft = Draft(snapshot)
    for position, event in events:
        assert position == draft.position + 1, (position, draft.position)
        draft.position = position
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(draft, event)
    return draft.freeze()


def _home_created(draft: Draft, event: HomeCreated) -> None:
    draft.home_id = event.home_id


def _control_plane_started(draft: Draft, event: ControlPlaneStarted) -> None:
    draft.epoch = event.epoch
    demand.stand_still(draft)


def _policy_set(draft: Draft, event: PolicySet) -> None:
    draft.policy = event.policy


def _observed(draft: Draft, event: Observed) -> None:
    draft.observed_at = draft.position
    draft.now_ms = max(draft.now_ms, event.now_ms)
    demand.pass_time(draft)
    attained.pass_time(draft)
    services.take_signals(draft, event.signals)
    while (entry := draft.timers.first()) is not None and entry[0] <= draft.now_ms:
        state = draft.workloads[entry[1]]
        run = draft.run_of(state)
        draft.put_workload(state.spec.name, _after_time(draft.now_ms, state, run), run)


def _after_time(now_ms: int, state: WorkloadState, run: Run | None) -> WorkloadState:
    """What a timer that is due makes of its workload: a next try, a limit that was passed, another look."""
    if state.phase is Phase.BACKOFF:
        return replace(state, phase=move_phase(state.phase, "observed", Phase.QUEUED))
    if state.choice is not None and state.choice.until_ms is not None and state.choice.until_ms <= now_ms:
        state = replace(state, choose_due=True)
    limit_ms = None if run is None else deadline_ms(state, run)
    return state if limit_ms is None or limit_ms > now_ms else replace(state, overdue=True)


def _decided(draft: Draft, event: Decided) -> None:
    assert event.observed_at == draft.observed_at, (event.observed_at, draft.observed_at)
    for ordinal, decision in enumerate(event.decisions):
        apply_decision(draft, decision, ordinal)
    if event.packing is not None:
        draft.learn(event.packing)


def _drop_reservations(draft: Draft, nodes: Container[NodeId]) -> None:
    """Nodes are about to change, go or die: what is kept there, and elsewhere with it, is worked out anew.

    What is kept on other nodes stays: its victims are on their way out, and nobody should yield twice.
    """
    for shape in draft.pending.ordered():
        for entry in list(draft.pending.member(shape).since(())):
            state = draft.workloads[entry[2]]
            if any(kept.node in nodes for kept in state.reservations):
                end_reservations(draft, state.reservations)
                draft.put_workload(entry[2], replace(state, reservations=()), None)


def _fleet_declared(draft: Draft, event: FleetDeclared) -> None:
    """Nodes of a cluster that is declared as before stay: they are found, not declared."""
    before = {state.spec.name: state for state in draft.clusters}
    draft.clusters = tuple(
        kept if (kept := before.get(spec.name)) is not None and kept.spec == spec else ClusterState(spec=spec)
        for spec in event.fleet.clusters
    )
    stay = {state.spec.name for state in draft.clusters if before.get(state.spec.name) is state}
    draft.fleet_name = event.fleet.name
    leave = [key for key in draft.node_ids() if draft.nodes[key].node.cluster not in stay]
    _take_nodes(draft, event.fleet.nodes, leave)


def _cluster_observed(draft: Draft, event: ClusterObserved) -> None:
    """Its nodes as they are now; those of a cluster that could not be asked take no work, and end none."""
    known = [state for state in draft.clusters if state.spec.name == event.cluster]
    if not known:
        return  # it left the fleet meanwhile
    seen = replace(known[0], seen_ms=draft.now_ms, problem=event.problem, hint=event.hint)
    draft.clusters = tuple(seen if state is known[0] else state for state in draft.clusters)
    mine = [key for key in draft.node_ids() if draft.nodes[key].node.cluster == event.cluster]
    if not event.problem:
        for key in mine:
            if draft.nodes[key].health in ("unknown", "dead"):
                draft.put_node(key, replace(draft.nodes[key], health="alive"))
        _take_nodes(draft, event.nodes, mine)
        return
    for key in mine:
        before = draft.nodes[key]
        if before.health == "dead":
            continue  # a person said so
        after = replace(before, health="unknown")
        draft.put_node(key, after)
        pools.health_changed(draft, before, after)
    _recheck_held(draft)


def _take_nodes(draft: Draft, nodes: Sequence[Node], leave: Sequence[NodeId]) -> None:
    """These nodes join the fleet or are there as they are now; those of `leave` that are not among them go,
    when what runs on them has ended."""
    declared = {node.id: node for node in nodes}
    changed = {key for key in leave if declared.get(key) != draft.nodes[key].node}
    _drop_reservations(draft, changed)
    for key in leave:
        if key not in declared:
            state = draft.nodes[key]
            draft.put_node(key, replace(state, declared=False) if state.leases else None)
    for node in nodes:
        fresh = NodeState(node=node, free_devices=tuple(sorted(device.id for device in node.devices)))
        draft.put_node(node.id, with_fleet_node(draft, draft.nodes.get(node.id), fresh))
    pools.declare(draft, (state for key in draft.node_ids() if (state := draft.nodes[key]).declared))
    _recheck_held(draft)


def _queue_declared(draft: Draft, event: QueueDeclared) -> None:
    name = event.queue.name
    draft.settle(name)
    before = draft.queues.get(name)
    if before is None:
        draft.queues[name] = QueueState(spec=event.queue, declared_ms=draft.now_ms, settled_ms=draft.now_ms)
    else:
        draft.queues[name] = replace(before, spec=event.queue)


def _queue_removed(draft: Draft, event: QueueRemoved) -> None:
    if event.queue in draft.queues:
        del draft.queues[event.queue]


def _recheck_held(draft: Draft) -> None:
    for (name,) in list(draft.held.since(())):
        state = draft.workloads[name]
        if not state.recheck:
            draft.put_workload(name, replace(state, recheck=True), None)


def _node_health(draft: Draft, event: NodeHealth) -> None:
    state = draft.nodes.get(event.node)
    if state is None or state.health == event.health:
        return
    after = replace(state, health=event.health, goes_ms=None)
    draft.put_node(event.node, after)
    pools.health_changed(draft, state, after)
    if event.health == "dead":
        _drop_reservations(draft, (event.node,))
        for run, rank in state.leases:
            _end_rank(draft, run, rank, RankEnd(cause="lost", detail=f"node {event.node} is dead"), None)
    _recheck_held(draft)


def _interruption_notice(draft: Draft, event: InterruptionNotice) -> None:
    """It takes no new work, what is kept there is worked out anew, and whoever runs there is to be judged."""
    state = draft.nodes.get(event.node)
    if state is None or state.health == "dead" or state.goes_ms == event.ends_ms:
        return
    after = replace(state, health="draining", goes_ms=event.ends_ms)
    draft.put_node(event.node, after)
    pools.health_changed(draft, state, after)
    _drop_reservations(draft, (event.node,))
    for name in sorted({run for run, _ in state.leases}):
        draft.put_run(replace(draft.runs[name], goes_ms=event.ends_ms))
    _recheck_held(draft)


def _price_observed(draft: Draft, event: PriceObserved) -> None:
    pools.price_observed(draft, event.pool, event.price_usd_micro_per_hour)


def _workload_declared(draft: Draft, event: WorkloadDeclared) -> None:
    name = event.workload.name
    before = draft.workloads.get(name)
    fresh = WorkloadState(
        spec=event.workload,
        digest=event.digest,
        declared_at=draft.position,
        declared_ms=draft.now_ms,
        generation=draft.position,
        lineage=draft.position,
    )
    if before is None:
        draft.put_workload(name, fresh, None)
        return
    if before.phase is Phase.SUCCEEDED and not (event.restarts or before.removing):
        draft.put_workload(name, replace(before, spec=event.workload, digest=event.digest), None)
        return  # what it made is as declared; a new priority is no reason to make it again
    again = event.restarts or before.phase in FINAL_PHASES or before.stop_requested or before.removing
    if before.phase is Phase.ACTIVE:
        after = replace(before, spec=event.workload, digest=event.digest, overdue=False, choose_due=True)
        if before.spec.body.checkpoint != event.workload.body.checkpoint:
            after = replace(after, tuned_save_ms=None)
        if again:
            after = replace(
                after,
                generation=draft.position,
                lineage=draft.position if before.removing else before.lineage,
                stop_requested=False,
                removing=False,
                attempts=0,
                failures=0,
                short_failures=0,
                first_failed_ms=None,
            )
        draft.put_workload(name, after, draft.run_of(before))
        return
    end_reservations(draft, before.reservations)
    move_phase(before.phase, "workload-declared", Phase.DECLARED)
    if again:
        after = replace(fresh, last_run=before.last_run, runs=before.runs, artifacts=before.artifacts)
        if before.phase is not Phase.SUCCEEDED and not before.removing:
            after = progress.kept(before, after)
    else:
        after = replace(
            before,
            spec=event.workload,
            digest=event.digest,
            phase=Phase.DECLARED,
            reason=None,
            reservations=(),
            choice=None,
            choose_due=False,
        )
    draft.put_workload(name, after, None)


def _stop_requested(draft: Draft, event: StopRequested) -> None:
    if services.request_stop(draft, event.workload):
        return
    state = draft.workloads.get(event.workload)
    if state is None or state.spec.body.program != "command":
        return  # what a service needs is for `rollout` to say
    if state.phase not in FINAL_PHASES and not state.stop_requested:
        draft.put_workload(event.workload, replace(state, stop_requested=True), draft.run_of(state))


def _remove_requested(draft: Draft, event: RemoveRequested) -> None:
    if services.request_removal(draft, event.workload):
        return
    state = draft.workloads.get(event.workload)
    if state is not None and state.spec.body.program == "command" and not state.removing:
        draft.put_workload(event.workload, replace(state, removing=True), draft.run_of(state))


def _possible(draft: Draft, run: Run, at_ms: int) -> int:
    return min(max(at_ms, run.decided_ms), draft.now_ms)


def _rank_started(draft: Draft, event: RankStarted) -> None:
    run = draft.runs.get(event.run)
    if run is None or not 0 <= event.rank < len(run.ranks):
        return
    rank = run.ranks[event.rank]
    if rank.end is not None or (rank.started_ms is not None and not rank.unknown):
        return
    after = replace(
        rank,
        started_ms=rank.started_ms or _possible(draft, run, event.at_ms),
        unknown=False,
        limits=event.limits,
    )
    ranks = (*run.ranks[: event.rank], after, *run.ranks[event.rank + 1 :])
    run = replace(run, ranks=ranks)
    if all(item.started_ms is not None for item in ranks) and run.started_ms is None:
        state = run.state if run.state is RunState.STOPPING else RunState.RUNNING
        started = max(item.started_ms or 0 for item in ranks)
        run = replace(run, state=move_run(run.state, "rank-started", state), started_ms=started)
    draft.put_run(run)


def _rank_ready(draft: Draft, event: RankReady) -> None:
    run = draft.runs.get(event.run)
    if run is None or event.rank != 0 or run.ready_ms is not None or run.ranks[0].end is not None:
        return
    ready = replace(run, ready_ms=_possible(draft, run, event.at_ms))
    draft.put_run(ready)
    services.note_ready(draft, ready)


def _rank_unknown(draft: Draft, event: RankUnknown) -> None:
    run = draft.runs.get(event.run)
    if run is None or not 0 <= event.rank < len(run.ranks) or run.ranks[event.rank].end is not None:
        return
    rank = replace(run.ranks[event.rank], unknown=True)
    draft.put_run(replace(run, ranks=(*run.ranks[: event.rank], rank, *run.ranks[event.rank + 1 :])))


def _rank_exited(draft: Draft, event: RankExited) -> None:
    end = RankEnd(
        exit_code=event.exit_code,
        signal=event.signal,
        cause=event.cause,
        detail=event.detail,
        completed=event.completed,
        stop_delivered=event.stop_delivered,
    )
    _end_rank(draft, event.run, event.rank, end, event.at_ms)


def _end_rank(draft: Draft, run_id: RunId, index: int, end: RankEnd, at_ms: int | None) -> None:
    run = draft.runs.get(run_id)
    if run is None or not 0 <= index < len(run.ranks) or run.ranks[index].end is not None:
        return
    rank = run.ranks[index]
    end_lease(draft, run_id, rank.placement)
    ranks = (*run.ranks[:index], replace(rank, end=end, unknown=False), *run.ranks[index + 1 :])
    ended = all(item.end is not None for item in ranks)
    run = replace(run, ranks=ranks)
    if ended:
        run = replace(
            run,
            state=move_run(run.state, "rank-exited", RunState.ENDED),
            ended_ms=draft.now_ms if at_ms is None else _possible(draft, run, at_ms),
        )
    draft.put_run(run)


def _checkpoint_saved(draft: Draft, event: CheckpointSaved) -> None:
    run = draft.runs.get(event.run)
    if run is None or (
        run.saved_step is not None and run.saved_ms is not None and event.step <= run.saved_step
    ):
        return
    state = draft.workloads[run.workload]
    saved_ms = _possible(draft, run, event.at_ms)
    state = progress.credited(state, run, saved_ms, event)
    run = replace(run, saved_ms=saved_ms, saved_step=event.step)
    draft.put_workload(run.workload, replace(state, save_ms=event.save_ms, saved_step=event.step), run)


def _artifact_published(draft: Draft, event: ArtifactPublished) -> None:
    state = draft.workloads.get(event.workload)
    if state is None or not _is_of(state, event.run):
        return
    stored = StoredArtifact(name=event.name, digest=event.digest, size_bytes=event.size_bytes, run=event.run)
    others = tuple(item for item in state.artifacts if item.name != event.name)
    artifacts = tuple(sorted((*others, stored), key=lambda item: item.name))
    draft.put_workload(event.workload, replace(state, artifacts=artifacts), draft.run_of(state))


def _is_of(state: WorkloadState, run: RunId) -> bool:
    """Whether a run is the workload's current one or, between two runs, its last."""
    if state.run is not None:
        return state.run == run
    return state.last_run is not None and state.last_run.id == run


_HANDLERS: dict[type, Callable[[Draft, Any], None]] = {
    HomeCreated: _home_created,
    ControlPlaneStarted: _control_plane_started,
    PolicySet: _policy_set,
    FleetDeclared: _fleet_declared,
    ClusterObserved: _cluster_observed,
    NodeHealth: _node_health,
    InterruptionNotice: _interruption_notice,
    PriceObserved: _price_observed,
    WorkloadDeclared: _workload_declared,
    ServiceDeclared: services.declared,
    GatewayDeclared: services.gateway_declared,
    QueueDeclared: _queue_declared,
    QueueRemoved: _queue_removed,
    ApiKeyCreated: services.key_created,
    ApiKeyRevoked: services.key_revoked,
    StopRequested: _stop_requested,
    RemoveRequested: _remove_requested,
    Observed: _observed,
    Decided: _decided,
    RankStarted: _rank_started,
    RankReady: _rank_ready,
    RankExited: _rank_exited,
    RankUnknown: _rank_unknown,
    CheckpointSaved: _checkpoint_saved,
    ArtifactPublished: _artifact_published,
}
"""`ActionFailed` is for people and for audit: it changes no state."""
