"""After a run ended, or while it struggles: what next, when, and how often it should save.

Theory of operation. Every run that ended gets one verdict: the workload finishes, or it is queued again
with a back-off that doubles with the run of failures up to a cap. A preemption by Steersman and a changed
declaration are never counted as a try. A job that fails at once, again and again, is in a crash loop and
ends. A gang with a failed rank is ended whole. While a job with an automatic checkpoint interval runs, the
interval follows Young and Daly (J. W. Young, CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006):
sqrt(2 * save time * mean time between interruptions), within the bounds it declared.

Unknown: a rank of which nothing is known is not ended, so nothing is decided on it here.
"""

from math import isqrt

from steersman.model.decisions import Decision, Finish, Forget, Requeue, SetCheckpointInterval, Stop
from steersman.model.policy import Policy
from steersman.model.reasons import Code, Reason, reason
from steersman.model.snapshot import Phase, Run, RunState, Snapshot, WorkloadState
from steersman.state.derive import interval_outdated
from steersman.state.ends import EndKind, rank_failed, run_end_kind, run_was_short, worst_end
from steersman.state.services import served

_EVENT_OF: dict[EndKind, str] = {"error": "error", "interruption": "interruption", "yielded": "interruption"}


def recover(snapshot: Snapshot) -> tuple[Decision, ...]:
    """Verdicts on every run that ended or struggles, in order of name."""
    decisions: list[Decision] = []
    for (name,) in snapshot.indexes.attention:
        state = snapshot.workloads[name]
        if state.phase is not Phase.ACTIVE or state.run is None:
            continue
        decision = _judge(snapshot, state, snapshot.runs[state.run])
        if decision is not None:
            decisions.append(decision)
    return tuple(decisions)


def _judge(snapshot: Snapshot, state: WorkloadState, run: Run) -> Decision | None:
    if run.state is RunState.ENDED:
        return _verdict(snapshot, state, run)
    if run.state is RunState.STOPPING or state.removing or state.stop_requested or state.overdue:
        return None
    if run.generation != state.generation:
        return None
    failed = next((i for i, rank in enumerate(run.ranks) if rank.end and rank_failed(rank.end)), None)
    if failed is not None:
        why = reason(Code.RANK_FAILED, rank=failed)
        return Stop(
            workload=state.spec.name,
            run=run.id,
            cause="rank-failed",
            grace_ms=state.spec.body.stop_grace_ms,
            reason=why,
        )
    if interval_outdated(state, run):
        interval = checkpoint_interval_ms(state, snapshot.policy)
        assert interval is not None
        return SetCheckpointInterval(
            workload=state.spec.name,
            run=run.id,
            interval_ms=interval,
            reason=reason(Code.CHECKPOINT_INTERVAL, save_ms=state.save_ms or 0, interval_ms=interval),
        )
    return None


def _verdict(snapshot: Snapshot, state: WorkloadState, run: Run) -> Decision:
    name = state.spec.name
    kind = run_end_kind(run)
    if state.removing:
        return Forget(workload=name, reason=reason(Code.REMOVED))
    if state.spec.body.program != "command":
        return _again(snapshot, state, run)
    if kind == "succeeded" and run.generation == state.generation:
        return _success(state)
    if state.stop_requested:
        return Finish(workload=name, outcome="stopped", reason=reason(Code.STOPPED))
    return _next_try(snapshot, state, run, kind)


def _next_try(snapshot: Snapshot, state: WorkloadState, run: Run, kind: EndKind) -> Decision:
    name = state.spec.name
    if run.generation != state.generation:
        return _requeue(state, snapshot.now_ms, reason(Code.SPEC_CHANGED), counted=False)
    if run.stop == "duration-exceeded":
        limit = state.spec.body.max_duration_ms or 0
        return Finish(
            workload=name, outcome="failed", reason=reason(Code.DURATION_EXCEEDED, max_duration_ms=limit)
        )
    if run.stop == "preempted" and kind in ("stopped", "yielded", "interruption"):
        step = -1 if run.saved_step is None else run.saved_step
        return _requeue(state, snapshot.now_ms, reason(Code.RETRY_PREEMPTED, saved_step=step), counted=False)
    return _failure(snapshot, state, run, kind)


