"""Which revision serves, and with which replicas: first start, rolling update, scaling, the end.

Theory of operation. A revision is a declaration and the content of its model. When either changes a new one
is begun, and its replicas join up to `surge_max` above the target; a replica of the old one is retired only
when as many as the target are ready without it. When the new one has its target ready and the old has no
replica left, it has taken over. Ready counts for that only once it has lasted for `ready_ms_min`. It is given
up when a replica of it crashes again and again, or does not get ready in time, while none has been ready for
so long: then its replicas go, and those of the old revision, none of which was retired for it, serve on. A
first revision has nothing to fall back to and is tried for as long as it is declared, unless a replica says
that its model can never be loaded: then it is given up too, until declaration or model change. What was done
to a replica (a lost node, a preemption) is no crash of its revision.

Every replica is a job of its own, recorded whole in `Spawn`; what its end means is for `recover`. Here is
only how many there are, of which revision. Those that are not ready go first, then the youngest. The
gateway is a job too: there is one while there is a service.
"""

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from steersman.model.decisions import (
    Decision,
    FailRollout,
    Forget,
    Hold,
    Promote,
    Retire,
    Revise,
    Spawn,
)
from steersman.model.fleet import LOCAL
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import Resources
from steersman.model.service import GATEWAY_NAME, CallableModel, OnnxModel, Service
from steersman.model.snapshot import (
    Phase,
    ReplicaRef,
    Revision,
    Run,
    RunState,
    ServiceState,
    Snapshot,
    WorkloadState,
)
from steersman.model.workload import Input, Job, ReplicaSpec, Retry, Workload
from steersman.state.services import served_for_a_while

EXIT_CONFIG = 78
"""EX_CONFIG: the replica says that its model can never be loaded."""
HANG_MARGIN_MS = 500
"""A batch counts as hung so long after the last of its requests has been given up."""
MODEL_INPUT = "model"
ALWAYS = Retry(on_events=("error", "interruption"), attempts_max=1_000_000_000)


class Verdicts(NamedTuple):
    """The decisions, services in order of name, and when to look again."""

    decisions: tuple[Decision, ...]
    wake_at_ms: int | None


class Replica(NamedTuple):
    """One replica that is not being retired, as it stands now."""

    ref: ReplicaRef
    job: WorkloadState
    run: Run | None

    @property
    def ready_ms(self) -> int | None:
        """Since when it answers requests; None when it does not."""
        run = self.run
        return run.ready_ms if run is not None and run.state is RunState.RUNNING else None

    @property
    def ready(self) -> bool:
        """Whether it answers requests."""
        return self.ready_ms is not None

    @property
    def begun_ms(self) -> int | None:
        """Since when it loads its model; None when it does not."""
        run = self.run
        loads = run is not None and run.state is RunState.RUNNING and run.ready_ms is None
        return run.started_ms if run is not None and loads else None


def rollout(snapshot: Snapshot) -> Verdicts:
    """What should become of the replicas of every service, and of the gateway."""
    decisions: list[Decision] = []
    wakes: list[int] = []
    services = snapshot.services.sorted_items()
    for _, state in services:
        decisions += _judge(snapshot, state)
        wakes += _deadlines(snapshot, state)
    decisions += _gateway(snapshot, needed=bool(services))
    if not all(isinstance(item, Hold) for item in decisions):
        wakes.append(snapshot.now_ms)  # one step of several: the next follows at once
    return Verdicts(tuple(decisions), min(wakes, default=None))


def _gateway(snapshot: Snapshot, *, needed: bool) -> Iterator[Decision]:
    job = snapshot.workloads.get(GATEWAY_NAME)
    if needed and job is None:
        why = reason(Code.GATEWAY_NEEDED)
        yield Spawn(workload=GATEWAY_NAME, revision=0, job=_gateway_job(), reason=why)
    elif not needed and job is not None and not job.removing:
        yield Retire(workload=GATEWAY_NAME, replica=GATEWAY_NAME, reason=reason(Code.REMOVED))


def _gateway_job() -> Workload:
    body = Job(run="", program="gateway", retry=ALWAYS, stop_grace_ms=15_000)
    return Workload(name=GATEWAY_NAME, body=body, resources=Resources(infra=LOCAL), priority=1_000)


def replicas_of(snapshot: Snapshot, state: ServiceState) -> list[Replica]:
    """The replicas that are not being retired, in order of their making."""
    found = []
    for ref in state.replicas:
        job = snapshot.workloads[ref.name]
        if not ref.retiring:
            found.append(Replica(ref, job, None if job.run is None else snapshot.runs[job.run]))
    return found


