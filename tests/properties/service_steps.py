"""What may happen to services in a story: declared, changed, loaded, ready, crashing, removed.

Theory: see `strategies`. Signals are drawn together and agree with one another (what is queued is in flight
too), as those of one gateway do; any of them may be unknown. A replica may get ready, hang, crash with any
code, or be reported ready late, twice, or though nobody knows it.
"""

import random
from collections.abc import Callable

from msgspec.structs import replace
from tests.scenarios.home import Home
from tests.scenarios.serving import served, service

from steersman.model.events import (
    ApiKeyCreated,
    ApiKeyRevoked,
    Event,
    GatewayDeclared,
    RankExited,
    RankReady,
    RankStarted,
    RemoveRequested,
    Signal,
    StopRequested,
)
from steersman.model.ids import RunId, WorkloadName
from steersman.model.service import (
    GATEWAY_NAME,
    ApiKey,
    CallableModel,
    Gateway,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
)
from steersman.model.snapshot import Run, RunState

SERVICES = ("s0", "s1")
_SCALINGS = (
    Scaling(),
    Scaling(min_replicas=2, max_replicas=2),
    Scaling(min_replicas=0, max_replicas=3, upscale_delay_ms=1_000, downscale_delay_ms=2_000,
            downscale_to_zero_delay_ms=4_000, target_ongoing_requests_milli=1_000),
    Scaling(min_replicas=1, max_replicas=4, initial_replicas=2, upscale_delay_ms=0, downscale_delay_ms=3_000,
            queued_requests_milli=500, latency_p99_ms=50),
    Scaling(min_replicas=0, max_replicas=4, initial_replicas=1, upscale_delay_ms=2_000, downscale_delay_ms=0,
            downscale_to_zero_delay_ms=0, upscaling_factor_milli=500, downscaling_factor_milli=300),
)  # fmt: skip
_ROLLOUTS = (
    RolloutPolicy(surge_max=1, ready_timeout_ms=5_000, crashes_max=2),
    RolloutPolicy(surge_max=2, ready_timeout_ms=8_000, crashes_max=1),
    RolloutPolicy(surge_max=1, ready_timeout_ms=60_000, crashes_max=3, ready_ms_min=1_500),
)
_ONGOING = (0, 0, 500, 1_000, 1_001, 2_000, 3_600, 4_000, 6_000, None)
_QUEUED = (0, 0, 0, 500, 1_500, 4_000, None)
_ARRIVALS = (0, 500, 3_000, 3_000, 12_000, 40_000, None)
_CAPACITY = (2_000, 2_000, 5_000, 20_000)
_LATENCY = (10_000, 37_000, 49_000, 51_000, 400_000, None, None)


def draw_service(rng: random.Random) -> Service:
    """Services that fit a small fleet, some scale, some outrank jobs, some wait for a job's model."""
    spec = service(
        rng.choice(SERVICES),
        cores=rng.choice((1, 1, 2)),
        model=rng.choice(("v1", "v2", "v3")),
        artifact=rng.choice(("", "", "", "", "w0/model", "w1/model", "ghost/model")),
        scaling=rng.choice(_SCALINGS),
        rollout=rng.choice(_ROLLOUTS),
        limits=RequestLimits(timeout_ms=rng.choice((1_500, 30_000))),
        priority=rng.choice((0, 0, 5, 10)),
    )
    if rng.random() < 0.15:
        model = CallableModel(target="app:model")
        spec = replace(
            spec, model=model, workdir="/code", workdir_digest=rng.choice(("sha256:a", "sha256:b"))
        )
    return spec


def _picked(home: Home, number: int) -> Service | None:
    state = home.snapshot.services.get(SERVICES[number % len(SERVICES)])
    return None if state is None else state.spec


def _replica_runs(home: Home) -> list[Run]:
    live = (home.snapshot.runs[RunId(entry[0])] for entry in home.snapshot.indexes.live)
    return [run for run in live if home.snapshot.workloads[run.workload].service is not None]


def serve(spec: Service | None) -> list[Event]:
    """A declaration that may need a new revision."""
    assert spec is not None
    return [served(spec)]


