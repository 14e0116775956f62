"""Whether a decision still holds on a fresher snapshot than the one it was taken on.

Only preconditions are checked here, not whether the choice is still the best one: the next cycle sees to
that. A decision that no longer holds is dropped and counted, and its subject is judged again.
"""

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from steersman.model.decisions import (
    Admit,
    Choose,
    Decision,
    FailRollout,
    Finish,
    Forget,
    Hold,
    Learn,
    Placement,
    Promote,
    Requeue,
    Reserve,
    Retire,
    Revise,
    Scale,
    ServiceDecision,
    SetCheckpointInterval,
    Spawn,
    Start,
    Stop,
)
from steersman.model.snapshot import FINAL_PHASES, Phase, RunState, WorkloadState
from steersman.state.derive import takes_work
from steersman.state.draft import Draft
from steersman.state.lease import with_lease


def holds(draft: Draft, decision: Decision) -> bool:
    """Whether the decision may be applied to the state of the draft."""
    if isinstance(decision, ServiceDecision):
        return _service_holds(draft, decision)
    if decision.workload in draft.services:
        return _still_so(draft, decision)
    state = draft.workloads.get(decision.workload)
    if state is None:
        return False
    check = _CHECKS[type(decision)]
    return check(draft, state, decision)


def _service_holds(draft: Draft, decision: ServiceDecision) -> bool:
    service = draft.services.get(decision.workload)
    match decision:
        case Spawn():
            gone = decision.job.name not in draft.workloads
            wanted = service is None or not (service.removing or service.stop_requested)
            return gone and wanted and (service is not None or decision.workload == decision.job.name)
        case Retire():
            return decision.replica in draft.workloads
        case Revise():
            return service is not None and decision.revision == service.revisions + 1
        case Promote() | FailRollout():
            rolling = None if service is None else service.rolling
            return rolling is not None and rolling.number == decision.revision
        case Scale():
            return service is not None
        case Learn():
            demand = None if service is None else service.demand
            return demand is not None and demand.first <= decision.learned.ticks <= demand.end
        case _:
            assert_never(decision)


def _still_so(draft: Draft, decision: Decision) -> bool:
    """A hold of a service, or its end: which is for good only when it is still to go and has no replica."""
    service = draft.services[decision.workload]
    return isinstance(decision, Hold) or (service.removing and not service.replicas)


def _may_admit(_: Draft, state: WorkloadState, __: Admit) -> bool:
    return state.phase is Phase.DECLARED and not (state.stop_requested or state.removing)


def _may_hold(_: Draft, state: WorkloadState, __: Hold) -> bool:
    return state.phase in (Phase.DECLARED, Phase.QUEUED)


def _may_reserve(draft: Draft, state: WorkloadState, decision: Reserve) -> bool:
    return state.phase is Phase.QUEUED and all(kept.node in draft.nodes for kept in decision.reservations)


def _may_stop(draft: Draft, _: WorkloadState, decision: Stop) -> bool:
    run = draft.runs.get(decision.run)
    return run is not None and run.state in (RunState.STARTING, RunState.RUNNING)


def _may_choose(draft: Draft, state: WorkloadState, _: Choose) -> bool:
    if state.run is not None:
        return draft.runs[state.run].state in (RunState.STARTING, RunState.RUNNING)
    return state.phase is Phase.QUEUED


def _may_requeue(draft: Draft, state: WorkloadState, _: Requeue) -> bool:
    return _ended(draft, state) and not (state.stop_requested or state.removing)


def _may_finish(draft: Draft, state: WorkloadState, _: Finish) -> bool:
    return state.phase not in FINAL_PHASES and (state.run is None or _ended(draft, state))


def _may_forget(draft: Draft, state: WorkloadState, _: Forget) -> bool:
    return state.removing and (state.run is None or _ended(draft, state))


def _may_tune(draft: Draft, state: WorkloadState, decision: SetCheckpointInterval) -> bool:
    return state.run == decision.run and decision.run in draft.runs


def _ended(draft: Draft, state: WorkloadState) -> bool:
    return state.run is not None and draft.runs[state.run].state is RunState.ENDED


def _may_start(draft: Draft, state: WorkloadState, decision: Start) -> bool:
    if state.phase is not Phase.QUEUED or state.stop_requested or state.removing:
        return False
    asked: dict[str, list[Placement]] = {}
    for placement in decision.placements:
        asked.setdefault(placement.node, []).append(placement)
    return all(_has_room(draft, node, placements) for node, placements in asked.items())


def _has_room(draft: Draft, name: str, placements: list[Placement]) -> bool:
    node = draft.nodes.get(name)
    if node is None or not takes_work(node):
        return False
    for placement in placements:
        node = with_lease(node, placement)
        if node is None:
            return False
    return node.used_cpu_milli <= node.node.cpu_milli and node.used_memory_bytes <= node.node.memory_bytes


_CHECKS: Mapping[type, Callable[[Draft, WorkloadState, Any], bool]] = {
    Admit: _may_admit,
    Hold: _may_hold,
    Reserve: _may_reserve,
    Start: _may_start,
    Stop: _may_stop,
    Choose: _may_choose,
    Requeue: _may_requeue,
    Finish: _may_finish,
    Forget: _may_forget,
    SetCheckpointInterval: _may_tune,
}
