"""What must hold of a home, told from the outside: its journal's history against what really happened.

Theory of operation. The checkers are an independent oracle: they read recorded events and the lives of
programs as the world itself saw them (a simulated driver's books, or a ledger that real programs wrote), and
share no code with the fold, the deciders or the engine. They keep their own plain accounts. Each returns the
violations it found, in words; an empty list is silence. A checker is only worth its planted bug: tests plant
one for each of them.

`Life` is what the world knows of one key. `began_after` and `told_after` are the journal positions that were
durable at the instant when the program began, or was first told to end: an intent must lie at or before them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from steersman.model.decisions import Decision, Finish, Forget, Placement, Requeue, Spawn, Start, Stop
from steersman.model.events import (
    CheckpointSaved,
    ClusterObserved,
    ControlPlaneStarted,
    Decided,
    Event,
    FleetDeclared,
    NodeHealth,
    Observed,
    RankExited,
    RankReady,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Node
from steersman.model.mig import COMPUTE_SLICES, MEMORY_SLICES, profiles_of
from steersman.model.resources import WHOLE_MILLI
from steersman.ports.driver import RankKey
from steersman.sim.quotas import quotas_hold

History = Sequence[tuple[int, Event]]
"""A journal from its first event on: (position, event)."""

Violations = list[str]


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One key's programs. `exit_code` and `signal` are its own end; both None: the world does not know."""

    key: RankKey
    starts: int
    live: bool
    exit_code: int | None = None
    signal: int | None = None
    began_after: int | None = None
    told_after: int | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known at the end. `acknowledged` are events with the positions that were answered; `listed`
    are keys that were told to end while the gateway's last word had them among its replicas."""

    history: tuple[tuple[int, Event], ...]
    lives: tuple[Life, ...] = ()
    acknowledged: tuple[tuple[int, Event], ...] = ()
    listed: tuple[RankKey, ...] = ()


# ---- plain accounts ---------------------------------------------------------------------------------------


