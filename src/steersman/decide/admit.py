"""May it run at all, and may it go on: removal, stop, changed declarations, duration, inputs, size.

Theory of operation. A declared workload is admitted to its queue when its inputs exist and when some set
of the fleet's nodes, empty, could hold it. One that asks for more than that is held with what it lacks and
the nearest fix, and is judged again when the fleet changes: it is pending, not wrong. A workload whose
declaration was removed, stopped, changed or used up its time is told to end here.
"""

from collections.abc import Mapping

from steersman.model.decisions import Admit, Decision, Finish, Forget, Hold, Stop, StopCause
from steersman.model.devices import ranks_on_devices, will_do
from steersman.model.fleet import is_within
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import WHOLE_MILLI
from steersman.model.snapshot import FINAL_PHASES, NodeSize, Phase, RunState, Snapshot, WorkloadState
from steersman.model.workload import Workload

ANYWHERE = ("", "")
"""The one place of ranks that need not be together in a zone."""


def admit(snapshot: Snapshot) -> tuple[Decision, ...]:
    """Verdicts on every workload that is new, was changed, or may not go on, in order of name."""
    decisions: list[Decision] = []
    for (name,) in snapshot.indexes.attention:
        state = snapshot.workloads[name]
        if state.phase is Phase.DECLARED and not (state.removing or state.stop_requested):
            decisions.append(_judge_new(snapshot, state))
        else:
            decision = _judge_going(snapshot, state)
            if decision is not None:
                decisions.append(decision)
    return tuple(decisions)


def _judge_going(snapshot: Snapshot, state: WorkloadState) -> Decision | None:
    name = state.spec.name
    if state.run is not None:
        return _end_run(snapshot, state)
    if state.removing:
        return Forget(workload=name, reason=reason(Code.REMOVED))
    if state.stop_requested and state.phase not in FINAL_PHASES:
        return Finish(workload=name, outcome="stopped", reason=reason(Code.STOPPED))
    return None


def _end_run(snapshot: Snapshot, state: WorkloadState) -> Stop | None:
    assert state.run is not None
    run = snapshot.runs[state.run]
    if run.state in (RunState.STOPPING, RunState.ENDED):
        return None
    cause: StopCause
    if state.removing:
        cause, why = "removed", reason(Code.REMOVED)
    elif state.stop_requested:
        cause, why = "stop-requested", reason(Code.STOP_REQUESTED)
    elif run.generation != state.generation:
        cause, why = "spec-changed", reason(Code.SPEC_CHANGED)
    elif state.overdue:
        limit = state.spec.body.max_duration_ms or 0
        cause, why = "duration-exceeded", reason(Code.DURATION_EXCEEDED, max_duration_ms=limit)
    else:
        return None
    grace_ms = state.spec.body.stop_grace_ms
    return Stop(workload=state.spec.name, run=run.id, cause=cause, grace_ms=grace_ms, reason=why)


def _judge_new(snapshot: Snapshot, state: WorkloadState) -> Decision:
    name = state.spec.name
    for item in state.spec.body.inputs:
        if item.digest is not None:
            continue  # that content is there
        verdict = _input(snapshot, name, item.workload, item.artifact)
        if verdict is not None:
            return verdict
    lack = too_large(state.spec, snapshot.indexes.sizes)
    if lack is not None:
        return Hold(workload=name, reason=lack)
    return Admit(workload=name, reason=reason(Code.ADMITTED))


def _input(snapshot: Snapshot, name: WorkloadName, source: WorkloadName, artifact: str) -> Decision | None:
    """None when the input is there."""
    origin = snapshot.workloads.get(source)
    if origin is not None and origin.phase is Phase.SUCCEEDED:
        if any(item.name == artifact for item in origin.artifacts):
            return None
        why = reason(Code.INPUT_FAILED, workload=source, artifact=artifact, phase="no-such-artifact")
        return Finish(workload=name, outcome="failed", reason=why)
    if origin is not None and origin.phase in FINAL_PHASES:
        why = reason(Code.INPUT_FAILED, workload=source, artifact=artifact, phase=origin.phase.value)
        return Finish(workload=name, outcome="failed", reason=why)
    phase = "undeclared" if origin is None else origin.phase.value
    why = reason(Code.WAITING_INPUT, workload=source, artifact=artifact, phase=phase)
    return Hold(workload=name, reason=why)


