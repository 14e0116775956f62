"""After a run ended, or while it struggles: what next, when, and how often it should save.

Theory of operation. Every run that ended gets one verdict: the workload finishes, or it is queued again
with a back-off that doubles with the run of failures up to a cap. A preemption by Steersman and a changed
declaration are never counted as a try. A job that fails at once, again and again, is in a crash loop and
ends. A gang with a failed rank is ended whole. While a job with an automatic checkpoint interval runs, the
interval follows Young and Daly (J. W. Young, CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006):
sqrt(2 * save time * mean time between interruptions), within the bounds it declared; on spot capacity with
the learned hazard of its pool. What a job runs on that may choose is chosen here too (`choose`): a run that
should be elsewhere is told to save and end, and so is one whose node is about to be taken away; neither is
counted as a try, nor is a spot node that goes without a word.

Unknown: a rank of which nothing is known is not ended, so nothing is decided on it here.
"""

from math import isqrt

from steersman.decide import hazard
from steersman.decide.choose import SpotMemo, choose, hazard_of, held_of, target_of
from steersman.model.decisions import Choose, Decision, Finish, Forget, Requeue, SetCheckpointInterval, Stop
from steersman.model.policy import Policy
from steersman.model.reasons import Code, Reason, reason
from steersman.model.snapshot import Phase, Run, RunState, Snapshot, WorkloadState
from steersman.state.derive import interval_outdated, to_be_chosen
from steersman.state.ends import EndKind, began_anew, rank_failed, run_end_kind, run_was_short, worst_end
from steersman.state.services import served

RETUNE_PER_MILLE = 250
"""A running job saves at another interval only when the hazard asks for one that is so much other."""
DETAIL_CHARACTERS_MAX = 200
_EVENT_OF: dict[EndKind, str] = {"error": "error", "interruption": "interruption", "yielded": "interruption"}


def recover(snapshot: Snapshot, memo: SpotMemo | None = None) -> tuple[Decision, ...]:
    """Verdicts on every run that ended or struggles, and what is to be run on, in order of name.

    `memo` may hold what was worked out before; it changes no decision.
    """
    memo = SpotMemo() if memo is None else memo
    decisions: list[Decision] = []
    for (name,) in snapshot.indexes.attention:
        state = snapshot.workloads[name]
        if (
            state.phase is Phase.QUEUED
            and to_be_chosen(state)
            and not (state.removing or state.stop_requested)
        ):
            decisions.append(choose(snapshot, state, None, memo))
        if state.phase is not Phase.ACTIVE or state.run is None:
            continue
        run = snapshot.runs[state.run]
        if run.state is RunState.ENDED:
            decisions.append(_verdict(snapshot, state, run))
        elif not _admits_an_end(state, run):
            decisions += _judge(snapshot, state, run, memo)
    return tuple(decisions)


def _admits_an_end(state: WorkloadState, run: Run) -> bool:
    """Whether it is on its way out, or about to be told so by `admit`."""
    told = state.removing or state.stop_requested or state.overdue
    return told or run.state is RunState.STOPPING or run.generation != state.generation


def _judge(snapshot: Snapshot, state: WorkloadState, run: Run, memo: SpotMemo) -> list[Decision]:
    """What becomes of a run that goes on or must end: a failed gang and a notice come before any choice."""
    doomed = _doomed(snapshot, state, run)
    if doomed is not None:
        return [doomed]
    decisions: list[Decision] = []
    if to_be_chosen(state):
        choice = choose(snapshot, state, run, memo)
        decisions.append(choice)
        if target_of(choice) != held_of(run):
            return [choice, _move(state, run, choice)]
    interval = _interval(snapshot, state, run)
    return decisions if interval is None else [*decisions, interval]


def _move(state: WorkloadState, run: Run, choice: Choose) -> Stop:
    why = reason(Code.MOVED, source=held_of(run) or run.pool, target=target_of(choice) or "nothing")
    return Stop(
        workload=state.spec.name,
        run=run.id,
        cause="moved",
        grace_ms=state.spec.body.stop_grace_ms,
        reason=why,
    )


def _doomed(snapshot: Snapshot, state: WorkloadState, run: Run) -> Stop | None:
    """The end of a run of which a rank failed, or whose node is about to be taken away."""
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
    if run.goes_ms is not None:
        left_ms = max(run.goes_ms - snapshot.now_ms, 0)
        return Stop(
            workload=state.spec.name,
            run=run.id,
            cause="interrupted",
            grace_ms=min(state.spec.body.stop_grace_ms, left_ms),
            reason=reason(Code.INTERRUPTION_NOTICE, pool=run.pool, left_ms=left_ms),
        )
    return None


