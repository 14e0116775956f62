"""A home in memory: events in, decisions and reasons out, through the real fold and the real deciders.

Theory: `Home` does what the engine's loop does and nothing else. A cycle folds one batch (an `Observed`, then
what the world reported), asks `decide`, and folds the intent. Every cycle is kept, so that a checker can look
at what was seen, what was decided and what became of it. Time moves only when a test says so.
"""

from collections.abc import Sequence
from typing import Self

import msgspec

from steersman.decide.cycle import Memo, decide
from steersman.model.decisions import Decision, Plan, Start, Stop
from steersman.model.devices import modes_of
from steersman.model.events import (
    ArtifactPublished,
    CheckpointSaved,
    Decided,
    Event,
    FleetDeclared,
    HomeCreated,
    Observed,
    RankExited,
    RankStarted,
    RemoveRequested,
    Signal,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, WorkloadName
from steersman.model.reasons import Code
from steersman.model.resources import Device, Resources
from steersman.model.snapshot import Phase, Run, RunState, Snapshot, WorkloadState
from steersman.model.workload import Artifact, CheckpointPolicy, Input, Job, Retry, Workload
from steersman.state.fold import fold

GIB = 1 << 30
RETRY_DEFAULT, CHECKPOINT_DEFAULT = Retry(), CheckpointPolicy()
EPOCH_MS = 1_700_000_000_000
SETTLE_CYCLES_MAX = 64
"""Cycles without news after which a home that still decides something counts as a livelock."""


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the loop: `before` the batch, what was `seen`, the plan, what came `after`."""

    before: Snapshot
    batch: tuple[Event, ...]
    seen: Snapshot
    plan: Plan
    after: Snapshot


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the journal would hold it."""

    position: int
    at_ms: int
    event: Event


def node(
    name: str, *, cores: int = 2, gib: int = 8, devices: Sequence[str] = (), site: str = "local"
) -> Node:
    """A node; `devices` are kinds."""
    return Node(
        id=NodeId(name),
        site=site,
        cpu_milli=cores * 1_000,
        memory_bytes=gib * GIB,
        devices=tuple(
            Device(id=DeviceId(f"{name}/{at}"), kind=kind, sharing=modes_of(kind))
            for at, kind in enumerate(devices)
        ),
    )


def fleet(*nodes: Node) -> FleetDeclared:
    """The whole fleet, anew."""
    return FleetDeclared(fleet=Fleet(name="fleet", nodes=tuple(sorted(nodes, key=lambda item: item.id))))


def job(
    name: str,
    *,
    cores: int = 1,
    gib: int = 1,
    gpus: tuple[tuple[str, int], ...] = (),
    ranks: int = 1,
    priority: int = 0,
    retry: Retry = RETRY_DEFAULT,
    checkpoint: CheckpointPolicy = CHECKPOINT_DEFAULT,
    max_duration_ms: int | None = None,
    inputs: Sequence[str] = (),
    artifacts: Sequence[str] = (),
) -> Workload:
    """A declaration; `inputs` are written ``workload/artifact``."""
    body = Job(
        run="train",
        num_nodes=ranks,
        retry=retry,
        checkpoint=checkpoint,
        max_duration_ms=max_duration_ms,
        inputs=tuple(
            Input(
                name=item.replace("/", "-"),
                workload=WorkloadName(item.split("/")[0]),
                artifact=item.split("/")[1],
            )
            for item in inputs
        ),
        artifacts=tuple(Artifact(name=item, path=item) for item in artifacts),
    )
    resources = Resources(cpu_milli=cores * 1_000, memory_bytes=gib * GIB, accelerators=gpus)
    return Workload(name=WorkloadName(name), body=body, resources=resources, priority=priority)


def declared(spec: Workload, *, restarts: bool = True) -> WorkloadDeclared:
    """`steer up` of one workload."""
    return WorkloadDeclared(workload=spec, digest=f"{spec.priority}", restarts=restarts)


RESUMABLE = CheckpointPolicy(enabled=True, interval_ms=60_000)


class Home:
    """State, time and the log; see the module."""

    def __init__(self, *events: Event) -> None:
        self.snapshot = Snapshot()
        self.now_ms = EPOCH_MS
        self.log: list[Record] = []
        self.cycles: list[Cycle] = []
        self.memo = Memo()
        self.fold(HomeCreated(home_id="home"), *events)

    @classmethod
    def of(cls, snapshot: Snapshot, now_ms: int) -> Self:
        """A home that goes on from a state; its log begins here."""
        home = cls.__new__(cls)
        home.snapshot, home.now_ms, home.log, home.cycles = snapshot, now_ms, [], []
        home.memo = Memo()
        return home

    def fold(self, *events: Event) -> None:
        """Journal and fold, without deciding."""
        numbered = list(enumerate(events, start=self.snapshot.position + 1))
        self.snapshot = fold(self.snapshot, numbered)
        self.log += [Record(position=at, at_ms=self.now_ms, event=event) for at, event in numbered]

    def cycle(self, *events: Event, after_ms: int = 1_000, signals: tuple[Signal, ...] = ()) -> Plan:
        """One turn of the loop."""
        self.now_ms += after_ms
        before = self.snapshot
        batch = (Observed(now_ms=self.now_ms, signals=signals), *events)
        self.fold(*batch)
        seen = self.snapshot
        plan = decide(seen, self.memo)
        if plan.decisions or plan.packing:
            intent = Decided(observed_at=seen.observed_at, decisions=plan.decisions, packing=plan.packing)
            self.fold(intent)
        self.cycles.append(Cycle(before=before, batch=batch, seen=seen, plan=plan, after=self.snapshot))
        return plan

    def settle(self) -> list[Decision]:
        """Cycles without news until nothing is decided; everything that was."""
        made: list[Decision] = []
        for _ in range(SETTLE_CYCLES_MAX):
            plan = self.cycle(after_ms=0)
            if not plan.decisions:
                return made
            made += plan.decisions
        raise AssertionError("livelock: " + ", ".join(type(item).__name__ for item in made[-8:]))

    def up(self, *specs: Workload, restarts: bool = True) -> Plan:
        """Declare and decide."""
        return self.cycle(*(declared(spec, restarts=restarts) for spec in specs))

    def state(self, name: str) -> WorkloadState:
        return self.snapshot.workloads[name]

    def phase(self, name: str) -> Phase:
        return self.state(name).phase

    def code(self, name: str) -> Code | None:
        why = self.state(name).reason
        return None if why is None else why.code

    def facts(self, name: str) -> dict[str, str | int]:
        why = self.state(name).reason
        return {} if why is None else dict(why.facts)

    def run(self, name: str) -> Run:
        run = self.state(name).run
        assert run is not None, f"{name} has no run"
        return self.snapshot.runs[run]

    def begin(self, name: str, after_ms: int = 0) -> Plan:
        """Every rank of the workload's run has begun."""
        run = self.run(name)
        at = self.now_ms + after_ms
        events = [RankStarted(run=run.id, rank=rank, pid=7, at_ms=at) for rank in range(len(run.ranks))]
        return self.cycle(*events, after_ms=after_ms)

    def end(
        self,
        name: str,
        *,
        code: int | None = 0,
        signal: int | None = None,
        after_ms: int = 1_000,
        artifacts: Sequence[str] = (),
        rank: int | None = None,
        completed: bool = False,
    ) -> Plan:
        """Every rank (or one) of the workload's run is gone; a stop under way counts as delivered."""
        run = self.run(name)
        ranks = range(len(run.ranks)) if rank is None else (rank,)
        stopping = run.state is RunState.STOPPING
        published: list[Event] = [published_by(run, name, item) for item in artifacts]
        exits = [
            RankExited(
                run=run.id,
                rank=at,
                at_ms=self.now_ms + after_ms,
                exit_code=None if signal is not None else code,
                signal=signal,
                stop_delivered=stopping,
                completed=completed,
            )
            for at in ranks
            if run.ranks[at].end is None
        ]
        return self.cycle(*published, *exits, after_ms=after_ms)

    def save(self, name: str, step: int, *, save_ms: int = 200, after_ms: int = 1_000) -> Plan:
        """The workload's run published a checkpoint."""
        at = self.now_ms + after_ms
        event = CheckpointSaved(
            run=self.run(name).id, step=step, at_ms=at, save_ms=save_ms, digest="sha256:0"
        )
        return self.cycle(event, after_ms=after_ms)

    def stop(self, name: str) -> Plan:
        return self.cycle(StopRequested(workload=WorkloadName(name)))

    def down(self, name: str) -> Plan:
        return self.cycle(RemoveRequested(workload=WorkloadName(name)))


def published_by(run: Run, name: str, artifact: str) -> ArtifactPublished:
    """The run stored a declared artifact."""
    return ArtifactPublished(
        run=run.id, workload=WorkloadName(name), name=artifact, digest="sha256:0", size_bytes=1
    )


def told(plan: Plan) -> list[str]:
    """A plan as short words, for tests to compare: ``start digits placed``."""
    words = []
    for decision in plan.decisions:
        verb = type(decision).__struct_config__.tag
        extra = f" ({decision.cause})" if isinstance(decision, Stop) else ""
        words.append(f"{verb} {decision.workload}{extra}: {decision.reason.code.value}")
    return words


def starts(plan: Plan) -> dict[WorkloadName, list[NodeId]]:
    """Who starts where, rank by rank."""
    return {
        item.workload: [placement.node for placement in item.placements]
        for item in plan.decisions
        if isinstance(item, Start)
    }
