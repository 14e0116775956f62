"""Starting one queued workload: its ranks on nodes and devices, all of them or none. A part of `schedule`."""

from msgspec.structs import replace

from steersman.decide.fit import placements, spread
from steersman.model.decisions import Start
from steersman.model.ids import run_id
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import WorkloadState
from steersman.state.derive import shape_of
from steersman.state.draft import Draft
from steersman.state.lease import end_reservations, take_reservations


def try_start(draft: Draft, state: WorkloadState) -> Start | None:
    """The start of a queued workload, all its ranks; None when there is no room for them now."""
    shape = shape_of(state)
    kept = state.reservations
    if kept:
        end_reservations(draft, kept)
        draft.put_workload(state.spec.name, replace(state, reservations=()), None)
    chosen = spread(draft, shape)
    if chosen is None:
        if kept:
            take_reservations(draft, kept)
            draft.put_workload(state.spec.name, state, None)
        return None
    placed = placements(draft, shape, chosen)
    facts: dict[str, str | int] = {"node": placed[0].node, "nodes": len(chosen), "ranks": len(placed)}
    if state.saved_step is not None:
        facts["saved_step"] = state.saved_step
    return Start(
        workload=state.spec.name,
        run=run_id(state.spec.name, draft.observed_at),
        placements=placed,
        checkpoint_interval_ms=_interval_ms(state),
        reason=reason(Code.PLACED, **facts),
    )


def _interval_ms(state: WorkloadState) -> int | None:
    """The declared interval, else the one that `recover` tuned, else the smallest that is allowed."""
    declared = state.spec.body.checkpoint
    if not declared.enabled:
        return None
    if declared.interval_ms is not None:
        return declared.interval_ms
    return declared.interval_ms_min if state.interval_ms is None else state.interval_ms
