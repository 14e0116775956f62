"""What came of a history, counted from its events: the same books for what was and for what is simulated.

Theory of operation. Events are taken in the order of the journal. What is leased is summed over time as it
goes; what became of a job is noted at the verdict over its runs, from the state before it. Nothing here
knows whether the events were recorded or simulated, so that two columns of a table differ by what happened
and not by how it was counted.
"""

from collections.abc import Callable

import msgspec

from steersman.model.decisions import Decision, Finish, Forget, Placement, Requeue, Start, Stop
from steersman.model.events import (
    Decided,
    Event,
    FleetDeclared,
    NodeHealth,
    Observed,
    RankExited,
    WorkloadDeclared,
)
from steersman.model.fleet import Node
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.resources import WHOLE_MILLI
from steersman.model.signals import LATENCY
from steersman.model.snapshot import Run, RunState, ServiceState, Snapshot, WorkloadState

BUCKETS_MAX = 240
"""So many points of a curve over time are kept; their width doubles when time outgrows them."""
BUCKET_MS_BASE = 1_000
MIG_SLICES = 7
"""Compute slices of a device in MIG mode."""

JobKey = tuple[WorkloadName, int]
"""A name and the number of its declaration, from 0: it names the same job in record and simulation."""
Lookup = Callable[[], Snapshot]


class Job(msgspec.Struct, kw_only=True):
    """One job: epoch milliseconds, None while it has not come to that."""

    declared_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    outcome: str = ""


class Amounts(msgspec.Struct, kw_only=True):
    """Sums over time. `cost_usd_micro_ms` None: a node that held work has no known price."""

    core_ms: int = 0
    core_capacity_ms: int = 0
    device_milli_ms: int = 0
    device_capacity_milli_ms: int = 0
    cost: int | None = 0