def _judge(snapshot: Snapshot, state: ServiceState) -> Iterator[Decision]:
    name, replicas = state.spec.name, replicas_of(snapshot, state)
    if state.removing or state.stop_requested:
        code = Code.REMOVED if state.removing else Code.STOP_REQUESTED
        yield from (_retire(state, item, reason(code)) for item in replicas)
        if state.removing and not state.replicas:
            yield Forget(workload=name, reason=reason(Code.REMOVED))
        elif state.reason is None or state.reason.code is not code:
            yield Hold(workload=name, reason=reason(code))
        return
    digest, missing = model_of(snapshot, state.spec)
    if missing is None and _is_new(state, digest):
        yield Revise(workload=name, revision=state.revisions + 1, model_digest=digest, reason=_why_new(state))
        return  # its replicas are for the next cycle, which follows at once
    if state.rolling is not None:
        yield from _roll(snapshot, state, state.rolling, replicas)
    elif state.serving is not None:
        yield from _keep(snapshot, state, state.serving, replicas)
    else:
        yield from _without(state, replicas, missing)


# Which revision.


def model_of(snapshot: Snapshot, spec: Service) -> tuple[str | None, Reason | None]:
    """The digest of the model's content as it is now, or why there is none yet.

    What a job made earlier stays good while it runs again, or after a later run failed.
    """
    model = spec.model
    if not isinstance(model, OnnxModel) or model.artifact is None:
        return (model.digest if isinstance(model, OnnxModel) else spec.workdir_digest), None
    source, artifact = model.artifact.workload, model.artifact.artifact
    origin = snapshot.workloads.get(source)
    stored = None if origin is None else next((a for a in origin.artifacts if a.name == artifact), None)
    if origin is not None and stored is not None and origin.phase is Phase.SUCCEEDED:
        return stored.digest, None
    phase = "undeclared" if origin is None else origin.phase.value
    failed = origin is not None and origin.phase in (Phase.FAILED, Phase.STOPPED, Phase.SUCCEEDED)
    code = Code.INPUT_FAILED if failed else Code.WAITING_INPUT
    return None, reason(code, workload=source, artifact=artifact, phase=phase)


def _newest(state: ServiceState) -> Revision | None:
    return state.serving if state.rolling is None else state.rolling


def _is_new(state: ServiceState, digest: str | None) -> bool:
    wanted = (state.generation, digest)
    known = (_newest(state), state.failed)
    return all(item is None or (item.generation, item.model_digest) != wanted for item in known)


def _why_new(state: ServiceState) -> Reason:
    current = _newest(state)
    if current is None:
        return reason(Code.FIRST_REVISION)
    same = current.generation == state.generation
    return reason(Code.MODEL_CHANGED if same else Code.DECLARATION_CHANGED, revision=current.number)


# Replicas.


def _without(state: ServiceState, replicas: list[Replica], missing: Reason | None) -> Iterator[Decision]:
    """No revision: there is no model yet, or the only one was given up, and its replicas go.

    What answers of one before, which it was to replace and which had not taken over, serves on.
    """
    why = state.failed_reason if missing is None else missing
    assert why is not None, "what can be begun is begun"
    failed = None if state.failed is None else state.failed.number
    useful = [item for item in replicas if item.ready and item.ref.revision != failed]
    yield from (_retire(state, item, why) for item in replicas if item not in useful)
    for item in _least_wanted(useful)[: max(len(useful) - state.target, 0)]:
        yield _retire(state, item, reason(Code.REPLICA_SURPLUS, target=state.target))
    if state.reason != why:
        yield Hold(workload=state.spec.name, reason=why)


def _keep(
    snapshot: Snapshot, state: ServiceState, serving: Revision, replicas: list[Replica]
) -> Iterator[Decision]:
    """One revision, as many replicas as the target; those of others go as it has got ready."""
    failed = None if state.failed is None else state.failed.number
    gone = [item for item in replicas if item.ref.revision == failed]
    yield from (_retire(state, item, _replaced(serving)) for item in gone)
    stuck, going = _parted(snapshot, state, [item for item in replicas if item not in gone])
    yield from (_retire(state, item, _why_stuck(state)) for item in stuck)
    ours = [item for item in going if item.ref.revision == serving.number]
    others = [item for item in going if item.ref.revision != serving.number]
    lacking = state.target - len(ours)
    room = state.target + (state.spec.rollout.surge_max if others else 0) - len(going)
    for ordinal in range(min(lacking, room)):
        yield _spawn(state, serving, ordinal, reason(Code.REPLICA_NEEDED, target=state.target))
    for item in _least_wanted(ours)[: max(-lacking, 0)]:
        yield _retire(state, item, reason(Code.REPLICA_SURPLUS, target=state.target))
    ready = sum(_lasts(snapshot, state, item) for item in ours)
    for item in _superseded(state, others, ready, state.target):
        yield _retire(state, item, _replaced(serving))
    yield from _told(state, serving, ours)