def retune(home: Home, a: int, b: int, c: int) -> list[Event]:
    """A change in place: other bounds, another priority, another way to roll."""
    spec = _picked(home, a)
    if spec is None:
        return []
    spec = replace(
        spec,
        scaling=_SCALINGS[b % len(_SCALINGS)],
        priority=(0, 5, 10)[c % 3],
        rollout=_ROLLOUTS[c // 3 % len(_ROLLOUTS)],
    )
    return [served(spec, restarts=False)]


def end_service(home: Home, a: int, b: int, c: int) -> list[Event]:
    """Stopped, removed, or stopped and up again."""
    name = WorkloadName(SERVICES[a % len(SERVICES)])
    spec = _picked(home, a)
    match b % 3:
        case 0:
            return [RemoveRequested(workload=name)]
        case 1 if spec is not None and c % 2:
            return [StopRequested(workload=name), served(spec, restarts=False)]
        case _:
            return [StopRequested(workload=name)]


def load(home: Home, a: int, b: int, c: int) -> list[Signal]:
    """What a gateway says of one service."""
    del home
    queued = _QUEUED[b % len(_QUEUED)]
    ongoing = _ONGOING[c % len(_ONGOING)]
    if ongoing is not None and queued is not None:
        ongoing += queued
    values = {
        "ongoing_milli": ongoing,
        "queued_milli": queued,
        "latency_p99_us": _LATENCY[(b + c) % len(_LATENCY)],
        "arrivals_milli": _ARRIVALS[(b + 2 * c) % len(_ARRIVALS)],
        "capacity_milli": _CAPACITY[(a + b) % len(_CAPACITY)],
    }
    subject = (*SERVICES, *SERVICES, "ghost")[a % 5]
    return [Signal(name=name, subject=subject, value=value) for name, value in values.items()]


def _ready_event(home: Home, run: Run) -> RankReady:
    return RankReady(run=run.id, rank=0, at_ms=home.now_ms, load_ms=1)


def ready(home: Home, a: int, b: int, c: int) -> list[Event]:
    """One replica begins and gets ready, or is only said to be."""
    runs = _replica_runs(home)
    if not runs:
        return []
    run = runs[a % len(runs)]
    begun = RankStarted(run=run.id, rank=0, pid=1, at_ms=home.now_ms)
    return [*([begun] if b % 4 else []), _ready_event(home, run)]


def all_ready(home: Home, a: int, b: int, c: int) -> list[Event]:
    """Every replica that can."""
    runs = _replica_runs(home)
    begun: list[Event] = [
        RankStarted(run=run.id, rank=0, pid=1, at_ms=home.now_ms)
        for run in runs
        if run.state is RunState.STARTING
    ]
    return [*begun, *(_ready_event(home, run) for run in runs if run.state is not RunState.STOPPING)]


_CODES = (1, 78, None, 137)


def crash(home: Home, a: int, b: int, c: int) -> list[Event]:
    """A replica's program, or the gateway's, is gone."""
    runs = _replica_runs(home)
    gateway = home.snapshot.workloads.get(GATEWAY_NAME)
    if c % 8 == 0 and gateway is not None and gateway.run is not None:
        runs = [home.snapshot.runs[gateway.run]]
    if not runs:
        return []
    run = runs[a % len(runs)]
    code = _CODES[b % len(_CODES)]
    begun = RankStarted(run=run.id, rank=0, pid=1, at_ms=home.now_ms)
    gone = RankExited(
        run=run.id, rank=0, at_ms=home.now_ms, exit_code=code, signal=11 if code is None else None
    )
    if c % 5 == 1:  # with its machine, and no fault of its own
        gone = replace(gone, exit_code=None, signal=None, cause="lost")
    return [begun, gone]


def drained(home: Home, a: int, b: int, c: int) -> list[Event]:
    """Every replica that was told to end has drained and is gone."""
    return [
        RankExited(run=run.id, rank=0, at_ms=home.now_ms, exit_code=0, stop_delivered=True)
        for run in _replica_runs(home)
        if run.state is RunState.STOPPING
    ]


def door(home: Home, a: int, b: int, c: int) -> list[Event]:
    """The gateway and its keys; and requests on what services own, which are nobody's to make."""
    names = [name for name, state in home.snapshot.workloads.sorted_items() if state.service is not None]
    owned = WorkloadName(names[b % len(names)]) if names else GATEWAY_NAME
    made: tuple[Event, ...] = (
        GatewayDeclared(gateway=Gateway(port=8_000 + c % 3)),
        ApiKeyCreated(key=ApiKey(name=f"k{b % 3}", digest=f"sha256:{c % 4}")),
        ApiKeyRevoked(name=f"k{b % 3}"),
        StopRequested(workload=owned),
        RemoveRequested(workload=owned),
        RankReady(run=RunId("ghost.1"), rank=0, at_ms=home.now_ms, load_ms=1),
    )
    return [made[a % len(made)]]


KINDS: dict[str, Callable[[Home, int, int, int], list[Event] | list[Signal]]] = {
    "retune": retune,
    "end-service": end_service,
    "load": load,
    "ready": ready,
    "all-ready": all_ready,
    "crash": crash,
    "drained": drained,
    "door": door,
}
WEIGHTS = {"serve": 3, "load": 4, "all-ready": 6, "crash": 2, "drained": 4, "retune": 2}
