"""One event of every type, and events of any size, for the journal's tests and benchmarks."""

from steersman.model.codec import event_type
from steersman.model.decisions import (
    Admit,
    Choose,
    FailRollout,
    Finish,
    Forget,
    Hold,
    Learn,
    Placement,
    Promote,
    Requeue,
    Retire,
    Revise,
    Scale,
    SetCheckpointInterval,
    Spawn,
    Start,
    Stop,
)
from steersman.model.demand import Learned, Sizing
from steersman.model.events import (
    ActionFailed,
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
    Signal,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, QueueName, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.queue import Budget, Queue, Quota
from steersman.model.reasons import Code, Reason, reason
from steersman.model.resources import Device, Resources
from steersman.model.service import (
    ApiKey,
    ArtifactRef,
    Gateway,
    InputRange,
    OnnxModel,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
)
from steersman.model.workload import Artifact, Input, Job, ReplicaSpec, Workload

NAME = WorkloadName("train")
RUN = RunId("train.7")
NODE = NodeId("node-0")
DIGEST = "sha256:" + "0" * 64
SERVICE = WorkloadName("digits")
REPLICA = WorkloadName("digits.1")


def _decisions() -> Decided:
    why = reason(Code.PLACED, node="node-0")
    placement = Placement(
        rank=0, node=NODE, cpu_milli=1_000, memory_bytes=1 << 30, devices=(DeviceId("gpu-0"),)
    )
    return Decided(
        observed_at=7,
        decisions=(
            Admit(workload=NAME, reason=reason(Code.ADMITTED)),
            Hold(workload=NAME, reason=Reason(code=Code.NO_CORES, counts=((Code.NO_CORES, 1),))),
            Start(workload=NAME, run=RUN, placements=(placement,), checkpoint_interval_ms=5_000, reason=why),
            Choose(
                workload=NAME,
                capacity="spot",
                pools=("spot-east",),
                until_ms=601_000,
                reason=reason(Code.CHOSE_SPOT, pool="spot-east"),
            ),
            Stop(workload=NAME, run=RUN, cause="preempted", grace_ms=2_000, reason=reason(Code.PREEMPTED)),
            Requeue(workload=NAME, not_before_ms=2_000, counted=False, reason=reason(Code.RETRY_PREEMPTED)),
            SetCheckpointInterval(
                workload=NAME, run=RUN, interval_ms=4_000, reason=reason(Code.CHECKPOINT_INTERVAL)
            ),
            Finish(workload=NAME, outcome="succeeded", reason=reason(Code.SUCCEEDED)),
            Forget(workload=NAME, reason=reason(Code.REMOVED)),
        ),
    )


def _service() -> Service:
    model = OnnxModel(artifact=ArtifactRef(workload=NAME, artifact="model"))
    return Service(
        name=SERVICE,
        model=model,
        resources=Resources(cpu_milli=1_000),
        scaling=Scaling(max_replicas=4, queued_requests_milli=500, latency_p99_ms=50),
        limits=RequestLimits(batch_size_max=16),
        rollout=RolloutPolicy(surge_max=2),
        inputs=(InputRange(name="x", minimum=0.0, maximum=16.0),),
        slo_latency_p99_ms=50,
    )


def _replica() -> Workload:
    body = Job(
        run="",
        inputs=(Input(name="model", workload=NAME, artifact="model", digest=DIGEST),),
        program="replica",
        replica=ReplicaSpec(service=SERVICE, revision=1, kind="onnx", batch_size_max=16),
    )
    return Workload(name=REPLICA, body=body, resources=Resources(cpu_milli=1_000))


def _learned() -> Learned:
    sizing = Sizing(
        capacity_milli=50_000, slo_s=10, cold_start_s=3, min_replicas=0, max_replicas=4, budget_ppm=10_000
    )
    return Learned(policy=1, sizing=sizing, evidence="[0,[0.5]]", carry_milli=250, ticks=360)


def _decisions_on_services() -> Decided:
    crashed = reason(Code.REPLICA_CRASHED, replica=REPLICA, failures=3, exit_code=1)
    needed = reason(Code.REPLICA_NEEDED, target=1)
    return Decided(
        observed_at=7,
        decisions=(
            Scale(workload=SERVICE, desired=2, since_ms=1_000, target=1, reason=reason(Code.SCALE_LOAD)),
            Learn(workload=SERVICE, learned=_learned(), reason=reason(Code.FORECAST_LEARNED)),
            Revise(workload=SERVICE, revision=1, model_digest=DIGEST, reason=reason(Code.FIRST_REVISION)),
            Spawn(workload=SERVICE, revision=1, job=_replica(), reason=needed),
            Promote(workload=SERVICE, revision=1, reason=reason(Code.ROLLED_OUT, replicas=1)),
            FailRollout(workload=SERVICE, revision=2, reason=crashed),
            Retire(workload=SERVICE, replica=REPLICA, reason=reason(Code.REPLICA_SURPLUS, target=0)),
        ),
    )


_QUOTAS = (Quota(resource="cpus", nominal=8_000, borrowing_limit=2_000, lending_limit=0),)
_BUDGET = Budget(usd_micro=5_000_000, device_ms=3_600_000_000, period_ms=86_400_000)


def _of_services() -> tuple[Event, ...]:
    key = ApiKey(name="team-a", digest="0" * 64, services=(SERVICE,), rate_milli=5_000, concurrency=8)
    return (
        ServiceDeclared(service=_service(), digest=DIGEST),
        GatewayDeclared(gateway=Gateway(port=9_000, keys="required", hosts=("models.example",))),
        QueueDeclared(queue=Queue(name=QueueName("team"), cohort="lab", quotas=_QUOTAS, budget=_BUDGET)),
        QueueRemoved(queue=QueueName("team")),
        ApiKeyCreated(key=key),
        ApiKeyRevoked(name="team-a"),
        Observed(now_ms=1_050, signals=(Signal(name="ongoing_milli", subject=SERVICE, value=None),)),
        _decisions_on_services(),
        RankReady(run=RUN, rank=0, at_ms=1_150, load_ms=40),
    )


def one_of_each() -> tuple[Event, ...]:
    """Every event type at least once, with every kind of decision."""
    job = Job(run="python train.py", artifacts=(Artifact(name="model", path="model.onnx"),))
    node = Node(
        id=NODE, cpu_milli=2_000, memory_bytes=4 << 30, devices=(Device(id=DeviceId("gpu-0"), kind="A100"),)
    )
    return (
        HomeCreated(home_id="home-1"),
        ControlPlaneStarted(epoch=1, build="0.1.0", boot_id="boot-1", libraries=(("msgspec", "0.20"),)),
        PolicySet(policy=Policy()),
        FleetDeclared(fleet=Fleet(name="fleet", nodes=(node,))),
        ClusterObserved(cluster="gpu", problem="no answer", hint="is it up?"),
        NodeHealth(node=NODE, health="alive"),
        InterruptionNotice(node=NODE, at_ms=1_000, ends_ms=121_000),
        PriceObserved(pool="spot-east", at_ms=1_000, price_usd_micro_per_hour=973_100),
        WorkloadDeclared(
            workload=Workload(name=NAME, body=job, resources=Resources(cpu_milli=1_000)), digest=DIGEST
        ),
        Observed(now_ms=1_000, signals=(Signal(name="free_milli", subject="node-0", value=2_000),)),
        _decisions(),
        RankStarted(run=RUN, rank=0, pid=4_242, at_ms=1_100, limits="cgroup-v2"),
        CheckpointSaved(run=RUN, step=10, at_ms=1_200, save_ms=30, digest=DIGEST),
        RankUnknown(run=RUN, rank=0),
        RankExited(run=RUN, rank=0, at_ms=1_300, exit_code=0, completed=True),
        ArtifactPublished(run=RUN, workload=NAME, name="model", digest=DIGEST, size_bytes=1_024),
        ActionFailed(decision="7.2", detail="gerät weg ☹"),
        *_of_services(),
        StopRequested(workload=NAME),
        RemoveRequested(workload=NAME),
    )


def sized(number: int, size_bytes: int = 0) -> Event:
    """An event that can be told from others, whose body is a little larger than a size."""
    return ActionFailed(decision=str(number), detail="x" * size_bytes)


def types_of(events: tuple[Event, ...]) -> set[str]:
    return {event_type(event) for event in events}
