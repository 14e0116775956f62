"""From the state to the gateway's configuration: pure, and the same after every restart.

A replica is listed from the moment its run is decided, so that the gateway finds it the moment it listens,
and no longer than it is wanted. `hold_ms` is how long a request may wait for a first replica: a few times
what a cold start was measured to take, never longer than a request may take in all, and not at all when no
replica will come: the service was stopped, or its only revision given up.
"""

from collections.abc import Callable

from steersman.model.service import Gateway
from steersman.model.snapshot import RunState, ServiceState, Snapshot
from steersman.ports.gateway import GatewayConfig, ReplicaTarget, RevisionConfig, ServiceConfig

HOLD_MS_MIN = 10_000
"""Requests wait at least this long for a first replica: a restart with its back-off fits in it."""
HOLD_COLD_STARTS = 3


def gateway_config(snapshot: Snapshot, target: Callable[[str], ReplicaTarget]) -> GatewayConfig | None:
    """What the gateway should serve; None when nobody declared a service or a gateway.

    `target` says where the replica of a run listens.
    """
    services = [state for _, state in snapshot.services.sorted_items()]
    if not services and snapshot.gateway is None:
        return None
    return GatewayConfig(
        epoch=snapshot.epoch,
        position=snapshot.position,
        gateway=snapshot.gateway or Gateway(),
        services=tuple(_service(snapshot, state, target) for state in services if not state.removing),
        keys=snapshot.keys,
    )


def _service(
    snapshot: Snapshot, state: ServiceState, target: Callable[[str], ReplicaTarget]
) -> ServiceConfig:
    spec = state.spec
    hopeless = state.stop_requested or (state.failed is not None and not (state.serving or state.rolling))
    hold_ms = max(HOLD_MS_MIN, HOLD_COLD_STARTS * (state.cold_start_ms or 0))
    targets: dict[int, list[ReplicaTarget]] = {}
    for ref in state.replicas:
        job = snapshot.workloads[ref.name]
        run = None if job.run is None else snapshot.runs[job.run]
        lives = run is not None and run.state in (RunState.STARTING, RunState.RUNNING)
        if run is not None and lives and not ref.retiring:
            targets.setdefault(ref.revision, []).append(target(run.id))
    return ServiceConfig(
        name=spec.name,
        revisions=tuple(
            RevisionConfig(revision=number, replicas=tuple(replicas))
            for number, replicas in sorted(targets.items())
        ),
        limits=spec.limits,
        inputs=spec.inputs,
        slo_latency_ms=spec.slo_latency_p99_ms,
        hold_ms=0 if hopeless else min(hold_ms, spec.limits.timeout_ms),
    )
