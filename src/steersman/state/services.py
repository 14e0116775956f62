"""What events and decisions do to services, their revisions and their replicas.

Theory of operation. A service owns replicas, each of which is a job in the table of workloads like any
other; here is only what ties them together: which revision a replica is of, whether it is being retired, and
what the service was told. A replica leaves its service when its job is forgotten: after it is proven gone.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from steersman.model.decisions import FailRollout, Forget, Hold, Promote, Retire, Revise, Scale, Spawn
from steersman.model.demand import Demand
from steersman.model.events import ApiKeyCreated, ApiKeyRevoked, GatewayDeclared, ServiceDeclared, Signal
from steersman.model.ids import WorkloadName
from steersman.model.policy import Policy
from steersman.model.service import RequestLimits, RolloutPolicy, Scaling, Service
from steersman.model.signals import PROMETHEUS
from steersman.model.snapshot import ReplicaRef, Revision, Run, ServiceState, SignalValue, WorkloadState
from steersman.model.workload import PRIORITY_DEFAULT
from steersman.state.demand import hear
from steersman.state.draft import Draft
from steersman.state.ends import run_was_short


def declared(draft: Draft, event: ServiceDeclared) -> None:
    """A service is there, or is to be otherwise. What serves, serves on until `rollout` replaces it."""
    spec = event.service
    before = draft.services.get(spec.name)
    if spec.scaling.foresees != (before is not None and before.spec.scaling.foresees):
        _foresee(draft, spec)
    if before is None:
        first = spec.scaling.initial_replicas
        target = spec.scaling.min_replicas if first is None else first
        draft.services[spec.name] = ServiceState(
            spec=spec,
            digest=event.digest,
            declared_at=draft.position,
            declared_ms=draft.now_ms,
            generation=draft.position,
            target=target,
            desired=target,
            desired_ms=draft.now_ms,
            demand=Demand() if spec.scaling.foresees else None,
        )
        return
    after = replace(before, spec=spec, digest=event.digest, stop_requested=False, removing=False)
    after = replace(after, demand=(before.demand or Demand()) if spec.scaling.foresees else None)
    if spec.scaling.metrics != before.spec.scaling.metrics:
        kept = (heard for heard in before.signals if not heard.name.startswith(PROMETHEUS))
        after = replace(after, signals=tuple(kept))
    after = replace(after, generation=_generation_declared(draft, before, event))
    if event.restarts or before.stop_requested or before.removing:  # what was given up is tried once more
        after = replace(after, failed=None, failed_reason=None)
    draft.services[spec.name] = after


def _foresee(draft: Draft, spec: Service) -> None:
    entry = (spec.name,)
    draft.foreseen.swap(*((None, entry) if spec.scaling.foresees else (entry, None)))


def _generation_declared(draft: Draft, before: ServiceState, event: ServiceDeclared) -> int:
    """What serves as it is, is no news, while nothing is on its way: nothing is to roll out.

    So it is for a declaration that goes back to it, after what was to replace it was given up or before it
    was begun, and for one that only lets what was stopped or given up be tried once more.
    """
    serving = before.serving
    if before.rolling is None and serving is not None and same_revision(serving.spec, event.service):
        return serving.generation
    return draft.position if event.restarts else before.generation


def same_revision(one: Service, other: Service) -> bool:
    """Whether the replicas of one declaration can serve the other, as far as declarations tell.

    What is left out takes effect in place (`spec.diff` says the same, and a test holds them together); the
    content of a model that a job makes is for `rollout` to look at.
    """
    return _of_revision(one) == _of_revision(other)


def _of_revision(spec: Service) -> Service:
    return replace(
        spec,
        scaling=Scaling(),
        limits=RequestLimits(batch_size_max=spec.limits.batch_size_max),
        rollout=RolloutPolicy(),
        inputs=(),
        slo_latency_p99_ms=None,
        stop_grace_ms=0,
        priority=PRIORITY_DEFAULT,
        owner=None,
        labels=(),
    )


def gateway_declared(draft: Draft, event: GatewayDeclared) -> None:
    draft.gateway = event.gateway


def key_created(draft: Draft, event: ApiKeyCreated) -> None:
    others = (key for key in draft.keys if key.name != event.key.name)
    draft.keys = tuple(sorted((*others, event.key), key=lambda key: key.name))


def key_revoked(draft: Draft, event: ApiKeyRevoked) -> None:
    draft.keys = tuple(key for key in draft.keys if key.name != event.name)


def request_stop(draft: Draft, name: WorkloadName) -> bool:
    """Whether it is a service, which then is to have no replicas until it is declared again."""
    state = draft.services.get(name)
    if state is None:
        return False
    draft.services[name] = replace(state, stop_requested=True)
    return True


def request_removal(draft: Draft, name: WorkloadName) -> bool:
    """Whether it is a service, which then is to drain its replicas and go."""
    state = draft.services.get(name)
    if state is None:
        return False
    draft.services[name] = replace(state, removing=True)
    return True


def take_signals(draft: Draft, signals: Iterable[Signal]) -> None:
    """The last word on each signal of each service; of what is no service, nothing is kept."""
    for signal in signals:
        state = draft.services.get(signal.subject)
        if state is None:
            continue
        heard = SignalValue(name=signal.name, at_ms=draft.now_ms, value=signal.value)
        others = (known for known in state.signals if known.name != signal.name)
        known = tuple(sorted((*others, heard), key=lambda value: value.name))
        draft.services[signal.subject] = hear(state, replace(state, signals=known), draft.now_ms)


def note_ready(draft: Draft, run: Run) -> None:
    """A replica answers: its service knows what a cold start takes."""
    owner = draft.workloads[run.workload].service
    state = None if owner is None else draft.services.get(owner)
    if state is not None and run.ready_ms is not None:
        draft.services[state.spec.name] = replace(state, cold_start_ms=run.ready_ms - run.decided_ms)


def served_for_a_while(run: Run, state: ServiceState, policy: Policy) -> bool:
    """Whether an ended run of a replica had been ready for so long that its end is none of a bad start."""
    least_ms = max(policy.crash_loop_run_ms, state.spec.rollout.ready_ms_min)
    return run.ready_ms is not None and run.ended_ms is not None and run.ended_ms - run.ready_ms >= least_ms


def served(owner: ServiceState | None, state: WorkloadState, run: Run, policy: Policy) -> bool:
    """Whether a run of a replica, or of the gateway, did what it was for. That of a command never does."""
    if owner is not None:
        return served_for_a_while(run, owner, policy)
    # The gateway does not say when it is ready: running is serving.
    return state.spec.body.program == "gateway" and not run_was_short(run, policy)


def hold(draft: Draft, decision: Hold) -> bool:
    """Whether the decision is on a service."""
    state = draft.services.get(decision.workload)
    if state is None:
        return False
    draft.services[decision.workload] = replace(state, reason=decision.reason)
    return True


def forget(draft: Draft, decision: Forget) -> bool:
    """Whether the decision is on a service, which then leaves."""
    state = draft.services.get(decision.workload)
    if state is None:
        return False
    if state.spec.scaling.foresees:
        draft.foreseen.swap((decision.workload,), None)
    del draft.services[decision.workload]
    return True


def drop_replica(draft: Draft, replica: WorkloadState) -> None:
    """A job that was forgotten leaves the service it was a replica of."""
    state = None if replica.service is None else draft.services.get(replica.service)
    if state is not None:
        rest = tuple(ref for ref in state.replicas if ref.name != replica.spec.name)
        draft.services[state.spec.name] = replace(state, replicas=rest)


def scale(draft: Draft, decision: Scale) -> None:
    draft.services[decision.workload] = replace(
        draft.services[decision.workload],
        desired=decision.desired,
        desired_ms=decision.since_ms,
        target=decision.target,
    )


def revise(draft: Draft, decision: Revise) -> None:
    state = draft.services[decision.workload]
    revision = Revision(
        number=decision.revision,
        generation=state.generation,
        spec=state.spec,
        model_digest=decision.model_digest,
        begun_ms=draft.now_ms,
    )
    draft.services[decision.workload] = replace(
        state, rolling=revision, revisions=decision.revision, reason=decision.reason
    )


def promote(draft: Draft, decision: Promote) -> None:
    state = draft.services[decision.workload]
    draft.services[decision.workload] = replace(
        state, serving=state.rolling, rolling=None, reason=decision.reason
    )


def fail_rollout(draft: Draft, decision: FailRollout) -> None:
    state = draft.services[decision.workload]
    draft.services[decision.workload] = replace(
        state, rolling=None, failed=state.rolling, failed_reason=decision.reason, reason=decision.reason
    )


def spawn(draft: Draft, decision: Spawn) -> None:
    """A replica's job joins the workloads; the gateway's too, which belongs to no service."""
    name = decision.job.name
    owner = draft.services.get(decision.workload)
    generation = _generation(draft, owner, decision.revision)
    draft.put_workload(
        name,
        WorkloadState(
            spec=decision.job,
            digest="",
            declared_at=draft.observed_at,
            declared_ms=draft.now_ms,
            generation=generation,
            lineage=generation,
            service=None if owner is None else decision.workload,
            revision=decision.revision,
        ),
        None,
    )
    if owner is not None:
        ref = ReplicaRef(name=name, revision=decision.revision)
        draft.services[decision.workload] = replace(
            owner, replicas=(*owner.replicas, ref), spawned=owner.spawned + 1
        )


def _generation(draft: Draft, owner: ServiceState | None, number: int) -> int:
    """The replicas of one revision share its generation, and so one copy of its workdir."""
    known = () if owner is None else (owner.rolling, owner.serving)
    same = (item.generation for item in known if item is not None and item.number == number)
    return next(same, draft.observed_at)


def retire(draft: Draft, decision: Retire) -> None:
    """Its job is to be removed; the service lists it as retiring until it is gone."""
    replica = draft.workloads[decision.replica]
    draft.put_workload(decision.replica, replace(replica, removing=True), draft.run_of(replica))
    state: ServiceState | None = draft.services.get(decision.workload)
    if state is not None:
        refs = tuple(
            replace(ref, retiring=True) if ref.name == decision.replica else ref for ref in state.replicas
        )
        draft.services[decision.workload] = replace(state, replicas=refs)