class _Leases:
    """Who holds what, counted from the events alone. `effective` are the leases that the last event ended."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.held: dict[RankKey, Placement] = {}
        self.workload: dict[str, str] = {}
        self.effective: list[RankKey] = []

    def take(self, decision: Start) -> None:
        for placement in decision.placements:
            self.held[RankKey(run=decision.run, rank=placement.rank)] = placement
        self.workload[decision.run] = decision.workload

    def feed(self, event: Event) -> None:
        """Any event but `Decided`."""
        self.effective = []
        match event:
            case FleetDeclared():
                found = {cluster.name for cluster in event.fleet.clusters}
                self._replace(event.fleet.nodes, lambda node: not node.cluster or node.cluster not in found)
            case ClusterObserved(problem="", cluster=name):
                self._replace(event.nodes, lambda node: node.cluster == name)
            case RankExited():
                self._end([RankKey(run=event.run, rank=event.rank)])
            case NodeHealth(health="dead"):
                self._end([key for key, placement in self.held.items() if placement.node == event.node])
            case _:
                pass

    def _replace(self, nodes: Iterable[Node], is_of: Callable[[Node], bool]) -> None:
        """These instead of those that were there, but for those that hold something."""
        kept = {placement.node for placement in self.held.values()}
        old = {name: node for name, node in self.nodes.items() if name in kept or not is_of(node)}
        self.nodes = {**old, **{node.id: node for node in nodes}}

    def _end(self, keys: Iterable[RankKey]) -> None:
        for key in keys:
            if self.held.pop(key, None) is not None:
                self.effective.append(key)


def _decisions(event: Event) -> tuple[Decision, ...]:
    return event.decisions if isinstance(event, Decided) else ()


def _starts(history: History) -> Iterator[tuple[int, Start]]:
    for position, event in history:
        for decision in _decisions(event):
            if isinstance(decision, Start):
                yield position, decision


def _keys(start: Start) -> Iterator[RankKey]:
    return (RankKey(run=start.run, rank=placement.rank) for placement in start.placements)


def _named(key: RankKey) -> str:
    return f"{key.run}/{key.rank}"


# ---- the journal alone ------------------------------------------------------------------------------------


def without_gap(history: History) -> Violations:
    """Positions count from 1."""
    return [
        f"position {position} stands where {expected} belongs"
        for expected, (position, _) in enumerate(history, start=1)
        if position != expected
    ]


def epochs_rise(history: History) -> Violations:
    """Every control plane that takes the home has a higher epoch than all before it."""
    found: Violations = []
    highest = 0
    for position, event in history:
        if isinstance(event, ControlPlaneStarted):
            if event.epoch <= highest:
                found.append(f"{position}: epoch {event.epoch} after epoch {highest}: nothing is fenced")
            highest = max(highest, event.epoch)
    return found


def time_never_goes_back(history: History) -> Violations:
    """What the deciders take for now is never before what they took for now before, whatever clocks say."""
    found: Violations = []
    latest = 0
    for position, event in history:
        if isinstance(event, Observed):
            if event.now_ms < latest:
                found.append(f"{position}: {event.now_ms} is now, and before that {latest} was")
            latest = max(latest, event.now_ms)
    return found


def leases_fit(history: History) -> Violations:
    """No device is leased twice and no node over its capacity, after any grant at any position."""
    found: Violations = []
    leases = _Leases()
    for position, event in history:
        leases.feed(event)
        for decision in _decisions(event):
            if isinstance(decision, Start):
                found += [f"{position}: {problem}" for problem in _grant(leases, decision)]
    return found


def _grant(leases: _Leases, start: Start) -> Violations:
    held = [key for key in _keys(start) if key in leases.held]
    found = [f"the lease of {_named(key)} is granted while it is held" for key in held]
    leases.take(start)
    for name in sorted({placement.node for placement in start.placements}):
        node = leases.nodes.get(name)
        if node is None:
            found.append(f"{start.run} is placed on {name}, which is not in the fleet")
        else:
            found += _overfull(node, [at for at in leases.held.values() if at.node == name])
    return found


def _overfull(node: Node, placements: Sequence[Placement]) -> Iterator[str]:
    cpu_milli = sum(placement.cpu_milli for placement in placements)
    memory_bytes = sum(placement.memory_bytes for placement in placements)
    if cpu_milli > node.cpu_milli:
        yield f"{cpu_milli} millicores are leased on {node.id}, which has {node.cpu_milli}"
    if memory_bytes > node.memory_bytes:
        yield f"{memory_bytes} bytes are leased on {node.id}, which has {node.memory_bytes}"
    known: dict[str, str] = {device.id: device.kind for device in node.devices}
    held: dict[str, list[Placement]] = {}
    for placement in placements:
        for device in placement.devices:
            held.setdefault(device, []).append(placement)
    for name, parts in held.items():
        if name not in known:
            yield f"device {name} is leased and {node.id} has no such device"
        elif len(parts) > 1 and not _parts_fit(known[name], parts):
            yield f"device {name} of {node.id} is leased twice"


def _parts_fit(kind: str, parts: Sequence[Placement]) -> bool:
    """Whether several leases of one device can be parts of it: time slices, or MIG instances side by side."""
    if any(not part.mig_profile for part in parts):
        return sum(WHOLE_MILLI if part.mig_profile else part.device_milli for part in parts) <= WHOLE_MILLI
    sizes = {profile.name: profile for profile in profiles_of(kind)}
    slices = [
        at for part in parts for at in range(part.mig_start, part.mig_start + sizes[part.mig_profile].memory)
    ]
    compute = sum(sizes[part.mig_profile].compute for part in parts)
    return len(slices) == len(set(slices)) and max(slices) < MEMORY_SLICES and compute <= COMPUTE_SLICES


def one_live_run(history: History) -> Violations:
    """A workload never has two runs with live ranks; a run is begun once."""
    found: Violations = []
    leases = _Leases()
    begun: set[str] = set()
    for position, event in history:
        leases.feed(event)
        for decision in _decisions(event):
            if not isinstance(decision, Start):
                continue
            alive = {key.run for key in leases.held if leases.workload[key.run] == decision.workload}
            found += [
                f"{position}: {decision.run} begins while {other} of {decision.workload} is live"
                for other in sorted(alive)
            ]
            if decision.run in begun:
                found.append(f"{position}: {decision.run} is begun again")
            begun.add(decision.run)
            leases.take(decision)
    return found


def gangs_are_whole(history: History) -> Violations:
    """Every run is begun with each of the ranks that its workload was declared with, once."""
    found: Violations = []
    sizes: dict[str, int] = {}
    for position, event in history:
        if isinstance(event, WorkloadDeclared):
            sizes[event.workload.name] = event.workload.body.num_nodes
        for decision in _decisions(event):
            if isinstance(decision, Spawn):
                sizes[decision.job.name] = decision.job.body.num_nodes
            elif isinstance(decision, Start):
                ranks, size = [at.rank for at in decision.placements], sizes.get(decision.workload, 0)
                if ranks != list(range(size)):
                    found.append(f"{position}: {decision.run} begins with ranks {ranks}, declared are {size}")
    return found


def decided_before_seen(history: History) -> Violations:
    """Nothing is recorded of a rank before the decision that began it."""
    found: Violations = []
    ranks: dict[str, int] = {}
    for position, event in history:
        for decision in _decisions(event):
            if isinstance(decision, Start):
                ranks[decision.run] = len(decision.placements)
        if isinstance(event, RankStarted | RankReady | RankExited | RankUnknown):
            if event.rank >= ranks.get(event.run, 0):
                found.append(f"{position}: {event.run}/{event.rank} is heard of before it was decided")
        elif isinstance(event, CheckpointSaved) and event.run not in ranks:
            found.append(f"{position}: {event.run} saved before it was decided")
    return found


def ends_agree(history: History) -> Violations:
    """However often a rank's end is recorded, it is one end."""
    found: Violations = []
    ends: dict[RankKey, tuple[object, ...]] = {}
    for position, event in history:
        if isinstance(event, RankExited):
            key, end = RankKey(run=event.run, rank=event.rank), (event.exit_code, event.signal, event.cause)
            if ends.setdefault(key, end) != end:
                found.append(f"{position}: {_named(key)} ended as {end} and before as {ends[key]}")
    return found


