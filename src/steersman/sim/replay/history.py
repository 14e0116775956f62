"""A home's journal, taken apart: what was done to the home, and what each job needed by itself.

Theory of operation. A journal holds two kinds of things. What came from outside (declarations, stops, fleets,
the health of nodes, the load on services) would have come under any policy: it is kept with its time. What
the policy brought about (starts, evictions, waits) is not kept; but what each try tells of its job is: how
far it came, how long a save took, how it failed or ended (see `work`). A stop, removal or new declaration
of a job that had ended was said because it had: it is marked, and a simulation waits with it.

What cannot be known is said in `dropped` or in the fate of a job:
* A job that still ran at the end of the journal needs at least what was seen; that is what it is given.
* One that never ran is given the median of those that succeeded. Neither counts in any metric.
* A process that was lost by itself was lost at a time on a node: there it is lost again, if one is there.
* Replicas answer as late after their start as their service's did in the median. Their crashes, times in
  which nothing was known of a process, and times without a control plane are counted, and not replayed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

import msgspec

from steersman.model.codec import decode_event
from steersman.model.decisions import Decision, Finish, Forget, Requeue, SetCheckpointInterval, Start
from steersman.model.errors import JournalCorrupt
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
from steersman.model.fleet import Node
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.snapshot import FINAL_PHASES, Phase, RankEnd, Run, Snapshot, WorkloadState
from steersman.ports.driver import ArtifactReport
from steersman.ports.journal import Record
from steersman.sim.replay.books import Books, JobKey
from steersman.sim.replay.result import Progress
from steersman.sim.replay.work import Fate, Fault, Work, along
from steersman.sim.replay.work import Progress as Made
from steersman.state.ends import run_end_kind, worst_end
from steersman.state.fold import fold

TELL_EVERY = 2_000
DRIVER = "sim"
"""The driver that holds every node in a simulation."""

OUTSIDE = (
    PolicySet, FleetDeclared, ClusterObserved, NodeHealth, WorkloadDeclared, ServiceDeclared, GatewayDeclared,
    ApiKeyCreated, ApiKeyRevoked, StopRequested, RemoveRequested, QueueDeclared, QueueRemoved,
    InterruptionNotice, PriceObserved,
)  # fmt: skip
"""What comes from outside and would have come under any policy."""
INSIDE = (
    HomeCreated, ControlPlaneStarted, Observed, Decided, RankStarted, RankReady, RankExited, RankUnknown,
    CheckpointSaved, ArtifactPublished, ActionFailed,
)  # fmt: skip
"""What follows from it, or from what was decided."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a job was lost on a node, by nobody's decision."""

    node: NodeId
    workload: WorkloadName
    end: RankEnd


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing from outside. `after_end`: it was said of a job, `subject`, that had ended."""

    at_ms: int
    what: Event | Loss | tuple[Signal, ...]
    subject: WorkloadName | None = None
    after_end: bool = False


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A journal taken apart. `ready_ms`: of each service, from a replica's start to its first answer.

    `policy` is the last that was recorded.
    """

    begin_ms: int
    end_ms: int
    events: int
    happenings: tuple[Happening, ...]
    works: Mapping[JobKey, Work]
    ready_ms: Mapping[WorkloadName, int]
    policy: Policy
    dropped: Mapping[str, int]


class _Tries(msgspec.Struct, kw_only=True):
    """What the tries of one job have told."""

    checkpoints: bool
    fate: Fate | None = None
    needs_ms: int | None = None
    seen_ms: int = 0
    longest_ms: int = 0
    faults: list[Fault] = []
    start_ms: int | None = None
    save_ms: int | None = None
    interval_ms: int | None = None
    stops: list[tuple[int, RankEnd, bool]] = []
    completed: bool = False
    artifacts: tuple[ArtifactReport, ...] = ()


