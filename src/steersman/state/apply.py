"""What each recorded decision does to the state. A decision is applied as it was taken, never judged again.

Rule 1: one function per kind of decision, and `apply_decision` finds it.
Rule 2: a decision on a workload that is gone is a programmer's error, for the journal is in order.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from steersman.model.decisions import (
    Admit,
    Choose,
    Decision,
    FailRollout,
    Finish,
    Forget,
    Hold,
    Learn,
    Promote,
    Requeue,
    Reserve,
    Retire,
    Revise,
    Scale,
    SetCheckpointInterval,
    Spawn,
    Start,
    Stop,
)
from steersman.model.ids import WorkloadName, decision_id
from steersman.model.snapshot import Phase, RankState, Run, RunState, WorkloadState
from steersman.state import demand, services
from steersman.state.attained import attained_ms, counted
from steersman.state.derive import chooses, shape_of
from steersman.state.draft import Draft
from steersman.state.ends import began_anew, run_end_kind, run_was_short
from steersman.state.lease import end_reservations, take_lease, take_reservations
from steersman.state.lifecycle import move_phase, move_run
from steersman.state.usage import amounts_of, rates_of

_PHASE_OF = {"succeeded": Phase.SUCCEEDED, "failed": Phase.FAILED, "stopped": Phase.STOPPED}


def _admit(draft: Draft, decision: Admit) -> None:
    state = draft.workloads[decision.workload]
    phase = move_phase(state.phase, "admit", Phase.QUEUED)
    after = replace(state, phase=phase, reason=decision.reason, recheck=False)
    draft.put_workload(decision.workload, after, None)
    draft.admit(shape_of(after))


def _hold(draft: Draft, decision: Hold) -> None:
    if services.hold(draft, decision):
        return
    state = draft.workloads[decision.workload]
    after = replace(state, reason=decision.reason, recheck=False)
    draft.put_workload(decision.workload, after, draft.run_of(state))


def _reserve(draft: Draft, decision: Reserve) -> None:
    state = draft.workloads[decision.workload]
    end_reservations(draft, state.reservations)
    take_reservations(draft, decision.reservations)
    after = replace(state, reservations=decision.reservations, reason=decision.reason)
    draft.put_workload(decision.workload, after, None)


def _start(draft: Draft, decision: Start, ordinal: int) -> None:
    state = draft.workloads[decision.workload]
    end_reservations(draft, state.reservations)
    for placement in decision.placements:
        take_lease(draft, decision.run, placement)
    node = draft.nodes[decision.placements[0].node].node
    run = Run(
        id=decision.run,
        workload=decision.workload,
        generation=state.generation,
        attempt=state.runs + 1,
        state=RunState.STARTING,
        ranks=tuple(RankState(placement=placement) for placement in decision.placements),
        decision=decision_id(draft.observed_at, ordinal),
        decided_ms=draft.now_ms,
        interval_ms=decision.checkpoint_interval_ms,
        saved_step=state.saved_step,
        pool=node.pool,
        market=node.market,
        queue=state.spec.queue,
        holds=amounts_of(state.spec.resources),
        rates=rates_of(draft.nodes, decision.placements),
    )
    after = replace(
        state,
        phase=move_phase(state.phase, "start", Phase.ACTIVE),
        reason=decision.reason,
        run=decision.run,
        runs=state.runs + 1,
        reservations=(),
        overdue=False,
        choose_due=False,
        interval_ms=decision.checkpoint_interval_ms,
    )
    draft.put_workload(decision.workload, after, run)


def _stop(draft: Draft, decision: Stop) -> None:
    run = draft.runs[decision.run]
    state = draft.workloads[decision.workload]
    stopping = replace(
        run,
        state=move_run(run.state, "stop", RunState.STOPPING),
        stop=decision.cause,
        stop_ms=draft.now_ms,
    )
    draft.put_workload(decision.workload, replace(state, reason=decision.reason), stopping)


def _choose(draft: Draft, decision: Choose) -> None:
    state = draft.workloads[decision.workload]
    chosen = chooses(state)
    after = replace(state, choice=decision if chosen else None, choose_due=False)
    if state.phase is Phase.QUEUED:
        end_reservations(draft, state.reservations)  # they may lie in another pool
        after = replace(after, reason=decision.reason, reservations=())
    draft.put_workload(decision.workload, after, draft.run_of(state))


def _counted(draft: Draft, state: WorkloadState, run: Run) -> WorkloadState:
    """The workload of a run that ended, once durations know of it."""
    return counted(draft, state, run, ended=run_end_kind(run) == "succeeded")


def _after_run(state: WorkloadState, run: Run) -> WorkloadState:
    """What a workload remembers of a run that ended."""
    interrupted = run_end_kind(run) == "interruption" or run.stop == "interrupted"
    elsewhere = run.stop in ("moved", "interrupted") or run.market == "spot"
    begun = run.decided_ms if run.started_ms is None else run.started_ms
    ended = begun if run.ended_ms is None else run.ended_ms
    return replace(
        state,
        run=None,
        last_run=run,
        ran_ms=state.ran_ms + max(ended - begun, 0),
        attained_ms=attained_ms(state, run, ended),
        interruptions=state.interruptions + (1 if interrupted else 0),
        tuned_save_ms=None if interrupted or elsewhere else state.tuned_save_ms,
        interval_ms=None if elsewhere else state.interval_ms,
        choice=None,
        choose_due=False,
        saved_step=run.saved_step,
        overdue=False,
    )


def _requeue(draft: Draft, decision: Requeue) -> None:
    state = draft.workloads[decision.workload]
    run = draft.run_of(state)
    assert run is not None, decision.workload
    owner = None if state.service is None else draft.services.get(state.service)
    served = services.served(owner, state, run, draft.policy)
    state = _counted(draft, state, run)
    progressed = began_anew(run, draft.policy) or served
    after = replace(_after_run(state, run), reason=decision.reason, not_before_ms=decision.not_before_ms)
    if decision.counted:
        failed_ms = draft.now_ms if state.first_failed_ms is None else state.first_failed_ms
        failures = 0 if served else 1 if progressed else state.failures + 1
        short = run_was_short(run, draft.policy) and not progressed
        after = replace(
            after,
            attempts=state.attempts + 1,
            failures=failures,
            short_failures=state.short_failures + 1 if short else 0,
            first_failed_ms=failed_ms,
        )
    elif run.stop == "preempted":
        after = replace(after, preemptions=state.preemptions + 1)
    phase = Phase.BACKOFF if decision.not_before_ms > draft.now_ms else Phase.QUEUED
    if run.generation != state.generation:
        phase, after = Phase.DECLARED, replace(after, reason=None)
        if run_end_kind(run) == "succeeded" or state.lineage == state.generation:
            after = replace(after, lineage=state.generation, saved_step=None, save_ms=None, saved_work_ms=0)
            after = replace(after, attained_ms=0, counted_ms=0)
    after = replace(after, phase=move_phase(state.phase, "requeue", phase))
    draft.put_workload(decision.workload, after, None)


def _finish(draft: Draft, decision: Finish) -> None:
    state = draft.workloads[decision.workload]
    run = draft.run_of(state)
    end_reservations(draft, state.reservations)
    after = state if run is None else _after_run(_counted(draft, state, run), run)
    if run is not None and decision.outcome == "failed" and run.stop != "duration-exceeded":
        after = replace(after, attempts=state.attempts + 1, failures=state.failures + 1)
    after = replace(
        after,
        phase=move_phase(state.phase, "finish", _PHASE_OF[decision.outcome]),
        reason=decision.reason,
        outcome=decision.outcome,
        finished_ms=draft.now_ms,
        reservations=(),
        recheck=False,
        stop_requested=False,
    )
    draft.put_workload(decision.workload, after, None)
    recheck_dependents(draft, decision.workload)


def _forget(draft: Draft, decision: Forget) -> None:
    if services.forget(draft, decision):
        return
    state = draft.workloads[decision.workload]
    end_reservations(draft, state.reservations)
    run = draft.run_of(state)
    if run is not None:
        _counted(draft, state, run)
    draft.put_workload(decision.workload, None, None)
    services.drop_replica(draft, state)
    recheck_dependents(draft, decision.workload)


def _interval(draft: Draft, decision: SetCheckpointInterval) -> None:
    state = draft.workloads[decision.workload]
    run = draft.runs[decision.run]
    after = replace(state, interval_ms=decision.interval_ms, tuned_save_ms=state.save_ms)
    draft.put_workload(decision.workload, after, replace(run, interval_ms=decision.interval_ms))


def recheck_dependents(draft: Draft, source: WorkloadName) -> None:
    """Whoever waits for an artifact of `source` is judged again."""
    for name in draft.dependents.get(source) or ():
        state = draft.workloads[name]
        if state.phase is Phase.DECLARED and not state.recheck:
            draft.put_workload(name, replace(state, recheck=True), None)


_APPLY: Mapping[type, Callable[[Draft, Any], None]] = {
    Admit: _admit,
    Hold: _hold,
    Reserve: _reserve,
    Stop: _stop,
    Choose: _choose,
    Requeue: _requeue,
    Finish: _finish,
    Forget: _forget,
    SetCheckpointInterval: _interval,
    Scale: services.scale,
    Learn: demand.learn,
    Revise: services.revise,
    Promote: services.promote,
    FailRollout: services.fail_rollout,
    Spawn: services.spawn,
    Retire: services.retire,
}
"""`Start` alone needs its place in the plan: its run remembers which decision it follows."""


def apply_decision(draft: Draft, decision: Decision, ordinal: int) -> None:
    """Apply the ordinal-th decision of the cycle observed at `draft.observed_at`."""
    if isinstance(decision, Start):
        _start(draft, decision, ordinal)
    else:
        _APPLY[type(decision)](draft, decision)