def _again(snapshot: Snapshot, state: WorkloadState, run: Run) -> Requeue:
    """A replica or the gateway ended by itself: it is wanted for as long as it is there.

    One that had served for a while comes back at once; one that ends soon, or never was ready, backs off,
    longer each time. What was done to a replica is no failure of its own and is not counted as one.
    """
    done_to_it = worst_end(run).cause == "lost" or run.stop == "preempted"
    counted = state.service is None or not done_to_it
    owner = None if state.service is None else snapshot.services[state.service]
    well = served(owner, state, run, snapshot.policy)
    delay = 0 if well else backoff_ms(snapshot.policy, state.failures + 1)
    why = reason(Code.RETRY_REPLICA, delay_ms=delay, failures=state.failures + counted, **_end_facts(run))
    return _requeue(state, snapshot.now_ms + delay, why, counted=counted)


def _success(state: WorkloadState) -> Finish:
    have = {item.name for item in state.artifacts if item.run == state.run}
    missing = sorted(item.name for item in state.spec.body.artifacts if item.name not in have)
    if missing:
        why = reason(Code.ARTIFACT_MISSING, artifact=missing[0], missing=len(missing))
        return Finish(workload=state.spec.name, outcome="failed", reason=why)
    return Finish(workload=state.spec.name, outcome="succeeded", reason=reason(Code.SUCCEEDED))


def _requeue(state: WorkloadState, not_before_ms: int, why: Reason, *, counted: bool) -> Requeue:
    return Requeue(workload=state.spec.name, not_before_ms=not_before_ms, counted=counted, reason=why)


def _failure(snapshot: Snapshot, state: WorkloadState, run: Run, kind: EndKind) -> Decision:
    final = _final_failure(snapshot, state, run, kind)
    if final is not None:
        return Finish(workload=state.spec.name, outcome="failed", reason=final)
    policy = snapshot.policy
    failures = 1 if run.saved_ms is not None else state.failures + 1
    delay = backoff_ms(policy, failures)
    why = reason(Code.RETRY_BACKOFF, delay_ms=delay, attempt=state.attempts + 1, **_end_facts(run))
    return _requeue(state, snapshot.now_ms + delay, why, counted=True)


def _final_failure(snapshot: Snapshot, state: WorkloadState, run: Run, kind: EndKind) -> Reason | None:
    """Why there is no next try, or None when there is one."""
    retry, policy, facts = state.spec.body.retry, snapshot.policy, _end_facts(run)
    code = worst_end(run).exit_code
    if code is not None and code in retry.exit_codes_fatal:
        return reason(Code.EXIT_FATAL, **facts)
    listed = code is not None and code in retry.exit_codes_retry
    if not listed and _EVENT_OF.get(kind, "error") not in retry.on_events:
        return reason(Code.EVENT_NOT_RETRIED, event=kind, **facts)
    if state.attempts + 1 >= retry.attempts_max:
        return reason(Code.ATTEMPTS_EXHAUSTED, attempts=state.attempts + 1, **facts)
    if retry.duration_ms_max is not None and state.first_failed_ms is not None:
        tried = snapshot.now_ms - state.first_failed_ms
        if tried > retry.duration_ms_max:
            return reason(Code.RETRY_TIME_EXHAUSTED, tried_ms=tried, **facts)
    crashes = state.short_failures + 1
    if run.saved_ms is None and crashes >= policy.crash_loop_failures and run_was_short(run, policy):
        return reason(Code.CRASH_LOOP, failures=crashes, **facts)
    return None


def _end_facts(run: Run) -> dict[str, str | int]:
    end = worst_end(run)
    facts: dict[str, str | int] = {"cause": end.cause}
    if len(run.ranks) > 1:
        facts["rank"] = next(index for index, rank in enumerate(run.ranks) if rank.end is end)
    if end.exit_code is not None:
        facts["exit_code"] = end.exit_code
    if end.signal is not None:
        facts["signal"] = end.signal
    return facts


def backoff_ms(policy: Policy, failures: int) -> int:
    """How long to wait before the next try after this many failures in a row (at least 1)."""
    doublings = min(failures - 1, 40)
    return min(policy.backoff_ms_base << doublings, policy.backoff_ms_max)


def checkpoint_interval_ms(state: WorkloadState, policy: Policy) -> int | None:
    """How often the job should save; None when it does not save at all.

    Before anything was measured an automatic interval is the smallest that is allowed.
    """
    declared = state.spec.body.checkpoint
    if not declared.enabled:
        return None
    if declared.interval_ms is not None:
        return declared.interval_ms
    if state.save_ms is None:
        return declared.interval_ms_min
    mtbf_ms = (state.ran_ms + policy.interruption_mtbf_ms_prior) // (state.interruptions + 1)
    best = isqrt(2 * max(state.save_ms, 1) * mtbf_ms)
    return min(max(best, declared.interval_ms_min), declared.interval_ms_max)