def final_is_final(history: History) -> Violations:
    """After its end or its removal nothing is decided on a workload or service until it is declared again, or
    made again for those that need it."""
    found: Violations = []
    ended: dict[str, str] = {}
    for position, event in history:
        if isinstance(event, WorkloadDeclared):
            ended.pop(event.workload.name, None)
        elif isinstance(event, ServiceDeclared):
            ended.pop(event.service.name, None)
        for decision in _decisions(event):
            if isinstance(decision, Spawn):
                ended.pop(decision.job.name, None)
            how = ended.get(decision.workload)
            forgets = isinstance(decision, Forget) and how != "forgotten"
            if how is not None and not forgets:
                kind = type(decision).__name__
                found.append(f"{position}: {kind} of {decision.workload}, which is {how}")
            if isinstance(decision, Finish):
                ended[decision.workload] = decision.outcome
            elif isinstance(decision, Forget):
                ended[decision.workload] = "forgotten"
    return found


def nothing_stale_is_decided(history: History) -> Violations:
    """What is told to end lives and was not told yet; what is judged has ended; who starts is wanted."""
    found: Violations = []
    leases = _Leases()
    told: set[str] = set()
    unwanted: set[str] = set()
    for position, event in history:
        leases.feed(event)
        if isinstance(event, StopRequested | RemoveRequested):
            unwanted.add(event.workload)
        elif isinstance(event, WorkloadDeclared | ServiceDeclared):
            unwanted.discard(
                event.workload.name if isinstance(event, WorkloadDeclared) else event.service.name
            )
        for decision in _decisions(event):
            runs = {key.run for key in leases.held if leases.workload[key.run] == decision.workload}
            kind = type(decision).__name__
            if isinstance(decision, Stop):
                if decision.run not in runs or decision.run in told:
                    found.append(
                        f"{position}: {decision.run} is told to end and has ended, or was told before"
                    )
                told.add(decision.run)
            elif isinstance(decision, Start) and decision.workload in unwanted:
                found.append(f"{position}: {decision.run} begins and nobody wants it any more")
            elif isinstance(decision, Requeue | Finish | Forget) and runs:
                found.append(f"{position}: {kind} of {decision.workload}, which still has {sorted(runs)}")
            if isinstance(decision, Start):
                leases.take(decision)
    return found


# ---- the journal against the world ------------------------------------------------------------------------


def begun_once(evidence: Evidence) -> Violations:
    """No key's program was begun twice: there was never a second object for one rank of one run."""
    return [f"{_named(life.key)} was begun {life.starts} times" for life in evidence.lives if life.starts > 1]


def decided_before_done(evidence: Evidence) -> Violations:
    """Every effect has its intent durable before it: a begin its Start, an end its Stop."""
    started = {key: position for position, start in _starts(evidence.history) for key in _keys(start)}
    stopped: dict[str, int] = {}
    for position, event in evidence.history:
        for decision in _decisions(event):
            if isinstance(decision, Stop):
                stopped.setdefault(decision.run, position)
    found: Violations = []
    for life in evidence.lives:
        if life.began_after is not None and not started.get(life.key, _NEVER) <= life.began_after:
            found.append(f"{_named(life.key)} began when the journal was at {life.began_after}, undecided")
        if life.told_after is not None and not stopped.get(life.key.run, _NEVER) <= life.told_after:
            found.append(f"{_named(life.key)} was told to end at {life.told_after}, undecided")
    return found


_NEVER = 1 << 62