def _interval(snapshot: Snapshot, state: WorkloadState, run: Run) -> SetCheckpointInterval | None:
    """Another checkpoint interval, when a run saves at one that does not fit any more."""
    outdated = interval_outdated(state, run)
    rate = hazard_of(snapshot, run.pool) if run.market == "spot" else 0.0
    interval = checkpoint_interval_ms(state, snapshot.policy, rate)
    if interval is None or run.interval_ms is None or not (outdated or state.choose_due):
        return None
    if not outdated and (
        state.save_ms is None or abs(interval - run.interval_ms) * 1000 <= RETUNE_PER_MILLE * run.interval_ms
    ):
        return None
    facts = {"hazard_micro_per_hour": round(rate * 1_000_000)} if rate else {}
    return SetCheckpointInterval(
        workload=state.spec.name,
        run=run.id,
        interval_ms=interval,
        reason=reason(Code.CHECKPOINT_INTERVAL, save_ms=state.save_ms or 0, interval_ms=interval, **facts),
    )


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
    if worst_end(run).cause == "not-taken":
        return _not_taken(snapshot, state, run)
    again = _uncounted(snapshot, state, run, kind)
    return _failure(snapshot, state, run, kind) if again is None else again


def _uncounted(snapshot: Snapshot, state: WorkloadState, run: Run, kind: EndKind) -> Requeue | None:
    """The next try of a run that ended through no fault of its own, or None."""
    now_ms, obeyed = snapshot.now_ms, kind in ("stopped", "yielded", "interruption")
    if run.stop == "preempted" and obeyed:
        step = -1 if run.saved_step is None else run.saved_step
        return _requeue(state, now_ms, reason(Code.RETRY_PREEMPTED, saved_step=step), counted=False)
    if run.stop in ("moved", "interrupted") and obeyed:
        code = Code.RETRY_MOVED if run.stop == "moved" else Code.RETRY_INTERRUPTED
        return _requeue(state, now_ms, reason(code, **_saved(run)), counted=False)
    if run.market != "spot" or "interruption" not in state.spec.body.retry.on_events:
        return None
    cause = worst_end(run).cause
    if cause == "lost" and kind == "interruption":
        return _requeue(state, now_ms, reason(Code.RETRY_INTERRUPTED, **_saved(run)), counted=False)
    if cause == "start-failed":
        # As likely as not the node went while it was asked for; by then it will be known, or it works.
        later_ms = now_ms + snapshot.policy.launch_ms_spare
        return _requeue(state, later_ms, reason(Code.RETRY_INTERRUPTED, **_saved(run)), counted=False)
    return None


def _not_taken(snapshot: Snapshot, state: WorkloadState, run: Run) -> Requeue:
    """A moment later, wherever there is room by then; as often as it takes, for it has not been tried."""
    delay_ms, end = snapshot.policy.backoff_ms_base, worst_end(run)
    node = next(rank.placement.node for rank in run.ranks if rank.end is end)
    why = reason(
        Code.RETRY_NOT_TAKEN, node=node, delay_ms=delay_ms, detail=end.detail[:DETAIL_CHARACTERS_MAX]
    )
    return _requeue(state, snapshot.now_ms + delay_ms, why, counted=False)


def _saved(run: Run) -> dict[str, str | int]:
    return {"pool": run.pool, "saved_step": -1 if run.saved_step is None else run.saved_step}


def _again(snapshot: Snapshot, state: WorkloadState, run: Run) -> Requeue:
    """A replica or the gateway ended by itself: it is wanted for as long as it is there.

    One that had served for a while comes back at once; one that ends soon, or never was ready, backs off,
    longer each time. What was done to a replica is no failure of its own and is not counted as one.
    """
    done_to_it = worst_end(run).cause in ("lost", "not-taken") or run.stop in ("preempted", "interrupted")
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
    failures = 1 if began_anew(run, policy) else state.failures + 1
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


def checkpoint_interval_ms(state: WorkloadState, policy: Policy, hazard_per_hour: float = 0.0) -> int | None:
    """How often the job should save; None when it does not save at all.

    Before anything was measured an automatic interval is the smallest that is allowed. On spot capacity the
    hazard of the pool at the age of its run tells; 0: nothing was seen of it, or it is not spot.
    """
    declared = state.spec.body.checkpoint
    if not declared.enabled:
        return None
    if declared.interval_ms is not None:
        return declared.interval_ms
    if state.save_ms is None:
        return declared.interval_ms_min
    least_ms, most_ms = declared.interval_ms_min, declared.interval_ms_max
    if hazard_per_hour:
        return hazard.checkpoint_interval_ms(max(state.save_ms, 1), hazard_per_hour, least_ms, most_ms)
    mtbf_ms = (state.ran_ms + policy.interruption_mtbf_ms_prior) // (state.interruptions + 1)
    best = isqrt(2 * max(state.save_ms, 1) * mtbf_ms)
    return min(max(best, least_ms), most_ms)