def _roll(
    snapshot: Snapshot, state: ServiceState, rolling: Revision, replicas: list[Replica]
) -> Iterator[Decision]:
    """Two revisions: the new one joins, the old one goes, and what is ready never falls below the target."""
    target = max(state.target, 1)  # a revision takes over only once one replica of it has been ready
    new = [item for item in replicas if item.ref.revision == rolling.number]
    failure = _failure(snapshot, state, rolling, new)
    if failure is not None and (state.serving is not None or any(map(_hopeless, new))):
        yield FailRollout(workload=state.spec.name, revision=rolling.number, reason=failure)
        return
    stuck, going = _parted(snapshot, state, replicas)
    yield from (_retire(state, item, _why_stuck(state)) for item in stuck)
    new = [item for item in going if item.ref.revision == rolling.number]
    old = [item for item in going if item.ref.revision != rolling.number]
    ready = sum(_lasts(snapshot, state, item) for item in new)
    if ready >= target and not old:
        why = reason(Code.ROLLED_OUT, revision=rolling.number, replicas=ready)
        yield Promote(workload=state.spec.name, revision=rolling.number, reason=why)
        return
    room = target + state.spec.rollout.surge_max - len(new) - len(old)
    for ordinal in range(min(target - len(new), room)):
        yield _spawn(state, rolling, ordinal, reason(Code.REPLICA_NEEDED, target=target))
    for item in _least_wanted(new)[: max(len(new) - target, 0)]:
        yield _retire(state, item, reason(Code.REPLICA_SURPLUS, target=target))
    for item in _superseded(state, old, ready, target):
        yield _retire(state, item, _replaced(rolling))
    if failure is not None and state.reason != failure:
        yield Hold(workload=state.spec.name, reason=failure)
    elif failure is None:
        yield from _told(state, rolling, new)


def _superseded(state: ServiceState, old: list[Replica], ready: int, target: int) -> Iterator[Replica]:
    """Which old replicas go, given how many new ones are ready.

    One that is ready goes only when as many as the target are ready without it. Of the others go those that
    exceed the target, all once a new one is ready, and at once those of a revision that never took over.
    """
    spare = ready + sum(item.ready for item in old) - target
    surplus = len(old) - target
    fallback = None if state.serving is None else state.serving.number
    for item in _least_wanted(old):
        if item.ready:
            goes = spare > 0
            spare -= 1
        else:
            goes = ready > 0 or surplus > 0 or item.ref.revision != fallback
        surplus -= 1
        if goes:
            yield item


def _least_wanted(replicas: list[Replica]) -> list[Replica]:
    """Those that are not ready first, the youngest first."""
    young = list(reversed(replicas))
    return [item for item in young if not item.ready] + [item for item in young if item.ready]


def _lasts(snapshot: Snapshot, state: ServiceState, item: Replica) -> bool:
    """Whether it has been ready for as long as it takes to count as taking over."""
    due_ms = _lasts_ms(state, item)
    return due_ms is not None and snapshot.now_ms >= due_ms


def _lasts_ms(state: ServiceState, item: Replica) -> int | None:
    return None if item.ready_ms is None else item.ready_ms + state.spec.rollout.ready_ms_min


def _failure(
    snapshot: Snapshot, state: ServiceState, revision: Revision, replicas: list[Replica]
) -> Reason | None:
    """Why a revision that nobody has seen ready for long should be given up; None when it should not."""
    if any(_lasts(snapshot, state, item) for item in replicas):
        return None
    for item in sorted(replicas, key=lambda item: not _hopeless(item)):  # what says most is told first
        if _hopeless(item) or _crashes(snapshot, state, item) >= state.spec.rollout.crashes_max:
            return _crashed(revision, item, max(_crashes(snapshot, state, item), 1))
        if _overdue(snapshot, state, item):
            limit_ms, name = state.spec.rollout.ready_timeout_ms, item.ref.name
            return reason(
                Code.REPLICA_STUCK, revision=revision.number, replica=name, ready_timeout_ms=limit_ms
            )
    return None


def _hopeless(item: Replica) -> bool:
    """Whether its last end said that its model can never be loaded."""
    end = None if item.job.last_run is None else item.job.last_run.ranks[0].end
    return end is not None and end.exit_code == EXIT_CONFIG


def _crashes(snapshot: Snapshot, state: ServiceState, item: Replica) -> int:
    """How many times it ended badly: in a row, or in all when the last was soon after it was ready, for there
    its job begins to count anew."""
    job, last = item.job, item.job.last_run
    if last is None or served_for_a_while(last, state, snapshot.policy):
        return 0
    return job.failures if last.ready_ms is None else job.attempts