class Curve:
    """A sum over time in at most BUCKETS_MAX buckets of one width."""

    def __init__(self, begin_ms: int) -> None:
        self.begin_ms = begin_ms
        self.width_ms = BUCKET_MS_BASE
        self.sums: list[int] = []

    def add(self, since_ms: int, until_ms: int, rate: int) -> None:
        """`rate` a millisecond from one instant to another."""
        while until_ms - self.begin_ms > self.width_ms * BUCKETS_MAX:
            pairs = range(0, len(self.sums), 2)
            self.sums = [sum(self.sums[at : at + 2]) for at in pairs]
            self.width_ms *= 2
        while since_ms < until_ms:
            at = (since_ms - self.begin_ms) // self.width_ms
            edge = min(until_ms, self.begin_ms + (at + 1) * self.width_ms)
            self.sums += [0] * (at + 1 - len(self.sums))
            self.sums[at] += rate * (edge - since_ms)
            since_ms = edge

    def points(self) -> tuple[tuple[int, int], ...]:
        """(milliseconds after the begin, mean rate) of each bucket."""
        return tuple((at * self.width_ms, total // self.width_ms) for at, total in enumerate(self.sums))


class Numbers:
    """Which job a generation is of: declarations by position, numbered by name."""

    def __init__(self) -> None:
        self._counts: dict[WorkloadName, int] = {}
        self._keys: dict[int, JobKey] = {}

    def declared(self, position: int, name: WorkloadName) -> JobKey:
        """The next declaration of a name."""
        number = self._counts.get(name, 0)
        self._counts[name] = number + 1
        self._keys[position] = (name, number)
        return self._keys[position]

    def of(self, generation: int) -> JobKey | None:
        """The job of a generation; None for what no user declared."""
        return self._keys.get(generation)


class Books:
    """The books of one history that begins at `begin_ms`."""

    def __init__(self, begin_ms: int) -> None:
        self.numbers = Numbers()
        self.now_ms = begin_ms
        self.jobs: dict[JobKey, Job] = {}
        self.amounts = Amounts()
        self.at_last_end = Amounts()
        self.last_end_ms: int | None = None
        self.first_declared_ms: int | None = None
        self.evictions = self.restarts = 0
        self.lost_core_ms = self.lost_device_milli_ms = 0
        self.service_ms = self.short_ms = self.judged_ms = self.missed_ms = 0
        self.cores = Curve(begin_ms)
        self._nodes: dict[NodeId, Node] = {}
        self._away: set[NodeId] = set()
        self._leases: dict[tuple[RunId, int], Placement] = {}
        self._holding: dict[NodeId, int] = {}
        self._core_rate = self._device_rate = 0
        self._core_capacity = self._device_capacity = 0
        self._cost_rate: int | None = 0

    def take(self, position: int, event: Event, before: Lookup) -> None:
        """The next event; `before` gives the state that it was added to."""
        match event:
            case Observed():
                self.pass_to(event.now_ms, before)
            case WorkloadDeclared():
                key = self.numbers.declared(position, event.workload.name)
                self.jobs[key] = Job(declared_ms=self.now_ms)
                if self.first_declared_ms is None:
                    self.first_declared_ms, self.amounts = self.now_ms, Amounts()
            case FleetDeclared():
                self._nodes = {node.id: node for node in event.fleet.nodes}
                self._weigh()
            case NodeHealth():
                self._health(event)
            case RankExited():
                self._release(event.run, event.rank)
            case Decided():
                for decision in event.decisions:
                    self._decided(decision, before)

    def _pass(self, now_ms: int) -> None:
        since_ms, self.now_ms = self.now_ms, max(now_ms, self.now_ms)
        passed = self.now_ms - since_ms
        if not passed:
            return
        sums = self.amounts
        sums.core_ms += self._core_rate * passed
        sums.core_capacity_ms += self._core_capacity * passed
        sums.device_milli_ms += self._device_rate * passed
        sums.device_capacity_milli_ms += self._device_capacity * passed
        if sums.cost is not None:
            sums.cost = None if self._cost_rate is None else sums.cost + self._cost_rate * passed
        self.cores.add(since_ms, self.now_ms, self._core_rate)

    def pass_to(self, now_ms: int, before: Lookup) -> None:
        """Nothing happened until then; `before` gives the state meanwhile."""
        since_ms = self.now_ms
        self._pass(now_ms)
        snapshot = before()
        for _, state in snapshot.services.sorted_items():
            self._serve(snapshot, state, self.now_ms - since_ms)

    def _serve(self, snapshot: Snapshot, state: ServiceState, passed_ms: int) -> None:
        if state.stop_requested or state.removing or not passed_ms:
            return
        self.service_ms += passed_ms
        if _ready(snapshot, state) < state.target:
            self.short_ms += passed_ms
        slo = state.spec.slo_latency_p99_ms
        latency = next((known.value for known in state.signals if known.name == LATENCY), None)
        if slo is not None and latency is not None:
            self.judged_ms += passed_ms
            self.missed_ms += passed_ms if latency > slo * 1_000 else 0

    def _health(self, event: NodeHealth) -> None:
        self._away.discard(event.node)
        if event.health != "alive":
            self._away.add(event.node)
        if event.health == "dead":
            for run, rank in [key for key, held in self._leases.items() if held.node == event.node]:
                self._release(run, rank)
        self._weigh()

    def _weigh(self) -> None:
        """The rates that follow from nodes."""
        here = [node for node in self._nodes.values() if node.id not in self._away]
        self._core_capacity = sum(node.cpu_milli for node in here)
        self._device_capacity = sum(WHOLE_MILLI * len(node.devices) for node in here)
        self._price()

    def _price(self) -> None:
        rate = 0
        for node_id in self._holding:
            node = self._nodes.get(node_id)
            if node is None or node.price_usd_micro_per_hour is None:
                self._cost_rate = None
                return
            rate += node.price_usd_micro_per_hour
        self._cost_rate = rate

    def _lease(self, run: RunId, placement: Placement) -> None:
        self._leases[run, placement.rank] = placement
        self._core_rate += placement.cpu_milli
        self._device_rate += device_milli(placement)
        held = self._holding.get(placement.node, 0)
        self._holding[placement.node] = held + 1
        if not held:
            self._price()

    def _release(self, run: RunId, rank: int) -> None:
        placement = self._leases.pop((run, rank), None)
        if placement is None:
            return
        self._core_rate -= placement.cpu_milli
        self._device_rate -= device_milli(placement)
        self._holding[placement.node] -= 1
        if not self._holding[placement.node]:
            del self._holding[placement.node]
            self._price()

    def _decided(self, decision: Decision, before: Lookup) -> None:
        match decision:
            case Start():
                for placement in decision.placements:
                    self._lease(decision.run, placement)
            case Stop(cause="preempted"):
                self.evictions += 1
            case Requeue() | Finish() | Forget():
                state = before().workloads.get(decision.workload)
                if state is not None and state.spec.body.program == "command":
                    self._judged(decision, state, before())

    def _judged(self, decision: Requeue | Finish | Forget, state: WorkloadState, snapshot: Snapshot) -> None:
        run = None if state.run is None else snapshot.runs[state.run]
        key = self.numbers.of(state.generation if run is None else run.generation)
        job = None if key is None else self.jobs.get(key)
        if job is None:
            return
        if run is not None and job.started_ms is None:
            job.started_ms = run.started_ms
        if isinstance(decision, Requeue):
            self.restarts += 1
            self._lose(run)
        elif isinstance(decision, Finish):
            job.outcome, job.ended_ms = decision.outcome, self.now_ms
            if run is not None and run.ended_ms is not None:
                job.ended_ms = run.ended_ms
            if decision.outcome != "stopped":
                self.at_last_end = msgspec.structs.replace(self.amounts)
                self.last_end_ms = self.now_ms

    def _lose(self, run: Run | None) -> None:
        """What was done since the last save is to be done again."""
        if run is None or run.started_ms is None or run.ended_ms is None:
            return
        lost_ms = max(run.ended_ms - max(run.started_ms, run.saved_ms or 0), 0)
        for rank in run.ranks:
            self.lost_core_ms += rank.placement.cpu_milli * lost_ms
            self.lost_device_milli_ms += device_milli(rank.placement) * lost_ms


def device_milli(placement: Placement) -> int:
    """How much of devices a lease holds, in thousandths of one; a MIG instance by its compute slices."""
    if placement.mig_profile:
        slices = int(placement.mig_profile.partition("g")[0])
        return WHOLE_MILLI * slices // MIG_SLICES
    return placement.device_milli * len(placement.devices)


def _ready(snapshot: Snapshot, state: ServiceState) -> int:
    found = 0
    for ref in state.replicas:
        job = snapshot.workloads.get(ref.name)
        run = None if job is None or job.run is None else snapshot.runs[job.run]
        if run is not None and run.state is RunState.RUNNING and run.ready_ms is not None:
            found += not ref.retiring
    return found
