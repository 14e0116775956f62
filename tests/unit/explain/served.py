"""A home with a service, for tests: replicas come up, crash and drain when a test says so."""

from typing import Any

from tests.scenarios.home import Home, fleet, node

from steersman.model.events import Observed, RankExited, RankReady, RankStarted, ServiceDeclared, Signal
from steersman.model.ids import WorkloadName
from steersman.model.resources import Resources
from steersman.model.service import CallableModel, OnnxModel, Scaling, Service
from steersman.model.snapshot import RunState, ServiceState

MODEL = CallableModel(target="m:M")


def service(
    name: str = "digits",
    *,
    scaling: Scaling | None = None,
    model: OnnxModel | CallableModel = MODEL,
    cores: int = 1,
    **more: Any,
) -> Service:
    """A declaration; one replica of one core when nothing else is said."""
    return Service(
        name=WorkloadName(name),
        model=model,
        resources=Resources(cpu_milli=cores * 1_000, memory_bytes=1 << 30),
        scaling=Scaling() if scaling is None else scaling,
        **more,
    )


class Served(Home):
    """A home with nodes; `serve` declares and settles."""

    def __init__(self, cores: int = 8) -> None:
        super().__init__(fleet(node("a", cores=cores, gib=32)))

    def serve(self, spec: Service) -> None:
        """Declare a service and let what follows at once be decided."""
        self.cycle(ServiceDeclared(service=spec, digest="sha256:0"))
        self.settle()

    def service(self, name: str = "digits") -> ServiceState:
        return self.snapshot.services[name]

    def bring_up(self, *names: str) -> None:
        """Everything that starts begins; of replicas (all, or those named) that they answer."""
        for (run_id,) in list(self.snapshot.indexes.live):
            run = self.snapshot.runs[run_id]
            if run.state is RunState.STARTING:
                self.cycle(RankStarted(run=run.id, rank=0, pid=7, at_ms=self.now_ms))
            replica = self.state(run.workload).service is not None
            waits = run.ready_ms is None and run.state is not RunState.STOPPING
            if replica and waits and (not names or run.workload in names):
                self.cycle(RankReady(run=run.id, rank=0, at_ms=self.now_ms, load_ms=500))
        self.settle()

    def crash(self, name: str, exit_code: int = 1) -> None:
        """The run of that replica ends by itself."""
        run = self.run(name)
        events = [] if run.started_ms else [RankStarted(run=run.id, rank=0, pid=7, at_ms=self.now_ms)]
        self.cycle(*events, RankExited(run=run.id, rank=0, at_ms=self.now_ms, exit_code=exit_code))
        self.settle()

    def drained(self) -> None:
        """Everything that was told to end has ended."""
        for (run_id,) in list(self.snapshot.indexes.live):
            run = self.snapshot.runs[run_id]
            if run.state is RunState.STOPPING:
                self.cycle(
                    RankExited(run=run.id, rank=0, at_ms=self.now_ms, exit_code=0, stop_delivered=True)
                )
        self.settle()

    def hear(self, *signals: tuple[str, int | None], name: str = "digits") -> None:
        """Signals as the gateway's sensor would say them."""
        said = tuple(Signal(name=kind, subject=name, value=value) for kind, value in signals)
        self.now_ms += 1_000
        self.fold(Observed(now_ms=self.now_ms, signals=said))
        self.settle()