def ranks_that_fit(spec: Workload, size: NodeSize) -> int:
    """How many ranks of the workload a node of this size could hold if it were empty."""
    asked = spec.resources
    limits = [spec.body.num_nodes]
    if asked.cpu_milli:
        limits.append(size.cpu_milli // asked.cpu_milli)
    if asked.memory_bytes:
        limits.append(size.memory_bytes // asked.memory_bytes)
    for kind, count in asked.accelerators:
        limits.append(sum(ranks_on_devices(asked, kind, count, *have) for have in size.accelerators))
    return min(limits)


def may_use(spec: Workload, size: NodeSize) -> bool:
    """Whether the workload may run on such a node: where it says, and on spot only if it asks for that."""
    if not is_within(size.infra, spec.resources.infra):
        return False
    return not size.spot or spec.body.spot_policy != "on-demand"


def ranks_by_place(spec: Workload, sizes: Mapping[NodeSize, int]) -> dict[tuple[str, str], int]:
    """How many of its ranks the empty fleet holds in each place where they may be together.

    That is one place for all of it, a zone, or the largest node, as its topology asks.
    """
    found: dict[tuple[str, str], int] = {}
    for size, count in sizes.items():
        if may_use(spec, size):
            ranks = ranks_that_fit(spec, size)
            if spec.body.topology == "node":
                found[ANYWHERE] = max(found.get(ANYWHERE, 0), ranks)
            else:
                place = size.zone if spec.body.topology == "zone" else ANYWHERE
                found[place] = found.get(place, 0) + count * ranks
    return found


def too_large(spec: Workload, sizes: dict[NodeSize, int]) -> Reason | None:
    """Why the whole fleet, empty, could not hold the workload; None when it could.

    `sizes` are the sizes of the fleet's nodes and how many there are of each.
    """
    if not sizes:
        return reason(Code.NO_NODES)
    infra = spec.resources.infra
    if not any(is_within(size.infra, infra) for size in sizes):
        return reason(Code.NO_INFRA, infra=infra)
    fit = max(ranks_by_place(spec, sizes).values(), default=0)
    if fit >= spec.body.num_nodes:
        return None
    asked = spec.resources
    facts: dict[str, str | int] = {
        "num_nodes": spec.body.num_nodes,
        "ranks_that_fit": fit,
        "cpu_milli": asked.cpu_milli,
        "cpu_milli_largest": max(size[0] for size in sizes),
        "memory_bytes": asked.memory_bytes,
        "memory_bytes_largest": max(size[1] for size in sizes),
    }
    if spec.body.topology:
        facts["topology"] = spec.body.topology
    for kind, count in asked.accelerators:
        facts[f"devices:{kind}"] = count
        facts[f"devices_largest:{kind}"] = max(_most(size, kind) for size in sizes)
        if not facts[f"devices_largest:{kind}"]:
            facts["kinds"] = ", ".join(sorted({have for size in sizes for have, _ in size.accelerators}))
    if asked.mig_profile:
        facts["part"] = f"a MIG instance {asked.mig_profile}"
    elif asked.device_milli < WHOLE_MILLI:
        share = f"{asked.device_milli / (WHOLE_MILLI // 100):g} % of a device"
        facts["part"] = share if asked.sharing == "auto" else f"{share} by {asked.sharing}"
    return reason(Code.REFUSED_TOO_LARGE, **facts)


def _most(size: NodeSize, asked: str) -> int:
    """The most devices of one kind that will do."""
    return max((number for kind, number in size[2] if will_do(asked, kind)), default=0)
