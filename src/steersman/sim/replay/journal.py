"""A home's own journal before the deciders again: do they decide what they decided?

Theory of operation. The journal is read from its beginning and folded as it was. At each `Observed` event
the deciders see what they saw then: the state after the events that were recorded with it. What they decide
now is held against what came in meanwhile, as the engine did, and compared with the `Decided` event that
follows, byte for byte. The fold goes on with what was recorded, so that one difference does not make others.

A cycle whose intent was never recorded (the control plane died in it, or the journal could not be written)
has nothing to be compared with, and is counted. Identity is promised for journals of the same build: another
build may decide otherwise, and this tells where.
"""

from collections.abc import Iterable

import msgspec

from steersman.decide.cycle import decide
from steersman.decide.foresight import Memo
from steersman.engine.validate import still_valid
from steersman.model.codec import decode_event, encode_event
from steersman.model.decisions import Decision
from steersman.model.events import Decided, Event, Observed
from steersman.model.snapshot import Snapshot
from steersman.ports.journal import Record
from steersman.sim.replay.result import Progress
from steersman.state.fold import fold

DIFFERENCES_MAX = 20
"""So many are kept whole; all are counted."""
TELL_EVERY = 1_000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle, by the position of its `Observed` event, that would now decide otherwise."""

    observed_at: int
    recorded: tuple[Decision, ...]
    decided: tuple[Decision, ...]


class Redecided(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    `unrecorded`: cycles whose intent the journal does not hold. `unknown`: decided cycles of which it does
    not say what they saw.
    """

    events: int
    cycles: int
    decisions: int
    differing: int
    unrecorded: int
    unknown: int
    differences: tuple[Difference, ...]


class _Cycle(msgspec.Struct, kw_only=True):
    """One that is being replayed: what is still to be folded before it decides, then what it decided."""

    observed_at: int
    left: int
    plan: tuple[Decision, ...] | None = None


def redecide(records: Iterable[Record], total: int, progress: Progress) -> Redecided:
    """Every cycle of a journal, decided again. `total`: how many records there are, for the progress.

    Raises JournalCorrupt or JournalNewer when an event cannot be read.
    """
    walk = _Walk()
    for record in records:
        walk.take(record)
        if record.position % TELL_EVERY == 0:
            progress(record.position / max(total, 1), f"{walk.cycles:,} cycles")
    return walk.end()


class _Walk:
    """The journal up to an event."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._batch: list[tuple[int, Event]] = []
        self._cycle: _Cycle | None = None
        self.events = self.cycles = self.decisions = self.differing = self.unrecorded = self.unknown = 0
        self.differences: list[Difference] = []
        self._memo = Memo()

    def take(self, record: Record) -> None:
        """The next event."""
        event = decode_event(record.type, record.version, record.body)
        self.events += 1
        match event:
            case Observed(news=None):
                self._close()
            case Observed(news=int(news)):
                self._close()
                self._cycle = _Cycle(observed_at=record.position, left=news + 1)
            case Decided():
                self._compare(event, record.body)
        self._batch.append((record.position, event))
        cycle = self._cycle
        if cycle is not None and cycle.plan is None:
            cycle.left -= 1
            if not cycle.left:
                cycle.plan = decide(self._folded(), self._memo).decisions
                self.cycles += 1

    def end(self) -> Redecided:
        """After the last."""
        self._close()
        return Redecided(
            events=self.events,
            cycles=self.cycles,
            decisions=self.decisions,
            differing=self.differing,
            unrecorded=self.unrecorded,
            unknown=self.unknown,
            differences=tuple(self.differences),
        )

    def _folded(self) -> Snapshot:
        self._snapshot = fold(self._snapshot, self._batch)
        self._batch = []
        return self._snapshot

    def _compare(self, event: Decided, body: bytes) -> None:
        cycle, self._cycle = self._cycle, None
        if cycle is None or cycle.plan is None or cycle.observed_at != event.observed_at:
            self.unknown += 1
            return
        decided = still_valid(self._folded(), cycle.plan)
        self.decisions += len(event.decisions)
        if encode_event(Decided(observed_at=event.observed_at, decisions=decided))[2] != body:
            self._differs(cycle.observed_at, event.decisions, decided)

    def _close(self) -> None:
        """No intent was recorded for the cycle: right, if there was nothing to do."""
        cycle, self._cycle = self._cycle, None
        if cycle is not None and (cycle.plan is None or still_valid(self._folded(), cycle.plan)):
            self.unrecorded += 1

    def _differs(self, at: int, recorded: tuple[Decision, ...], decided: tuple[Decision, ...]) -> None:
        self.differing += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(Difference(observed_at=at, recorded=recorded, decided=decided))