def read_history(records: Iterable[Record], total: int, progress: Progress) -> tuple[History, Books]:
    """A journal from its beginning, and the books of what it says. `total`: how many records there are.

    Raises JournalCorrupt or JournalNewer when an event cannot be read, or there is none.
    """
    reading: _Reading | None = None
    for record in records:
        reading = reading or _Reading(record.at_ms)
        try:
            reading.take(record)
        except (AssertionError, KeyError) as error:  # `fold` trusts its journal: what it meets is no history
            raise JournalCorrupt(
                f"event {record.position} of the journal ({record.type}) does not follow from those before",
                hint="`steer audit --verify` tells whether it was altered; restore the home from a backup",
            ) from error
        if record.position % TELL_EVERY == 0:
            progress(record.position / max(total, 1), "of the journal read")
    if reading is None:
        raise JournalCorrupt("the journal has no events", hint="there is nothing to replay in a new home")
    return reading.end(), reading.books


class _Reading:
    """A journal up to an event."""

    def __init__(self, begin_ms: int) -> None:
        self.begin_ms = self._at_ms = begin_ms
        self.books = Books(begin_ms)
        self._snapshot = Snapshot()
        self._batch: list[tuple[int, Event]] = []
        self._happenings: list[Happening] = []
        self._tries: dict[JobKey, _Tries] = {}
        self._saved: dict[tuple[WorkloadName, int], int] = {}
        self._told: dict[RunId, list[tuple[int, int | None]]] = {}
        self._with_node: set[RunId] = set()
        self._loads: dict[WorkloadName, list[int]] = {}
        self._dropped: Counter[str] = Counter()

    def take(self, record: Record) -> None:
        """The next event."""
        event = decode_event(record.type, record.version, record.body)
        self._at_ms = max(self._at_ms, record.at_ms)
        self.books.take(record.position, event, self._folded)
        match event:
            case Decided():
                for decision in event.decisions:
                    self._decided(decision)
            case ControlPlaneStarted() if event.epoch > 1:
                self._dropped["restarts of the control plane"] += 1
            case RankUnknown():
                self._dropped["times when nothing was known of a process"] += 1
            case Observed() if event.signals:
                self._happened(event.signals)
            case _ if isinstance(event, OUTSIDE):
                self._outside(event, record.position)
        self._batch.append((record.position, event))

    def end(self) -> History:
        """After the last."""
        snapshot = self._folded()
        self.books.pass_to(self._at_ms, self._folded)
        for _, state in snapshot.workloads.sorted_items():
            self._cut_off(snapshot, state)
        cut = Counter(tries.fate for tries in self._tries.values())
        self._dropped["jobs that still ran at the end, given the work that was seen of them"] = cut["running"]
        self._dropped["jobs that waited at the end, given what was seen or the median"] = cut["waiting"]
        others = cut.total() - sum(cut[fate] for fate in ("succeeded", "failed", "running", "waiting"))
        self._dropped["jobs that were stopped, removed or declared anew before they ended: in no metric"] = (
            others
        )
        return History(
            begin_ms=self.begin_ms,
            end_ms=self._at_ms,
            events=snapshot.position,
            happenings=tuple(sorted(self._happenings, key=lambda item: item.at_ms)),
            works=_works(self._tries),
            ready_ms={name: median_low(loads) for name, loads in sorted(self._loads.items())},
            policy=snapshot.policy,
            dropped={reason: count for reason, count in sorted(self._dropped.items()) if count},
        )

    def _folded(self) -> Snapshot:
        if self._batch:
            self._snapshot = fold(self._snapshot, self._batch)
            self._batch = []
        return self._snapshot

    def _happened(self, what: Event | Loss | tuple[Signal, ...], at_ms: int | None = None) -> None:
        self._happenings.append(Happening(at_ms=self._at_ms if at_ms is None else at_ms, what=what))

    def _outside(self, event: Event, position: int) -> None:
        match event:
            case FleetDeclared() | ClusterObserved():
                self._happened(_simulated(event))
            case NodeHealth(health="dead"):
                node = self._folded().nodes.get(event.node)
                self._with_node |= set() if node is None else {run for run, _ in node.leases}
                self._happened(event)
            case WorkloadDeclared():
                key = self.books.numbers.of(position)
                assert key is not None, position
                self._tries[key] = _Tries(checkpoints=event.workload.body.checkpoint.enabled)
                self._about(event.workload.name, event)
            case StopRequested() | RemoveRequested():
                self._about(event.workload, event)
            case _:
                self._happened(event)

    def _about(self, name: WorkloadName, event: Event) -> None:
        state = self._folded().workloads.get(name)
        ended = state is not None and state.phase in FINAL_PHASES
        self._happenings.append(Happening(at_ms=self._at_ms, what=event, subject=name, after_end=ended))

    def _decided(self, decision: Decision) -> None:
        snapshot = self._folded()
        match decision:
            case Start():
                self._told[decision.run] = [(snapshot.now_ms, decision.checkpoint_interval_ms)]
            case SetCheckpointInterval():
                self._told.setdefault(decision.run, []).append((snapshot.now_ms, decision.interval_ms))
            case Requeue() | Finish() | Forget():
                state = snapshot.workloads.get(decision.workload)
                if state is not None:
                    self._judged(decision, state, snapshot)

    def _judged(self, decision: Requeue | Finish | Forget, state: WorkloadState, snapshot: Snapshot) -> None:
        run = None if state.run is None else snapshot.runs[state.run]
        if state.spec.body.program != "command":
            if run is not None:
                self._replica(state, run)
            return
        tries = self._of(state.generation if run is None else run.generation)
        if tries is None:
            return
        if run is not None:
            self._tried(tries, state, run)
        if isinstance(decision, Finish):
            tries.fate = decision.outcome
        elif isinstance(decision, Forget) or (run is not None and run.generation != state.generation):
            tries.fate = tries.fate or "stopped"

    def _of(self, generation: int) -> _Tries | None:
        key = self.books.numbers.of(generation)
        return None if key is None else self._tries.get(key)

    def _replica(self, state: WorkloadState, run: Run) -> None:
        if run.started_ms is not None and run.ready_ms is not None:
            owner = state.service or state.spec.name
            self._loads.setdefault(owner, []).append(run.ready_ms - run.started_ms)
        if run.stop is None:
            self._dropped["replicas that ended by themselves"] += 1

    def _came(self, run: Run, tries: _Tries, until_ms: int) -> Made:
        """How far a run that began had come by then, from where it began."""
        began_ms = run.started_ms or until_ms
        told = [(max(at_ms - began_ms, 0), interval) for at_ms, interval in self._told.get(run.id, [])]
        return along(max(until_ms - began_ms, 0), told, tries.save_ms)

    def _saved_when_told(self, run: Run, tries: _Tries) -> bool:
        """Whether its last save was made because it was told to end; one that was due then tells nothing."""
        if run.saved_ms is None or run.stop_ms is None or run.ended_ms is None or run.saved_ms < run.stop_ms:
            return False
        due_ms = self._came(run, tries, run.ended_ms).saved_at_ms
        return due_ms is None or due_ms < run.stop_ms - (run.started_ms or 0)

    def _tried(self, tries: _Tries, state: WorkloadState, run: Run) -> None:
        kind, lineage = run_end_kind(run), (state.spec.name, state.lineage)
        base_ms = self._saved.get(lineage, 0)
        ends = tuple(rank.end or RankEnd() for rank in run.ranks)
        if run.started_ms is None or run.ended_ms is None:
            if kind == "error" and run.stop is None:
                tries.faults.append(Fault(progress_ms=base_ms, ends=ends))
            return
        tries.save_ms = state.save_ms
        if tries.start_ms is None:
            tries.start_ms = max(run.started_ms - run.decided_ms, 0)
        tries.longest_ms = max(tries.longest_ms, run.ended_ms - run.started_ms)
        told = self._told.get(run.id)
        tries.interval_ms = told[0][1] if told else run.interval_ms
        done_ms = base_ms + self._came(run, tries, run.ended_ms).done_ms
        tries.seen_ms = max(tries.seen_ms, done_ms)
        when_told = self._saved_when_told(run, tries)
        if run.saved_ms is not None:
            saved_ms = run.stop_ms if when_told and run.stop_ms is not None else run.saved_ms
            self._saved[lineage] = base_ms + self._came(run, tries, saved_ms).done_ms
        self._told.pop(run.id, None)
        if kind == "succeeded":
            tries.needs_ms = done_ms
            tries.completed = any(end.completed for end in ends)
            tries.artifacts = tuple(
                ArtifactReport(name=item.name, digest=item.digest, size_bytes=item.size_bytes)
                for item in state.artifacts
                if item.run == run.id
            )
        elif run.stop is not None and run.stop != "rank-failed":
            stop_ms = run.stop_ms or run.ended_ms
            tries.stops.append((max(run.ended_ms - stop_ms, 0), worst_end(run), when_told))
        elif kind != "interruption":
            tries.faults.append(Fault(progress_ms=done_ms, ends=ends))
        elif run.id not in self._with_node:
            lost = worst_end(run)
            rank = next(rank for rank in run.ranks if rank.end is lost)
            loss = Loss(node=rank.placement.node, workload=run.workload, end=lost)
            self._happened(loss, run.ended_ms)

    def _cut_off(self, snapshot: Snapshot, state: WorkloadState) -> None:
        """A job that the end of the journal found on its way."""
        tries = self._of(state.generation)
        if tries is None or state.phase in FINAL_PHASES:
            return
        tries.fate = "running" if state.phase is Phase.ACTIVE else "waiting"
        run = None if state.run is None else snapshot.runs[state.run]
        if run is not None and run.started_ms is not None:
            tries.save_ms = state.save_ms
            came_ms = self._came(run, tries, run.ended_ms or self._at_ms).done_ms
            tries.seen_ms = max(tries.seen_ms, self._saved.get((state.spec.name, state.lineage), 0) + came_ms)


