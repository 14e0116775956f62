"""Services in a home in memory: the words of `home`, and a world in which programs behave.

Theory: `Shop` is a `Home` whose machines and programs are good unless a test says otherwise. `world` tells
what healthy ones report: programs begin, replicas get ready, what is told to end ends. Replicas in `hung`
never get ready; those of a revision in `broken` exit with that code as soon as they have begun.
"""

from collections.abc import Sequence
from typing import Any

from tests.scenarios.home import GIB, Home

from steersman.decide.rollout import Replica, replicas_of
from steersman.model.decisions import Plan
from steersman.model.events import (
    ArtifactPublished,
    Event,
    RankExited,
    RankReady,
    RankStarted,
    ServiceDeclared,
    Signal,
)
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code
from steersman.model.resources import Resources
from steersman.model.service import ArtifactRef, OnnxModel, RequestLimits, RolloutPolicy, Scaling, Service
from steersman.model.snapshot import Run, RunState, ServiceState
from steersman.ports.gateway import ReplicaTarget

FIXED, LIMITS, ROLLOUT = Scaling(), RequestLimits(), RolloutPolicy()
QUIET_CYCLES_MAX = 200
"""Cycles in which a good world must come to rest."""


def service(
    name: str = "digits",
    *,
    cores: int = 1,
    model: str = "v1",
    artifact: str = "",
    scaling: Scaling = FIXED,
    rollout: RolloutPolicy = ROLLOUT,
    limits: RequestLimits = LIMITS,
    priority: int = 0,
) -> Service:
    """A declaration; `artifact` is written ``job/artifact``, else `model` names the content of a file."""
    source = None
    if artifact:
        source = ArtifactRef(workload=WorkloadName(artifact.split("/")[0]), artifact=artifact.split("/")[1])
    path, digest = (None, None) if artifact else ("/model.onnx", f"sha256:{model}")
    return Service(
        name=WorkloadName(name),
        model=OnnxModel(path=path, digest=digest, artifact=source),
        resources=Resources(cpu_milli=cores * 1_000, memory_bytes=GIB),
        scaling=scaling,
        rollout=rollout,
        limits=limits,
        priority=priority,
    )


def served(spec: Service, *, restarts: bool = True) -> ServiceDeclared:
    """`steer up` of one service."""
    return ServiceDeclared(service=spec, digest=f"{spec.priority}", restarts=restarts)


def replicas(least: int, most: int | None = None, **fields: Any) -> Scaling:
    """Bounds of the number of replicas, with delays of three seconds up and ten down."""
    delays = {"upscale_delay_ms": 3_000, "downscale_delay_ms": 10_000, "downscale_to_zero_delay_ms": 20_000}
    upper = least if most is None else most
    return Scaling(min_replicas=least, max_replicas=upper, **{**delays, **fields})


def target_of(run: str) -> ReplicaTarget:
    """Where the replica of a run would listen."""
    return ReplicaTarget(run=run, socket=f"/{run}")


class Shop(Home):
    """A home with services; see the module."""

    def __init__(self, *events: Event) -> None:
        super().__init__(*events)
        self.hung: set[str] = set()
        self.broken: dict[int, int] = {}

    def serve(self, *specs: Service, restarts: bool = True) -> Plan:
        """Declare services and decide."""
        return self.cycle(*(served(spec, restarts=restarts) for spec in specs))

    def service(self, name: str = "digits") -> ServiceState:
        return self.snapshot.services[name]

    def why(self, name: str = "digits") -> Code | None:
        """The code of the service's own line."""
        found = self.service(name).reason
        return None if found is None else found.code

    def wanted(self, name: str = "digits", revision: int | None = None) -> list[Replica]:
        """Its replicas that are not being retired, in order of their making."""
        found = replicas_of(self.snapshot, self.service(name))
        return [item for item in found if revision in (None, item.ref.revision)]

    def names(self, name: str = "digits", revision: int | None = None) -> list[str]:
        """What they are called."""
        return [item.ref.name for item in self.wanted(name, revision)]

    def ready(self, name: str = "digits", revision: int | None = None) -> int:
        """How many of them answer."""
        return sum(item.ready for item in self.wanted(name, revision))

    def world(self) -> list[Event]:
        """What a good world reports now."""
        return [event for _, run in self.snapshot.runs.sorted_items() for event in self._news(run)]

    def _news(self, run: Run) -> Sequence[Event]:
        spec = self.snapshot.workloads[run.workload].spec
        if run.state is RunState.STARTING:
            return [
                RankStarted(run=run.id, rank=rank, pid=7, at_ms=self.now_ms) for rank in range(len(run.ranks))
            ]
        if run.state is RunState.STOPPING:
            code = 0 if spec.body.program != "command" else 75
            return [
                RankExited(run=run.id, rank=rank, at_ms=self.now_ms, exit_code=code, stop_delivered=True)
                for rank in range(len(run.ranks))
            ]
        serves = spec.body.replica
        if run.state is not RunState.RUNNING or serves is None or run.ready_ms is not None:
            return []
        if serves.revision in self.broken:
            return [RankExited(run=run.id, rank=0, at_ms=self.now_ms, exit_code=self.broken[serves.revision])]
        if run.workload in self.hung:
            return []
        return [RankReady(run=run.id, rank=0, at_ms=self.now_ms, load_ms=5)]

    def rest(self, *, step_ms: int = 100) -> None:
        """Let the good world go on until nothing happens and nothing is decided any more."""
        for _ in range(QUIET_CYCLES_MAX):
            news = self.world()
            if not self.cycle(*news, after_ms=step_ms).decisions and not news:
                return
        raise AssertionError("it does not come to rest")

    def pass_ms(self, duration_ms: int, *, step_ms: int = 1_000) -> None:
        """Let time go by in the good world."""
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.cycle(*self.world(), after_ms=min(step_ms, end_ms - self.now_ms))

    def tell(self, name: str = "digits", *, after_ms: int = 1_000, **values: int | None) -> Plan:
        """Signals of a service move: ``ongoing_milli=4_000``."""
        moved = tuple(Signal(name=word, subject=name, value=value) for word, value in sorted(values.items()))
        return self.cycle(after_ms=after_ms, signals=moved)

    def published(self, name: str, artifact: str, *, digest: str) -> ArtifactPublished:
        """A job's run stored an artifact with a content of its own."""
        run = self.run(name)
        return ArtifactPublished(
            run=run.id, workload=run.workload, name=artifact, digest=digest, size_bytes=1
        )

    def kill(self, replica: str, *, signal: int | None = 9, code: int | None = None) -> Plan:
        """A replica's program is gone."""
        return self.end(replica, signal=signal, code=code)


def up(*events: Event, spec: Service | None = None) -> Shop:
    """A shop with one service that is ready; without events, on four cores."""
    shop = Shop(*events)
    shop.serve(service() if spec is None else spec)
    shop.rest()
    return shop