def _crashed(revision: Revision, item: Replica, crashes: int) -> Reason:
    facts: dict[str, str | int] = {"replica": item.ref.name, "failures": crashes}
    last = item.job.last_run
    end = None if last is None else last.ranks[0].end
    if last is not None and last.ready_ms is not None:
        facts["ready"] = 1
    if end is not None and end.exit_code is not None:
        facts["exit_code"] = end.exit_code
    if end is not None and end.signal is not None:
        facts["signal"] = end.signal
    return reason(Code.REPLICA_CRASHED, revision=revision.number, **facts)


def _overdue(snapshot: Snapshot, state: ServiceState, item: Replica) -> bool:
    limit_ms = state.spec.rollout.ready_timeout_ms
    return item.begun_ms is not None and snapshot.now_ms >= item.begun_ms + limit_ms


def _parted(
    snapshot: Snapshot, state: ServiceState, replicas: list[Replica]
) -> tuple[list[Replica], list[Replica]]:
    """Replicas that load for too long, which give way to others of their revision; and all others."""
    late = [_overdue(snapshot, state, item) for item in replicas]
    pairs = list(zip(replicas, late, strict=True))
    return [item for item, is_late in pairs if is_late], [item for item, is_late in pairs if not is_late]


def _replaced(revision: Revision) -> Reason:
    return reason(Code.REPLICA_REPLACED, revision=revision.number)


def _why_stuck(state: ServiceState) -> Reason:
    return reason(Code.REPLICA_STUCK, ready_timeout_ms=state.spec.rollout.ready_timeout_ms)


def _deadlines(snapshot: Snapshot, state: ServiceState) -> Iterator[int]:
    newest = _newest(state)
    for item in replicas_of(snapshot, state):
        due_ms = None
        if item.begun_ms is not None:
            due_ms = item.begun_ms + state.spec.rollout.ready_timeout_ms
        elif newest is not None and item.ref.revision == newest.number:
            due_ms = _lasts_ms(state, item)
        if due_ms is not None and due_ms > snapshot.now_ms:  # what is due was judged just now
            yield due_ms


def _told(state: ServiceState, revision: Revision, replicas: list[Replica]) -> Iterator[Decision]:
    """The service's own line: it serves, or waits for replicas."""
    if state.failed is not None and state.failed.number > revision.number:
        return  # that the newest declaration failed is what people must see
    ready = sum(item.ready for item in replicas)
    code = Code.SERVING if ready >= state.target else Code.WAITING_READY
    why = reason(code, ready=ready, target=state.target, revision=revision.number)
    if state.reason != why:
        yield Hold(workload=state.spec.name, reason=why)


def _retire(state: ServiceState, item: Replica, why: Reason) -> Retire:
    return Retire(workload=state.spec.name, replica=item.ref.name, reason=why)


def _spawn(state: ServiceState, revision: Revision, ordinal: int, why: Reason) -> Spawn:
    number = state.spawned + ordinal + 1
    return Spawn(
        workload=state.spec.name,
        revision=revision.number,
        job=replica_job(state, revision, number),
        reason=why,
    )


def replica_job(state: ServiceState, revision: Revision, number: int) -> Workload:
    """The job that runs one replica: what to serve from its revision, how to run it from the newest word."""
    spec, now = revision.spec, state.spec
    name = WorkloadName(f"{spec.name}.{number}")
    inputs: tuple[Input, ...] = ()
    target, python = "", None
    match spec.model:
        case OnnxModel():
            source = spec.model.artifact
            inputs = (
                Input(
                    name=MODEL_INPUT,
                    workload=spec.name if source is None else source.workload,
                    artifact=MODEL_INPUT if source is None else source.artifact,
                    digest=revision.model_digest,
                ),
            )
        case CallableModel():
            target, python = spec.model.target, spec.model.python
        case _:
            assert_never(spec.model)
    serves = ReplicaSpec(
        service=spec.name,
        revision=revision.number,
        kind="onnx" if isinstance(spec.model, OnnxModel) else "callable",
        target=target,
        python=python,
        batch_size_max=spec.limits.batch_size_max,
        batch_timeout_ms=spec.limits.timeout_ms + HANG_MARGIN_MS,
    )
    body = Job(
        run="",
        setup=spec.setup,
        workdir=spec.workdir,
        workdir_digest=spec.workdir_digest,
        envs=spec.envs,
        secrets=spec.secrets,
        inputs=inputs,
        stop_grace_ms=now.stop_grace_ms,
        retry=ALWAYS,
        program="replica",
        replica=serves,
    )
    return Workload(
        name=name,
        body=body,
        resources=spec.resources,
        queue=now.queue,
        priority=now.priority,
        owner=now.owner,
        labels=now.labels,
    )