def _at_end(history: History) -> _Leases:
    leases = _Leases()
    for _, event in history:
        leases.feed(event)
        for decision in _decisions(event):
            if isinstance(decision, Start):
                leases.take(decision)
    return leases


def no_orphans(evidence: Evidence) -> Violations:
    """Every live object has a live lease, and every live lease that was begun has a live object."""
    held = _at_end(evidence.history).held
    alive = {life.key for life in evidence.lives if life.live}
    begun = {life.key for life in evidence.lives if life.starts}
    orphans = [f"{_named(key)} lives and the journal knows of no lease" for key in sorted(alive - set(held))]
    ghosts = [f"{_named(key)} is live for the journal and gone" for key in sorted(set(held) & begun - alive)]
    return orphans + ghosts


def no_lost_exits(evidence: Evidence) -> Violations:
    """Every program that began and ended has one recorded end that counts: its own, or its node's."""
    counted: dict[RankKey, list[RankExited | NodeHealth]] = {}
    leases = _Leases()
    for _, event in evidence.history:
        leases.feed(event)
        if isinstance(event, RankExited | NodeHealth):
            for key in leases.effective:
                counted.setdefault(key, []).append(event)
        for decision in _decisions(event):
            if isinstance(decision, Start):
                leases.take(decision)
    found: Violations = []
    for life in evidence.lives:
        if life.starts and not life.live:
            found += _end_kept(life, counted.get(life.key, []))
    return found


def _end_kept(life: Life, ends: Sequence[RankExited | NodeHealth]) -> Iterator[str]:
    name = _named(life.key)
    if len(ends) != 1:
        yield f"{name} ended and {len(ends)} of its recorded ends count"
        return
    end = ends[0]
    if isinstance(end, NodeHealth):
        return  # whoever was on a dead node could not be asked
    knows = life.exit_code is not None or life.signal is not None
    if knows and (end.exit_code, end.signal) != (life.exit_code, life.signal):
        yield (
            f"{name} ended with code {life.exit_code}, signal {life.signal}; recorded are"
            f" code {end.exit_code}, signal {end.signal} ({end.cause})"
        )


def nobody_is_lost(evidence: Evidence) -> Violations:
    """Everything declared runs, or the last that was decided of it is its end, or why it has to wait."""
    leases = _at_end(evidence.history)
    runs = {leases.workload[key.run] for key in leases.held}
    last: dict[str, str] = {}
    for _, event in evidence.history:
        if isinstance(event, WorkloadDeclared) and event.restarts:
            last[event.workload.name] = "its declaration"
        for decision in _decisions(event):
            if decision.workload in last:
                last[decision.workload] = type(decision).__name__
    return [
        f"the last that is known of {name} is {what}"
        for name, what in sorted(last.items())
        if name not in runs and what not in ("Finish", "Forget", "Hold")
    ]


def acknowledged_is_kept(evidence: Evidence) -> Violations:
    """What was acknowledged stands in the journal where it was said to stand."""
    stored = dict(evidence.history)
    return [
        f"{position}: {type(event).__name__} was acknowledged there and is not"
        for position, event in evidence.acknowledged
        if stored.get(position) != event
    ]


def let_go_before_told(evidence: Evidence) -> Violations:
    """No replica was told to end while the gateway still sent requests to it."""
    return [f"{_named(key)} was told to end and the gateway knew nothing of it" for key in evidence.listed]


OF_HISTORY: tuple[Callable[[History], Violations], ...] = (
    without_gap,
    epochs_rise,
    time_never_goes_back,
    leases_fit,
    one_live_run,
    gangs_are_whole,
    decided_before_seen,
    ends_agree,
    final_is_final,
    nothing_stale_is_decided,
    quotas_hold,
)
OF_EVIDENCE: tuple[Callable[[Evidence], Violations], ...] = (
    begun_once,
    decided_before_done,
    acknowledged_is_kept,
    let_go_before_told,
)
AT_REST: tuple[Callable[[Evidence], Violations], ...] = (no_orphans, no_lost_exits, nobody_is_lost)


def violations(evidence: Evidence) -> Violations:
    """Everything that any checker finds once all is at rest, each with the checker's name."""
    return always(evidence) + [f"{check.__name__}: {item}" for check in AT_REST for item in check(evidence)]


def always(evidence: Evidence) -> Violations:
    """What is wrong at whatever instant it is found."""
    found = [f"{check.__name__}: {item}" for check in OF_HISTORY for item in check(evidence.history)]
    return found + [f"{check.__name__}: {item}" for check in OF_EVIDENCE for item in check(evidence)]