def _simulated(event: FleetDeclared | ClusterObserved) -> FleetDeclared | ClusterObserved:
    """The same nodes, in the hands of the simulation."""
    if isinstance(event, ClusterObserved):
        return msgspec.structs.replace(event, nodes=_in_simulation(event.nodes))
    fleet = msgspec.structs.replace(event.fleet, nodes=_in_simulation(event.fleet.nodes))
    return FleetDeclared(fleet=fleet)


def _in_simulation(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(msgspec.structs.replace(node, driver=DRIVER) for node in nodes)


def _works(tries: Mapping[JobKey, _Tries]) -> dict[JobKey, Work]:
    """Each job's work; what a job does not tell itself is the median of what others told."""
    every = list(tries.values())
    starts = [one.start_ms for one in every if one.start_ms is not None]
    saves = [one.save_ms for one in every if one.save_ms is not None]
    stops = sorted((stop for one in every for stop in one.stops), key=lambda stop: stop[0])
    needs = [one.needs_ms for one in every if one.needs_ms is not None]
    saving = [saved for one in every if one.checkpoints for _, _, saved in one.stops]
    usual = _Tries(
        checkpoints=True,
        start_ms=median_low(starts) if starts else 0,
        save_ms=median_low(saves) if saves else None,
        stops=[(*stops[(len(stops) - 1) // 2][:2], 2 * sum(saving) > len(saving))] if stops else [],
        needs_ms=max(median_low(needs), 1) if needs else 1,
    )
    return {key: _work(one, usual) for key, one in tries.items() if one.fate is not None}


def _work(tries: _Tries, usual: _Tries) -> Work:
    fate = tries.fate
    assert fate is not None, "only of jobs that are known"
    stops: Sequence[tuple[int, RankEnd, bool]] = sorted(tries.stops, key=lambda stop: stop[0]) or usual.stops
    stop_ms, stop_end, saved = stops[(len(stops) - 1) // 2] if stops else (0, RankEnd(signal=15), False)
    untold = tries.interval_ms is None or tries.longest_ms < tries.interval_ms
    save_ms = usual.save_ms if tries.save_ms is None and untold else tries.save_ms
    needs_ms = tries.needs_ms
    if fate in ("running", "waiting"):
        needs_ms = tries.seen_ms or usual.needs_ms
    return Work(
        fate=fate,
        needs_ms=needs_ms,
        faults=tuple(tries.faults),
        start_ms=tries.start_ms if tries.start_ms is not None else usual.start_ms or 0,
        save_ms=save_ms if tries.checkpoints else None,
        stop_ms=stop_ms,
        stop_end=stop_end,
        saves_on_stop=tries.checkpoints
        and (any(saved for _, _, saved in tries.stops) if tries.stops else saved),
        completed=tries.completed,
        artifacts=tries.artifacts,
    )
